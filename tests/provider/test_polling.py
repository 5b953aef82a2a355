"""Waits that share a client and a pace, and end when they should, a triggerer's restart or not."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from airflow_and_service import client_of

from airflow_provider_lookoutvision.hooks.lookoutvision import LookoutVisionHook
from airflow_provider_lookoutvision.operators.lookoutvision import LookoutVisionStopModelOperator
from airflow_provider_lookoutvision.testing.service import Service, running_service
from airflow_provider_lookoutvision.triggers import lookoutvision as triggers
from airflow_provider_lookoutvision.triggers.lookoutvision import LookoutVisionWaiterTrigger
from airflow_provider_lookoutvision.waiters import polling, waiter
from airflow_provider_lookoutvision.waiters.polling import RateLimiter, shared_polling_client
from airflow_provider_lookoutvision.waiters.waiter import WaiterRun, Wait, WaiterFailed

DATASET = {"ProjectName": "p", "DatasetType": "train"}
LOG = logging.getLogger(__name__)


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """A service with a project ``p`` that has an empty training dataset, and whose trainings never begin."""
    with running_service(flags=["--no-worker"]) as service:
        client = client_of(service)
        client.create_project(ProjectName="p")
        client.create_dataset(ProjectName="p", DatasetType="train")
        yield service


@pytest.fixture
def model(service: Service) -> Iterator[dict[str, str]]:
    """The members that name a model in training."""
    client = client_of(service)
    output = {"S3Location": {"Bucket": "some-bucket"}}
    made = client.create_model(ProjectName="p", OutputConfig=output)["ModelMetadata"]
    model = {"ProjectName": "p", "ModelVersion": made["ModelVersion"]}
    yield model
    with suppress(client.exceptions.ResourceNotFoundException):
        client.delete_model(**model)


@pytest.fixture
def conn_id(service: Service, connect: Any) -> str:
    key = {"login": service.access_key_id, "password": service.secret_access_key}
    return str(connect(**key, endpoint_url=service.endpoint_url, requests_per_second=20))


@pytest.fixture(params=["aiobotocore", "threads"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "threads":
        monkeypatch.setattr(polling, "has_aiobotocore", lambda: False)
    return str(request.param)


def throttled(**headers: str) -> dict[str, Any]:
    return {
        "Error": {"Code": "ThrottlingException", "Message": "too much"},
        "ResponseMetadata": {"HTTPHeaders": headers},
    }


def test_turns_come_in_order_and_no_faster_than_the_rate() -> None:
    async def run() -> tuple[list[int], float]:
        cadence, order = RateLimiter(), []

        async def one(number: int) -> None:
            await cadence.turn(rate=50)
            order.append(number)

        began = asyncio.get_running_loop().time()
        await asyncio.gather(*map(one, range(10)))
        return order, asyncio.get_running_loop().time() - began

    order, seconds = asyncio.run(run())
    assert order == list(range(10))
    assert seconds >= 9 / 50


@pytest.mark.parametrize(
    ("headers", "least"), [({"retry-after": "1"}, 1.0), ({}, 1.0), ({"retry-after": "x"}, 1.0)]
)
def test_trouble_makes_everybody_pause(headers: Mapping[str, str], least: float) -> None:
    async def run() -> float:
        cadence = RateLimiter()
        await cadence.turn(rate=1000)
        cadence.heed(throttled(**headers))
        began = asyncio.get_running_loop().time()
        await asyncio.gather(cadence.turn(rate=1000), cadence.turn(rate=1000))
        return asyncio.get_running_loop().time() - began

    assert asyncio.run(run()) >= least


def test_an_answer_ends_the_trouble() -> None:
    async def run() -> list[float]:
        cadence, pauses = RateLimiter(), []
        for answer in (throttled(), throttled(), {"ok": 1}, throttled()):
            cadence.heed(answer)
            pauses.append(cadence._pause)
        return pauses

    assert asyncio.run(run()) == [1, 2, 0, 1]


def test_waits_on_one_connection_share(conn_id: str) -> None:
    def hook() -> LookoutVisionHook:
        return LookoutVisionHook(aws_conn_id=conn_id)

    async def run() -> None:
        async with shared_polling_client(hook, "one") as first:
            async with shared_polling_client(hook, "one") as second, shared_polling_client(hook, "another") as other:
                assert first is second
                assert other is not first
            async with shared_polling_client(hook, "another") as later:
                assert later is not other
        async with shared_polling_client(hook, "one") as new:
            assert new is not first

    asyncio.run(run())


async def events_of(trigger: LookoutVisionWaiterTrigger) -> list[Any]:
    return [event.payload async for event in trigger.run()]


def test_many_waits_keep_the_pace_together(way: str, conn_id: str) -> None:
    async def run() -> tuple[list[Any], float]:
        began = time.monotonic()
        triggers = [
            LookoutVisionWaiterTrigger(
                waiter="DatasetCreated",
                arguments=DATASET,
                waiter_delay=1,
                waiter_max_attempts=60,
                aws_conn_id=conn_id,
            )
            for _ in range(30)
        ]
        return await asyncio.gather(*map(events_of, triggers)), time.monotonic() - began

    events, seconds = asyncio.run(run())
    assert events == [[{"status": "success", "return_value": {}}]] * 30
    assert seconds >= 29 / 20


def test_a_wait_whose_time_is_up_asks_once(conn_id: str) -> None:
    wait = Wait("DatasetUpdated", DATASET, delay=0.2, max_attempts=10_000)
    with pytest.raises(WaiterFailed, match="asked 1 times"):
        asyncio.run(wait.run_async(lambda: LookoutVisionHook(conn_id), LOG, "key", end_time=time.time() - 1))


def test_a_trigger_that_is_made_again_ends_when_it_would_have(conn_id: str) -> None:
    fields: dict[str, Any] = {
        "waiter": "DatasetCreated",
        "arguments": DATASET,
        "waiter_delay": 5,
        "waiter_max_attempts": 720,
        "aws_conn_id": conn_id,
    }
    path, made = LookoutVisionWaiterTrigger(**fields).serialize()
    assert time.time() + 3500 < made["end_time"] < time.time() + 3601
    assert LookoutVisionWaiterTrigger(**made).serialize() == (path, made)
    assert Path(path).suffix == ".LookoutVisionWaiterTrigger"


# -- what the log tells ----------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Time that passes when it is told to."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(waiter, "time", SimpleNamespace(monotonic=lambda: clock.now, time=time.time))
    return clock


def seen(status: str) -> dict[str, Any]:
    return {"ModelDescription": {"Status": status}}


def test_the_log_tells_what_is_waited_for_now_and_then(
    clock: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    wait = Wait("ModelHosted", {"ProjectName": "p", "ModelVersion": "1"}, delay=10, max_attempts=360)
    progress = WaiterRun(wait, LOG)
    for _ in range(61):  # ten minutes
        assert not progress.see(seen("STARTING_HOSTING"))
        clock.now += 10
    assert not progress.see({"Error": {"Code": "ThrottlingException", "Message": "too much"}})
    assert progress.see(seen("HOSTED"))
    assert caplog.messages == [
        "Waiting for ModelHosted of p/1: STARTING_HOSTING; asking every 10 s, for 1:00:00 at most",
        "Waiting for ModelHosted of p/1: STARTING_HOSTING, for 0:05:00 so far",
        "Waiting for ModelHosted of p/1: STARTING_HOSTING, for 0:10:00 so far",
        "Waiting for ModelHosted of p/1: ThrottlingException (too much), for 0:10:10 so far",
        "ModelHosted of p/1: HOSTED, after 0:10:10",
    ]


def test_what_is_there_already_has_not_been_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert WaiterRun(Wait("ModelHosted", {"ProjectName": "p", "ModelVersion": "1"}, 10, 360), LOG).see(
        seen("HOSTED")
    )
    assert caplog.messages == ["ModelHosted of p/1: HOSTED"]


# -- what a trigger tells, and does ----------------------------------------------------------------------


@pytest.fixture
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triggers, "_FIRST_SECONDS", 0.0)


def trigger(conn_id: str, waiter: str, arguments: dict[str, str], **more: Any) -> LookoutVisionWaiterTrigger:
    return LookoutVisionWaiterTrigger(
        **{"waiter": waiter, "arguments": arguments, "waiter_delay": 1, "waiter_max_attempts": 60, **more},
        aws_conn_id=conn_id,
    )


@pytest.mark.usefixtures("_at_once")
def test_the_event_hands_back_what_the_operator_needs(conn_id: str) -> None:
    waits = trigger(conn_id, "DatasetCreated", DATASET, return_value={"part": 2})
    assert asyncio.run(events_of(waits)) == [{"status": "success", "return_value": {"part": 2}}]


@pytest.mark.usefixtures("_at_once")
@pytest.mark.parametrize(
    ("waiter", "arguments", "status", "told"),
    [
        ("DatasetCreated", {**DATASET, "ProjectName": "no name"}, "input", "ValidationException"),
        ("ModelPackagingJobSucceeded", {"ProjectName": "p", "JobName": "j"}, "input", "NotImplemented"),
        ("DatasetCreated", {**DATASET, "ProjectName": "none"}, "error", "ResourceNotFoundException"),
        (
            "DatasetUpdated",
            DATASET,
            "timeout",
            "DatasetUpdated of p/train has not come: asked 1 times in ",
        ),
    ],
)
def test_the_event_says_whose_fault_it_is(
    way: str, conn_id: str, waiter: str, arguments: dict[str, str], status: str, told: str
) -> None:
    ((event,)) = asyncio.run(events_of(trigger(conn_id, waiter, arguments, end_time=time.time())))
    assert event["status"] == status
    assert told in event["message"]


def test_a_killed_trigger_cancels_what_it_is_told_to(
    service: Service, conn_id: str, model: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    client = client_of(service)
    asyncio.run(trigger(conn_id, "ModelTrained", model).on_kill())
    assert client.describe_model(**model)["ModelDescription"]["Status"] == "TRAINING"

    cancels = trigger(
        conn_id, "ModelTrained", model, cancellation=("DeleteModel", {**model, "ClientToken": "t"})
    )
    again = LookoutVisionWaiterTrigger(**cancels.serialize()[1])  # as a triggerer makes it
    for _ in range(2):
        asyncio.run(again.on_kill())
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.describe_model(**model)
    assert "failed" not in caplog.text

    asyncio.run(trigger(conn_id, "ModelTrained", model, cancellation=("DeleteModel", model)).on_kill())
    assert f"DeleteModel of p/{model['ModelVersion']} failed: " in caplog.text


def test_a_killed_task_waits_no_longer(model: dict[str, str], conn_id: str) -> None:
    wait = Wait("ModelTrained", model, delay=100, max_attempts=10)
    killed = threading.Event()
    # As Airflow 3 does it: a signal's handler tells the operator, and the task goes on.
    before = signal.signal(signal.SIGUSR1, lambda *_: killed.set())
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGUSR1))
    timer.start()
    try:
        with pytest.raises(WaiterFailed, match="not waited for any more, since the task is killed: asked 1 "):
            wait.run(LookoutVisionHook(aws_conn_id=conn_id), LOG, killed.is_set)
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, before)


def test_what_is_gone_when_its_wait_has_ended_fails_the_task(conn_id: str) -> None:
    stops = LookoutVisionStopModelOperator(
        task_id="stop", project_name="p", model_version="1", aws_conn_id=conn_id
    )
    event = {"status": "success", "return_value": {"model_version": "99"}}
    with pytest.raises(AirflowFailException, match="ResourceNotFoundException"):
        stops.execute_complete({}, event)
