"""The sensors against the running service: what they wait for, what ends them, and what they return."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    TaskDeferred,
)

from airflow_provider_lookoutvision.model import register_service_model
from airflow_provider_lookoutvision.sensors.lookoutvision import (
    LookoutVisionDatasetSensor,
    LookoutVisionModelPackagingJobSensor,
    LookoutVisionModelSensor,
)
from airflow_provider_lookoutvision.testing.service import Service, running_service
from airflow_provider_lookoutvision.waiters import waiter


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """A service without a worker, where ``p`` has an empty training dataset, a model in training, and a test
    dataset that is never imported."""
    with running_service(flags=["--no-worker"]) as service:
        session = boto3.Session(service.access_key_id, service.secret_access_key, region_name="eu-central-1")
        client = register_service_model(session).client("lookoutvision", endpoint_url=service.endpoint_url)
        client.create_project(ProjectName="p")
        client.create_dataset(ProjectName="p", DatasetType="train")
        client.create_model(ProjectName="p", OutputConfig={"S3Location": {"Bucket": "some-bucket"}})
        source = {"GroundTruthManifest": {"S3Object": {"Bucket": "some-bucket", "Key": "x"}}}
        client.create_dataset(ProjectName="p", DatasetType="test", DatasetSource=source)
        yield service


@pytest.fixture
def conn_id(service: Service, connect: Any) -> str:
    key = {"login": service.access_key_id, "password": service.secret_access_key}
    return str(connect(**key, endpoint_url=service.endpoint_url))


def dataset_sensor(conn_id: str, kind: str, **more: Any) -> LookoutVisionDatasetSensor:
    arguments = {"task_id": "wait", "aws_conn_id": conn_id, "project_name": "p", "dataset_type": kind}
    return LookoutVisionDatasetSensor(**arguments, **more)


def model_sensor(conn_id: str, **more: Any) -> LookoutVisionModelSensor:
    return LookoutVisionModelSensor(
        **{"task_id": "wait", "aws_conn_id": conn_id, "project_name": "p", **more}
    )


def test_returns_the_description_of_what_is_there(conn_id: str) -> None:
    found = dataset_sensor(conn_id, "train").execute({})
    assert found["Status"] == "CREATE_COMPLETE"
    assert found["CreationTimestamp"].endswith("+00:00")
    assert dataset_sensor(conn_id, "train", deferrable=True).execute({}) == found


def test_goes_on_waiting_for_what_may_still_come(conn_id: str) -> None:
    assert not dataset_sensor(conn_id, "test").poke({})
    assert not model_sensor(conn_id).poke({})
    before = time.time()
    with pytest.raises(TaskDeferred) as deferred:
        model_sensor(conn_id, deferrable=True, defer_after=0, poke_interval=7, timeout=70).execute({})
    passed = time.time() - before
    _, fields = deferred.value.trigger.serialize()
    assert fields["waiter_name"] == "ModelTrained"
    assert fields["waiter_args"] == {"ProjectName": "p", "ModelVersion": "latest"}
    assert (fields["waiter_delay"], fields["waiter_max_attempts"]) == (7, 10)
    # The trigger ends in time. Airflow's own timeout is for a trigger that no triggerer runs.
    assert 70 + 5 * 60 - passed <= deferred.value.timeout.total_seconds() <= 70 + 5 * 60


def test_its_time_does_not_begin_anew(conn_id: str) -> None:
    """The state that the trigger has seen is over: the latest model is another one by then."""
    before = time.time()
    end_time = before + 3600
    with pytest.raises(TaskDeferred) as deferred:
        model_sensor(conn_id, deferrable=True, defer_after=0, timeout=7200).execute_complete(
            {}, {"status": "success", "return_value": {"end_time": end_time}}
        )
    after = time.time()
    fields = deferred.value.trigger.serialize()[1]
    assert (fields["start_time"], fields["end_time"]) == (end_time - 7200, end_time)
    assert fields["return_value"] == {"end_time": end_time}
    left = deferred.value.timeout.total_seconds() - 5 * 60
    assert end_time - after <= left <= end_time - before


def test_what_is_in_training_may_still_be_hosted(conn_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiter, "_LAST_REQUEST_SECONDS", 120)
    assert not model_sensor(conn_id, state="hosted").poke({})
    with pytest.raises(TaskDeferred) as deferred:
        model_sensor(conn_id, state="hosted", deferrable=True, defer_after=0, timeout=0).execute({})

    async def events() -> list[Any]:
        return [event.payload async for event in deferred.value.trigger.run()]

    (event,) = asyncio.run(events())
    assert event["status"] == "timeout"
    assert "last status TRAINING" in event["message"]


@pytest.mark.parametrize(
    ("sensor", "match"),
    [
        (lambda conn_id: model_sensor(conn_id, state="stopped"), "TRAINING"),
        (lambda conn_id: model_sensor(conn_id, state="STOPPED"), "TRAINING"),
    ],
)
def test_fails_when_it_can_not_come(conn_id: str, sensor: Any, match: str) -> None:
    with pytest.raises(AirflowException, match=match) as raised:
        sensor(conn_id).poke({})
    assert not isinstance(raised.value, AirflowFailException)


@pytest.mark.parametrize(
    ("sensor", "match"),
    [
        (lambda conn_id: model_sensor(conn_id, project_name=""), "breaks the API's rule"),
        (
            lambda conn_id: model_sensor(conn_id, project_name="no name"),
            "ProjectName 'no name' breaks the API's rule",
        ),
        (lambda conn_id: model_sensor(conn_id, model_version="newest"), "ModelVersion 'newest' breaks"),
        (lambda conn_id: model_sensor(conn_id, model_version=9), "ResourceNotFoundException"),
        (lambda conn_id: dataset_sensor(conn_id, "validation"), "must be one of train, test"),
        (
            lambda conn_id: LookoutVisionModelPackagingJobSensor(
                task_id="wait", aws_conn_id=conn_id, project_name="p", job_name="no name"
            ),
            "JobName 'no name' breaks",
        ),
    ],
)
def test_fails_without_retries_when_a_retry_would_not_help(conn_id: str, sensor: Any, match: str) -> None:
    with pytest.raises(AirflowFailException, match=match):
        sensor(conn_id).poke({})


@pytest.mark.parametrize("deferrable", [False, True])
def test_skips_what_it_would_fail_if_that_is_wanted(conn_id: str, deferrable: bool) -> None:
    sensor = dataset_sensor(conn_id, "no type", deferrable=deferrable, soft_fail=True)
    with pytest.raises(AirflowSkipException):
        sensor.execute({})


def test_logs_each_state_once(conn_id: str, capsys: pytest.CaptureFixture[str]) -> None:
    sensor = model_sensor(conn_id, poke_interval=30, timeout=600)
    for _ in range(3):
        sensor.poke({})
    output = capsys.readouterr().out
    waiting = (
        r"Waiting for ModelTrained of p/latest: TRAINING \(.+\); polling every 30 s, for 0:10:00 at most"
    )
    assert len(re.findall(waiting, output)) == 1


def test_an_unknown_state_is_named(conn_id: str) -> None:
    with pytest.raises(AirflowFailException, match="state is 'happy'; it must be one of trained, hosted"):
        model_sensor(conn_id, state="happy").poke({})


def test_the_event_decides_about_a_retry(conn_id: str) -> None:
    sensor = dataset_sensor(conn_id, "train")
    success = {"status": "success", "return_value": {"end_time": time.time()}}
    assert sensor.execute_complete({}, success)["Status"] == "CREATE_COMPLETE"
    with pytest.raises(AirflowFailException, match="the manifest"):
        sensor.execute_complete({}, {"status": "error", "message": "the manifest", "retryable": False})
    with pytest.raises(AirflowException, match="the machine") as raised:
        sensor.execute_complete({}, {"status": "error", "message": "the machine", "retryable": True})
    assert not isinstance(raised.value, AirflowFailException)
    event = {"status": "timeout", "message": "last status TRAINING", "retryable": True}
    with pytest.raises(AirflowSensorTimeout, match="last status TRAINING"):
        sensor.execute_complete({}, event)
