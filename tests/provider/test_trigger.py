"""The trigger: what it stores, what its event says, and what it cancels."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from airflow_and_service import client_of

from airflow_provider_lookoutvision.operators.lookoutvision import LookoutVisionStopModelOperator
from airflow_provider_lookoutvision.testing.service import Service, running_service
from airflow_provider_lookoutvision.triggers import lookoutvision as triggers
from airflow_provider_lookoutvision.triggers.lookoutvision import LookoutVisionWaiterTrigger
from airflow_provider_lookoutvision.waiters import polling, waiter

DATASET = {"ProjectName": "p", "DatasetType": "train"}


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


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triggers, "_FIRST_SECONDS", 0.0)
    monkeypatch.setattr(waiter, "_LAST_REQUEST_SECONDS", 120)


def trigger(conn_id: str, waiter_name: str, args: dict[str, str], **more: Any) -> LookoutVisionWaiterTrigger:
    fields = {"waiter_name": waiter_name, "waiter_args": args, "waiter_delay": 1, "waiter_max_attempts": 60}
    return LookoutVisionWaiterTrigger(**{**fields, **more}, aws_conn_id=conn_id)


async def events_of(trigger: LookoutVisionWaiterTrigger) -> list[Any]:
    return [event.payload async for event in trigger.run()]


def test_a_trigger_that_is_made_again_ends_at_the_same_time(conn_id: str) -> None:
    before = time.time()
    made = trigger(conn_id, "DatasetCreated", DATASET, waiter_delay=5, waiter_max_attempts=720)
    after = time.time()
    path, fields = made.serialize()
    assert before + 3600 <= fields["end_time"] <= after + 3600
    assert before <= fields["start_time"] <= after
    assert LookoutVisionWaiterTrigger(**fields).serialize() == (path, fields)
    # Both are stored in Airflow's database, and outlive an upgrade of this package.
    assert path == "airflow_provider_lookoutvision.triggers.lookoutvision.LookoutVisionWaiterTrigger"
    assert set(fields) == {
        "waiter_name", "waiter_args", "waiter_delay", "waiter_max_attempts", "tolerated_states",
        "return_value", "cancellation", "start_time", "end_time", "aws_conn_id",
        "region_name", "verify", "botocore_config",
    }  # fmt: skip


def test_the_event_returns_what_the_operator_needs(conn_id: str) -> None:
    waits = trigger(conn_id, "DatasetCreated", DATASET, return_value={"part": 2})
    assert asyncio.run(events_of(waits)) == [{"status": "success", "return_value": {"part": 2}}]


@pytest.mark.parametrize("way", ["aiobotocore", "threads"])
@pytest.mark.parametrize(
    ("waiter_name", "waiter_args", "status", "retryable", "message"),
    [
        ("DatasetCreated", {**DATASET, "ProjectName": "no name"}, "error", False, "ValidationException"),
        (
            "ModelPackagingJobSucceeded",
            {"ProjectName": "p", "JobName": "j"},
            "error",
            False,
            "ResourceNotFoundException",
        ),
        ("DatasetCreated", {**DATASET, "ProjectName": "none"}, "error", False, "ResourceNotFoundException"),
        (
            "DatasetUpdated",
            DATASET,
            "timeout",
            True,
            "DatasetUpdated of p/train timed out, after 0:00:0",
        ),
    ],
)
def test_the_event_says_whether_a_retry_may_help(
    way: str,
    conn_id: str,
    waiter_name: str,
    waiter_args: dict[str, str],
    status: str,
    retryable: bool,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if way == "threads":
        monkeypatch.setattr(polling, "has_aiobotocore", lambda: False)
    (event,) = asyncio.run(events_of(trigger(conn_id, waiter_name, waiter_args, end_time=time.time())))
    assert (event["status"], event["retryable"]) == (status, retryable)
    assert message in event["message"]


def test_a_killed_trigger_cancels_what_it_was_given(
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


def test_a_killed_trigger_cancels_though_it_is_cancelled_again(
    service: Service, conn_id: str, model: dict[str, str]
) -> None:
    cancels = trigger(conn_id, "ModelTrained", model, cancellation=("DeleteModel", model))

    async def run() -> None:
        killed = asyncio.create_task(cancels.on_kill())
        await asyncio.sleep(0)
        killed.cancel()
        with pytest.raises(asyncio.CancelledError):
            await killed
        await asyncio.gather(*triggers._cancelling)

    asyncio.run(run())
    client = client_of(service)
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.describe_model(**model)


def test_a_resource_that_is_gone_after_the_wait_fails_the_task(conn_id: str) -> None:
    stops = LookoutVisionStopModelOperator(
        task_id="stop", project_name="p", model_version="1", aws_conn_id=conn_id
    )
    event = {"status": "success", "return_value": {"model_version": "99"}}
    with pytest.raises(AirflowFailException, match="ResourceNotFoundException"):
        stops.execute_complete({}, event)
