"""Waits on a service that is busy, away, or behind a proxy, and on wrong connections: how often they poll,
and when they end."""

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
from recording_server import Answer, RecordingServer, Request, certificate, recording_server

from airflow_provider_lookoutvision.hooks.lookoutvision import LookoutVisionHook
from airflow_provider_lookoutvision.triggers import lookoutvision as triggers
from airflow_provider_lookoutvision.triggers.lookoutvision import LookoutVisionWaiterTrigger
from airflow_provider_lookoutvision.waiters import polling, waiter
from airflow_provider_lookoutvision.waiters.transient import is_transient, retry_after
from airflow_provider_lookoutvision.waiters.waiter import WaiterFailed, WaiterSpec

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
    with recording_server() as service:
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
        "waiter_name": "DatasetCreated",
        "waiter_args": DATASET,
        "waiter_delay": 0.1,
        "waiter_max_attempts": 6000,
    }
    return LookoutVisionWaiterTrigger(**{**fields, **more}, aws_conn_id=conn_id)


async def event_of(waits: LookoutVisionWaiterTrigger) -> Any:
    (event,) = [event async for event in waits.run()]
    return event.payload


# -- transient errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer", [*map(from_a_proxy, (429, 500, 502, 503, 504)), refused(429, "ThrottlingException")]
)
def test_a_transient_error_ends_no_wait(service: RecordingServer, connect: Any, answer: Answer) -> None:
    answers(service, answer)
    conn_id = connect(endpoint_url=service.url, config_kwargs=ONCE)
    WaiterSpec("DatasetCreated", DATASET, 0.1, 9).run(LookoutVisionHook(conn_id), LOG)
    assert len(service.requests) == 2

    answers(service, answer)
    assert asyncio.run(event_of(trigger(conn_id))) == SUCCESS
    assert len(service.requests) == 4


@pytest.mark.parametrize("answer", [from_a_proxy(404), refused(402, "ServiceQuotaExceededException")])
def test_another_error_ends_it(service: RecordingServer, connect: Any, answer: Answer) -> None:
    answers(service, then=answer)
    conn_id = connect(endpoint_url=service.url)
    assert asyncio.run(event_of(trigger(conn_id)))["status"] == "error"
    with pytest.raises(WaiterFailed):
        WaiterSpec("DatasetCreated", DATASET, 0.1, 9).run(LookoutVisionHook(conn_id), LOG)
    assert len(service.requests) == 2


@pytest.mark.parametrize(
    ("status", "code", "transient"),
    [(500, "500", True), (503, "503", True), (429, "429", True), (501, "NotImplementedException", False)],
)
def test_which_errors_are_transient(status: int, code: str, transient: bool) -> None:
    response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    assert is_transient(response) == transient
    assert not is_transient({"DatasetDescription": {}})


# -- how often it polls ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7), ("86400", 300), ("", 0), ("Wed, 21 Oct 2026 07:28:00 GMT", 0)]
)
def test_retry_after_is_in_seconds(header: str, seconds: float) -> None:
    assert retry_after({"ResponseMetadata": {"HTTPHeaders": {"retry-after": header}}}) == seconds
    assert retry_after({}) == 0


def test_no_request_is_sent_in_a_pause_nor_faster_than_the_rate(
    service: RecordingServer, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three waits, observed at the rate limiter that they share."""
    answers(service, refused(429, "ThrottlingException", **{"Retry-After": "2"}), from_a_proxy(503))
    conn_id = connect(endpoint_url=service.url, requests_per_second=2)
    sent: list[float] = []
    allowed: list[float] = []
    pauses: list[tuple[float, float]] = []

    class Observed(polling.RateLimiter):
        async def acquire(self, rate: float) -> None:
            await super().acquire(rate)
            # When the next one may be sent. A busy machine notes later than it happened what was sent.
            allowed.append(self._next)
            sent.append(asyncio.get_running_loop().time())

        def back_off(self, response: Any) -> None:
            began = asyncio.get_running_loop().time()
            super().back_off(response)
            if is_transient(response):
                pauses.append((began, began + (retry_after(response) or 1.0)))

    monkeypatch.setattr(polling, "RateLimiter", Observed)

    async def run() -> list[Any]:
        return await asyncio.gather(*(event_of(trigger(conn_id)) for _ in range(3)))

    start = time.monotonic()
    assert asyncio.run(run()) == [SUCCESS] * 3
    assert len(sent) == len(service.requests) == 5
    assert len(pauses) == 2
    assert not [at for at in sent for began, ended in pauses if began < at < ended]
    assert all(later >= earlier + 0.5 for earlier, later in pairwise(allowed))
    assert all(at >= start + 0.5 * number for number, at in enumerate(sent))


# -- the deadline ----------------------------------------------------------------------------------------


async def first_request(service: RecordingServer) -> None:
    while not service.requests:  # noqa: ASYNC110 (another thread appends to them)
        await asyncio.sleep(0.05)


def test_waits_end_at_their_time_however_low_the_rate(
    service: RecordingServer, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One polls, and leaves no room for the others in the next hundred seconds."""
    monkeypatch.setattr(waiter, "_LAST_REQUEST_SECONDS", 0.5)
    answers(service, then=IMPORTING)
    conn_id = connect(endpoint_url=service.url, requests_per_second=0.01)

    async def run() -> list[Any]:
        first = asyncio.create_task(event_of(trigger(conn_id, waiter_max_attempts=100_000)))
        await first_request(service)
        waits = [trigger(conn_id, end_time=time.time() + 1) for _ in range(19)]
        events = await asyncio.gather(*map(event_of, waits))
        assert not first.done()
        first.cancel()
        return events

    for event in asyncio.run(run()):
        assert event["status"] == "timeout"
        assert re.search("timed out, after .*; polled 0 times, last status unknown", event["message"])
    assert len(service.requests) == 1


@pytest.fixture
def silent(service: RecordingServer) -> Iterator[threading.Event]:
    """Lets the service answer, which it doesn't before."""
    speak = threading.Event()

    def answer(_: Request) -> Answer:
        speak.wait()
        return CREATED

    service.answer = answer
    yield speak
    speak.set()


def test_waits_end_at_their_time_though_the_service_is_silent(
    service: RecordingServer, silent: threading.Event, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiter, "_LAST_REQUEST_SECONDS", 0.5)
    conn_id = connect(endpoint_url=service.url, requests_per_second=100)

    async def run() -> list[Any]:
        waits = [trigger(conn_id, end_time=time.time() + 1) for _ in range(20)]
        events = await asyncio.gather(*map(event_of, waits))
        assert not silent.is_set()
        silent.set()  # else a thread that polls never ends
        return events

    assert {event["status"] for event in asyncio.run(run())} == {"timeout"}


def test_a_wait_that_is_cancelled_ends_alone(
    service: RecordingServer, silent: threading.Event, connect: Any
) -> None:
    conn_id = connect(endpoint_url=service.url, requests_per_second=0.5)

    async def run() -> Any:
        waits = [asyncio.create_task(event_of(trigger(conn_id))) for _ in range(3)]
        await first_request(service)
        for cancelled in waits[:2]:  # one that polls, and one that waits for the rate limit
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
        assert not silent.is_set()
        silent.set()
        return await waits[2]

    assert asyncio.run(run()) == SUCCESS


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
    assert (event["status"], event["retryable"]) == ("error", False)
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


def test_an_invalid_rate_fails_the_task(connect: Any) -> None:
    event = asyncio.run(event_of(trigger(connect(requests_per_second="fast"))))
    assert (event["status"], event["retryable"]) == ("error", False)
    assert "is 'fast'; it must be a number above 0" in event["message"]


def test_a_certificate_that_is_not_trusted_ends_the_wait(connect: Any, tmp_path: Path) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate(tmp_path))
    with recording_server(tls) as service:
        conn_id = connect(endpoint_url=service.url, config_kwargs=ONCE)
        event = asyncio.run(event_of(trigger(conn_id)))
        assert event["status"] == "error"
        assert "CertificateNotTrusted" in event["message"]
        with pytest.raises(WaiterFailed, match="CertificateNotTrusted"):
            WaiterSpec("DatasetCreated", DATASET, 0.1, 9).run(LookoutVisionHook(conn_id), LOG)


def test_the_log_names_a_host_that_is_unknown(
    connect: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(waiter, "_LAST_REQUEST_SECONDS", 120)
    conn_id = connect(endpoint_url="http://nowhere.invalid")
    event = asyncio.run(event_of(trigger(conn_id, end_time=time.time())))
    assert event["status"] == "timeout"
    for text in (event["message"], caplog.text):
        assert re.search(r"ConnectionFailed \(.*http://nowhere\.invalid/.*\[Errno -\d+\] .*(?i:name)", text)
