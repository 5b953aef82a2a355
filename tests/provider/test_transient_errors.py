"""Waits on a service that is busy, away, or behind a proxy, and on connections that are wrong: how long they
go on, how often they ask, and when they end."""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from recording_server import Answer, Request, RecordingServer, certificate, wire

from airflow_provider_lookoutvision.hooks.lookoutvision import LookoutVisionHook
from airflow_provider_lookoutvision.triggers import lookoutvision as triggers
from airflow_provider_lookoutvision.triggers.lookoutvision import LookoutVisionWaiterTrigger
from airflow_provider_lookoutvision.waiters import polling, waiter
from airflow_provider_lookoutvision.waiters.transient import is_transient, retry_after
from airflow_provider_lookoutvision.waiters.waiter import Wait, WaiterFailed

DATASET = {"ProjectName": "p", "DatasetType": "train"}
LOG = logging.getLogger(__name__)

CREATED = Answer('{"DatasetDescription": {"Status": "CREATE_COMPLETE"}}')
IMPORTING = Answer('{"DatasetDescription": {"Status": "CREATE_IN_PROGRESS"}}')
ONCE = {"retries": {"total_max_attempts": 1}}
SUCCESS = {"status": "success", "return_value": {}}


def refused(status: int, code: str, **headers: str) -> Answer:
    return Answer('{"Message": "no"}', status, {"x-amzn-errortype": code, **headers})


def from_a_proxy(status: int) -> Answer:
    return Answer("<html><h1>It is not to be had</h1></html>", status, {"Content-Type": "text/html"})


@pytest.fixture
def service() -> Iterator[RecordingServer]:
    with wire() as service:
        yield service


@pytest.fixture(params=["aiobotocore", "threads"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(triggers, "_FIRST_SECONDS", 0.0)
    if request.param == "threads":
        monkeypatch.setattr(polling, "has_aiobotocore", lambda: False)
    return str(request.param)


def answers(service: RecordingServer, *first: Answer, then: Answer = CREATED) -> None:
    """Let the service answer like this, one request after another."""
    left = iter(first)
    service.answer = lambda _: next(left, then)


def trigger(conn_id: str, **more: Any) -> LookoutVisionWaiterTrigger:
    fields = {
        "waiter": "DatasetCreated",
        "arguments": DATASET,
        "waiter_delay": 0.1,
        "waiter_max_attempts": 600,
    }
    return LookoutVisionWaiterTrigger(**{**fields, **more}, aws_conn_id=conn_id)


async def event_of(waits: LookoutVisionWaiterTrigger) -> Any:
    (event,) = [event async for event in waits.run()]
    return event.payload


# -- what passes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer", [*map(from_a_proxy, (429, 500, 502, 503, 504)), refused(429, "ThrottlingException")]
)
def test_trouble_ends_no_wait(service: RecordingServer, connect: Any, answer: Answer) -> None:
    answers(service, answer)
    conn_id = connect(endpoint_url=service.url, config_kwargs=ONCE)
    Wait("DatasetCreated", DATASET, 0.1, 9).run(LookoutVisionHook(conn_id), LOG)
    assert len(service.requests) == 2

    answers(service, answer)
    assert asyncio.run(event_of(trigger(conn_id))) == SUCCESS
    assert len(service.requests) == 4


@pytest.mark.parametrize("answer", [from_a_proxy(404), refused(402, "ServiceQuotaExceededException")])
def test_other_refusals_end_it(service: RecordingServer, connect: Any, answer: Answer) -> None:
    answers(service, then=answer)
    conn_id = connect(endpoint_url=service.url)
    assert asyncio.run(event_of(trigger(conn_id)))["status"] == "error"
    with pytest.raises(WaiterFailed):
        Wait("DatasetCreated", DATASET, 0.1, 9).run(LookoutVisionHook(conn_id), LOG)
    assert len(service.requests) == 2


@pytest.mark.parametrize(
    ("status", "code", "trouble"),
    [(500, "500", True), (503, "503", True), (429, "429", True), (501, "NotImplementedException", False)],
)
def test_what_trouble_is(status: int, code: str, trouble: bool) -> None:
    response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    assert is_transient(response) == trouble
    assert not is_transient({"DatasetDescription": {}})


# -- the pace --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "seconds"), [("7", 7), ("86400", 300), ("", 0), ("Wed, 21 Oct 2026 07:28:00 GMT", 0)]
)
def test_how_long_the_service_wants_to_be_left_alone(told: str, seconds: float) -> None:
    assert retry_after({"ResponseMetadata": {"HTTPHeaders": {"retry-after": told}}}) == seconds
    assert retry_after({}) == 0


def test_nobody_asks_before_the_service_wants_it(service: RecordingServer, connect: Any) -> None:
    answers(service, refused(429, "ThrottlingException", **{"Retry-After": "2"}), from_a_proxy(503))
    conn_id = connect(endpoint_url=service.url, requests_per_second=2)

    async def run() -> list[Any]:
        return await asyncio.gather(*(event_of(trigger(conn_id)) for _ in range(3)))

    assert asyncio.run(run()) == [SUCCESS] * 3
    gaps = [later.at - earlier.at for earlier, later in pairwise(service.requests)]
    assert len(gaps) == 4
    # Measured where they arrive: one may take longer than the next.
    for gap, least in zip(gaps, (2, 1, 0.5, 0.5), strict=True):
        assert gap >= 0.6 * least


# -- the deadline ----------------------------------------------------------------------------------------


def test_waits_end_at_their_time_however_slow_the_pace(
    service: RecordingServer, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiter, "_LAST_SECONDS", 0.5)
    answers(service, then=IMPORTING)
    conn_id = connect(endpoint_url=service.url, requests_per_second=0.01)

    async def run() -> tuple[list[Any], float]:
        began = time.monotonic()
        waits = [trigger(conn_id, end_time=time.time() + 5) for _ in range(20)]
        return await asyncio.gather(*map(event_of, waits)), time.monotonic() - began

    events, seconds = asyncio.run(run())
    assert seconds < 60  # one after another, they would take half an hour
    assert {event["status"] for event in events} == {"timeout"}
    assert len(service.requests) == 1
    assert sum("asked 1 times" in event["message"] for event in events) == 1
    assert sum("asked 0 times" in event["message"] for event in events) == 19
    assert "last seen nothing" in events[-1]["message"]


@pytest.fixture
def silent(service: RecordingServer) -> Iterator[threading.Event]:
    """Lets the service answer, which it doesn't before."""
    speak = threading.Event()

    def answer(_: Request) -> Answer:
        speak.wait(30)
        return CREATED

    service.answer = answer
    yield speak
    speak.set()


def test_waits_end_at_their_time_though_the_service_is_silent(
    service: RecordingServer, silent: threading.Event, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiter, "_LAST_SECONDS", 0.5)
    conn_id = connect(endpoint_url=service.url, requests_per_second=100)

    async def run() -> tuple[list[Any], float]:
        began = time.monotonic()
        waits = [trigger(conn_id, end_time=time.time() + 1) for _ in range(20)]
        events = await asyncio.gather(*map(event_of, waits))
        seconds = time.monotonic() - began
        silent.set()  # a thread that asks can't be ended otherwise
        return events, seconds

    events, seconds = asyncio.run(run())
    assert seconds < 60
    assert {event["status"] for event in events} == {"timeout"}


def test_a_wait_that_is_cancelled_ends_at_once_and_alone(
    service: RecordingServer, silent: threading.Event, connect: Any
) -> None:
    conn_id = connect(endpoint_url=service.url, requests_per_second=1)

    async def run() -> list[Any]:
        waits = [asyncio.create_task(event_of(trigger(conn_id))) for _ in range(3)]
        await asyncio.sleep(0.9)
        began = time.monotonic()
        for cancelled in waits[:2]:  # one that asks, and one whose turn hasn't come
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
        assert time.monotonic() - began < 30  # the service would be silent for ever
        silent.set()
        return [await waits[2]]

    assert asyncio.run(run()) == [SUCCESS]


# -- the connection --------------------------------------------------------------------------------------


def test_a_key_that_is_edited_meanwhile_is_used(service: RecordingServer, connect: Any) -> None:
    """The old one is taken back while three waits use it; then it is replaced in the connection."""
    counted = iter(range(100))

    def answer(request: Request) -> Answer:
        if request.credential[0] == "NEW":
            return CREATED
        if next(counted) < 3:
            return IMPORTING
        connect(login="NEW", endpoint_url=service.url, requests_per_second=50)
        return refused(403, "UnrecognizedClientException")

    service.answer = answer
    conn_id = connect(login="OLD", endpoint_url=service.url, requests_per_second=50)

    async def run() -> list[Any]:
        return await asyncio.gather(*(event_of(trigger(conn_id, waiter_delay=1)) for _ in range(3)))

    assert asyncio.run(run()) == [SUCCESS] * 3


def test_a_key_that_is_refused_still_ends_the_wait(service: RecordingServer, connect: Any) -> None:
    answers(service, then=refused(403, "InvalidSignatureException"))
    event = asyncio.run(event_of(trigger(connect(endpoint_url=service.url))))
    assert event["status"] == "error"
    assert "InvalidSignatureException" in event["message"]
    assert len(service.requests) == 2


def test_an_endpoint_that_is_edited_meanwhile_is_asked(
    service: RecordingServer, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "_STALE_SECONDS", 1.0)
    answers(service)
    conn_id = connect(endpoint_url="http://127.0.0.1:9")

    async def run() -> Any:
        waits = asyncio.create_task(event_of(trigger(conn_id)))
        await asyncio.sleep(0.5)
        connect(endpoint_url=service.url)
        return await waits

    assert asyncio.run(run()) == SUCCESS


def test_a_rate_that_can_not_be_fails_the_task(connect: Any) -> None:
    event = asyncio.run(event_of(trigger(connect(requests_per_second="fast"))))
    assert event["status"] == "input"
    assert "is 'fast'; it must be a number above 0" in event["message"]


def test_a_certificate_that_is_not_trusted_ends_the_wait(connect: Any, tmp_path: Path) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate(tmp_path))
    with wire(tls) as service:
        conn_id = connect(endpoint_url=service.url, config_kwargs=ONCE)
        event = asyncio.run(event_of(trigger(conn_id)))
        assert event["status"] == "error"
        assert "CertificateNotTrusted" in event["message"]
        with pytest.raises(WaiterFailed, match="CertificateNotTrusted"):
            Wait("DatasetCreated", DATASET, 0.1, 9).run(LookoutVisionHook(conn_id), LOG)


def test_the_log_says_which_name_is_not_known(connect: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    conn_id = connect(endpoint_url="http://nowhere.invalid")
    event = asyncio.run(event_of(trigger(conn_id, end_time=time.time() + 1)))
    assert event["status"] == "timeout"
    for told in (event["message"], caplog.text):
        assert re.search(r"Unanswered \(.*http://nowhere\.invalid/.*\[Errno -\d+\] .*(?i:name)", told)
