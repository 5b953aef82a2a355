"""One wait: what it logs, when it ends, and what ends it."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from airflow_and_service import client_of

from airflow_provider_lookoutvision.hooks.lookoutvision import LookoutVisionHook
from airflow_provider_lookoutvision.testing.service import Service, running_service
from airflow_provider_lookoutvision.waiters import waiter
from airflow_provider_lookoutvision.waiters.waiter import WaiterFailed, WaiterRun, WaiterSpec

DATASET = {"ProjectName": "p", "DatasetType": "train"}
MODEL = {"ProjectName": "p", "ModelVersion": "1"}
LOG = logging.getLogger(__name__)


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """A service with a project ``p`` that has an empty training dataset, and a training that never begins."""
    with running_service(flags=["--no-worker"]) as service:
        client = client_of(service)
        client.create_project(ProjectName="p")
        client.create_dataset(ProjectName="p", DatasetType="train")
        client.create_model(ProjectName="p", OutputConfig={"S3Location": {"Bucket": "some-bucket"}})
        yield service


@pytest.fixture
def hook(service: Service, connect: Any) -> LookoutVisionHook:
    key = {"login": service.access_key_id, "password": service.secret_access_key}
    return LookoutVisionHook(connect(**key, endpoint_url=service.endpoint_url, requests_per_second=20))


# -- what it logs ----------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Time that the test sets."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(waiter, "time", SimpleNamespace(monotonic=lambda: clock.now, time=time.time))
    return clock


def described(status: str) -> dict[str, Any]:
    return {"ModelDescription": {"Status": status}}


def test_it_logs_each_change_and_a_line_every_five_minutes(
    clock: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    run = WaiterRun(WaiterSpec("ModelHosted", MODEL, delay=10, max_attempts=360), LOG)
    for _ in range(61):  # ten minutes
        assert not run.evaluate(described("STARTING_HOSTING"))
        clock.now += 10
    assert not run.evaluate({"Error": {"Code": "ThrottlingException", "Message": "too much"}})
    assert run.evaluate(described("HOSTED"))
    assert caplog.messages == [
        "Waiting for ModelHosted of p/1: STARTING_HOSTING; polling every 10 s, for 1:00:00 at most",
        "Waiting for ModelHosted of p/1: STARTING_HOSTING, for 0:05:00 so far",
        "Waiting for ModelHosted of p/1: STARTING_HOSTING, for 0:10:00 so far",
        "Waiting for ModelHosted of p/1: ThrottlingException (too much), for 0:10:10 so far",
        "ModelHosted of p/1: HOSTED, after 0:10:10",
    ]


def test_a_state_that_is_there_already_has_no_waiting_time(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert WaiterRun(WaiterSpec("ModelHosted", MODEL, 10, 360), LOG).evaluate(described("HOSTED"))
    assert caplog.messages == ["ModelHosted of p/1: HOSTED"]


def test_an_outage_is_a_warning_and_a_deletion_is_none(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    run = WaiterRun(WaiterSpec("ModelDeleted", MODEL, delay=2, max_attempts=300), LOG)
    run.evaluate(described("DELETING"))
    run.evaluate({"Error": {"Code": "ConnectionFailed", "Message": "Could not connect"}})
    run.evaluate({"Error": {"Code": "502", "Message": ""}, "ResponseMetadata": {"HTTPStatusCode": 502}})
    run.evaluate(described("DELETING"))
    assert run.evaluate({"Error": {"Code": "ResourceNotFoundException", "Message": "There is no model"}})
    levels = ["INFO", "WARNING", "WARNING", "INFO", "INFO"]
    assert [record.levelname for record in caplog.records] == levels
    assert caplog.messages[-1] == "ModelDeleted of p/1: gone, after 0:00:00"


def test_a_wait_that_is_taken_over_is_as_old_as_it_was(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    now = time.time()
    spec = WaiterSpec("ModelTrained", MODEL, delay=30, max_attempts=6000)
    run = WaiterRun(spec, LOG, start_time=now - 7200, end_time=now + 3600)
    run.evaluate(described("TRAINING"))
    assert re.fullmatch(
        r"(?s).*ModelTrained of p/1: TRAINING, for 2:00:\d\d so far; polling every 30 s, for .+ at most",
        caplog.messages[0],
    )
    assert re.search(
        "timed out, after 2:00:.*; polled 1 times, last status TRAINING", str(run.timeout_error())
    )
    run.evaluate(described("TRAINED"))
    assert caplog.messages[-1].startswith("ModelTrained of p/1: TRAINED, after 2:00:")


def test_a_brief_wait_ends_with_the_state_or_its_time_or_an_outage(
    hook: LookoutVisionHook, connect: Any
) -> None:
    created = WaiterSpec("DatasetCreated", DATASET, delay=0.05, max_attempts=3)
    assert WaiterRun(created, LOG).wait_briefly(0, hook)
    trained = WaiterRun(WaiterSpec("ModelTrained", MODEL, delay=0.05, max_attempts=3), LOG)
    assert trained.wait_briefly(1, hook) is None
    assert trained.attempts > 2, "it polls more often than every second if that is the wait's own delay"
    once = {"retries": {"total_max_attempts": 1}}
    nobody = LookoutVisionHook(connect(endpoint_url="http://localhost:9", config_kwargs=once))
    away = WaiterRun(created, LOG)
    assert away.wait_briefly(3600, nobody) is None
    assert away.attempts == 1


# -- what ends it ----------------------------------------------------------------------------------------


def test_it_ends_after_its_attempts_with_the_last_status(hook: LookoutVisionHook) -> None:
    spec = WaiterSpec("DatasetUpdated", DATASET, delay=0.05, max_attempts=3)
    last = r"timed out, after \d:\d\d:\d\d; polled 3 times, last status CREATE_COMPLETE"
    with pytest.raises(WaiterFailed, match=last) as raised:
        spec.run(hook, LOG)
    assert (raised.value.status, raised.value.retryable) == ("timeout", True)


def test_a_resource_that_is_missing_ends_it(hook: LookoutVisionHook) -> None:
    spec = WaiterSpec("DatasetUpdated", {**DATASET, "DatasetType": "test"}, delay=0.05, max_attempts=3)
    with pytest.raises(WaiterFailed, match="ResourceNotFoundException") as raised:
        spec.run(hook, LOG)
    assert (raised.value.status, raised.value.retryable) == ("error", False)


@pytest.mark.parametrize(
    ("status", "message", "retryable"),
    [
        ("TRAINING_FAILED", "Invalid input: line 3 has no source-ref", False),
        ("TRAINING_FAILED", "Service fault: the process was killed", True),
        ("DELETING", "going", True),
    ],
)
def test_the_status_message_decides_about_a_retry(status: str, message: str, retryable: bool) -> None:
    response = {"ModelDescription": {"Status": status, "StatusMessage": message}}
    with pytest.raises(WaiterFailed, match=message) as raised:
        WaiterRun(WaiterSpec("ModelTrained", MODEL, 1, 9), LOG).evaluate(response)
    assert (raised.value.status, raised.value.retryable) == ("error", retryable)


def test_a_wait_whose_time_is_up_polls_once(hook: LookoutVisionHook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiter, "_LAST_REQUEST_SECONDS", 120)
    spec = WaiterSpec("DatasetUpdated", DATASET, delay=0.2, max_attempts=10_000)
    with pytest.raises(WaiterFailed, match="polled 1 times"):
        asyncio.run(spec.run_async(lambda: hook, LOG, "key", end_time=time.time() - 1))


def test_a_killed_task_stops_waiting(hook: LookoutVisionHook, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    killed = threading.Event()
    # As in Airflow 3: a signal handler calls the operator, and the task goes on.
    before = signal.signal(signal.SIGUSR1, lambda *_: killed.set())

    def kill_when_it_waits() -> None:
        while not any("Waiting for" in message for message in caplog.messages):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGUSR1)

    killer = threading.Thread(target=kill_when_it_waits, daemon=True)
    killer.start()
    try:
        ended = r"not waited for any more: the task is killed, after \d:\d\d:\d\d; polled 1 times"
        with pytest.raises(WaiterFailed, match=ended) as raised:
            WaiterSpec("ModelTrained", MODEL, delay=1000, max_attempts=10).run(hook, LOG, killed.is_set)
        assert raised.value.retryable
    finally:
        killer.join()
        signal.signal(signal.SIGUSR1, before)


def test_a_killed_task_that_has_cancelled_its_work_may_retry(hook: LookoutVisionHook) -> None:
    cancelled = WaiterSpec("ModelTrained", {**MODEL, "ModelVersion": "99"}, delay=1000, max_attempts=10)

    def run_briefly(hook: LookoutVisionHook, log: Any, *is_killed: Any) -> None:
        WaiterRun(cancelled, log).wait_briefly(0, hook, *is_killed)

    for wait in (run_briefly, cancelled.run):
        with pytest.raises(WaiterFailed, match="ResourceNotFoundException") as raised:
            wait(hook, LOG)
        assert not raised.value.retryable
        with pytest.raises(WaiterFailed, match=r"the task is killed, after .*; polled 1 times") as raised:
            wait(hook, LOG, lambda: True)
        assert raised.value.retryable


def test_it_outlasts_a_restart_of_the_service(connect: Any) -> None:
    with running_service() as service:
        key = {"login": service.access_key_id, "password": service.secret_access_key}
        once = {"retries": {"total_max_attempts": 1}}
        hook = LookoutVisionHook(connect(**key, endpoint_url=service.endpoint_url, config_kwargs=once))
        hook.conn.create_project(ProjectName="p")
        hook.conn.create_dataset(ProjectName="p", DatasetType="train")
        service.kill()
        lines: list[str] = []

        def log(text: str, *values: Any) -> None:
            lines.append(text % values)
            if len(lines) == 1:  # the service is away, and the wait has seen it
                service.start()

        WaiterSpec("DatasetCreated", DATASET, delay=0.2, max_attempts=3000).run(
            hook, SimpleNamespace(info=log, warning=log)
        )
    assert "Could not connect" in lines[0]
    assert lines[-1].startswith("DatasetCreated of p/train: CREATE_COMPLETE, after ")
