"""The operator and the sensor of packaging jobs, against a service that packages a model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, TaskDeferred
from trained_models import Account

from airflow_provider_lookoutvision.operators.lookoutvision import LookoutVisionStartModelPackagingJobOperator
from airflow_provider_lookoutvision.sensors.lookoutvision import LookoutVisionModelPackagingJobSensor
from airflow_provider_lookoutvision.testing.service import running_service

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def plates() -> Iterator[Account]:
    with running_service() as service:
        yield Account.with_a_model(service)


@pytest.fixture
def conn_id(plates: Account, connect: Any) -> str:
    return str(
        connect(
            login=plates.key.access_key_id,
            password=plates.key.secret_access_key,
            endpoint_url=plates.service.endpoint_url,
            region_name="eu-central-1",
        )
    )


def context(task_id: str, max_tries: int = 0) -> Any:
    task = SimpleNamespace(retries=0)
    ti = SimpleNamespace(
        dag_id="d", run_id="r", task_id=task_id, map_index=-1, max_tries=max_tries, try_number=1, task=task
    )
    return {"ti": ti}


def operator(
    conn_id: str, component: str, prefix: str = "edge/", **more: Any
) -> LookoutVisionStartModelPackagingJobOperator:
    output = {"Bucket": "components", "Prefix": prefix}
    return LookoutVisionStartModelPackagingJobOperator(
        task_id="package",
        aws_conn_id=conn_id,
        project_name="plates",
        model_version="latest",
        configuration={"Greengrass": {"S3OutputLocation": output, "ComponentName": component}},
        **{"waiter_delay": 0.2, "waiter_max_attempts": 1500, **more},
    )


def test_packages_once_and_describes_it(plates: Account, conn_id: str) -> None:
    first = operator(conn_id, "once", job_name="j", description="why").execute(context("once"))
    assert (first["JobName"], first["Status"], first["ModelVersion"]) == ("j", "SUCCEEDED", "1")
    made = first["ModelPackagingOutputDetails"]["Greengrass"]
    assert (made["ComponentName"], made["ComponentVersion"]) == ("once", "1.0.0")
    folder = plates.service.data_dir / "buckets" / "components" / "edge"
    assert (folder / "once-1.0.0.zip").stat().st_size > 1 << 20
    assert json.loads((folder / "recipe.json").read_text())["ComponentName"] == "once"
    # A retry finds what the first try made.
    assert operator(conn_id, "once", job_name="j", description="why").execute(context("once")) == first
    # Another task wants another job, and the component is there already.
    with pytest.raises(AirflowFailException, match=r"already has a version 1\.0\.0"):
        operator(conn_id, "once").execute(context("another"))


def test_waits_deferred_and_without_waiting_by_the_sensor(conn_id: str) -> None:
    with pytest.raises(TaskDeferred) as raised:
        operator(conn_id, "deferred", deferrable=True, defer_after=0).execute(context("deferred"))
    deferred = raised.value
    assert deferred.method_name
    begun = operator(conn_id, "sensed", wait_for_completion=False).execute(context("sensed"))
    assert set(begun) == {"ProjectName", "JobName"}
    sensor = LookoutVisionModelPackagingJobSensor(
        task_id="wait",
        aws_conn_id=conn_id,
        project_name="plates",
        job_name=begun["JobName"],
        poke_interval=0.2,
        timeout=300,
    )
    found = sensor.execute(context("wait"))
    assert (found["JobName"], found["Status"]) == (begun["JobName"], "SUCCEEDED")


def test_a_job_that_fails_says_why_and_the_next_try_begins_it_anew(plates: Account, conn_id: str) -> None:
    bucket = plates.service.data_dir / "buckets" / "components"
    bucket.mkdir(exist_ok=True)
    (bucket / "taken").write_text("a file where the folder would be")
    with pytest.raises(AirflowException, match="FAILED: Invalid input: s3://components/taken/"):
        operator(conn_id, "late", "taken/").execute(context("late"))
    (bucket / "taken").unlink()
    again = operator(conn_id, "late", "taken/").execute(context("late"))
    assert again["Status"] == "SUCCEEDED"
    assert (bucket / "taken" / "late-1.0.0.zip").exists()


def test_what_is_at_fault_fails_at_once(conn_id: str) -> None:
    with pytest.raises(AirflowFailException, match="ComponentName 'no name' breaks the API's rule"):
        operator(conn_id, "no name").execute(context("invalid"))
