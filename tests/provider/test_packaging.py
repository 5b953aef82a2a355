"""The operator of packaging jobs: its request, as long as the service has no packaging jobs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException
from botocore.stub import ANY, Stubber

from airflow_provider_lookoutvision.operators.lookoutvision import LookoutVisionStartModelPackagingJobOperator
from airflow_provider_lookoutvision.testing.service import running_service

GREENGRASS = {"Greengrass": {"S3OutputLocation": {"Bucket": "out"}, "ComponentName": "c"}}


def context() -> Any:
    task = SimpleNamespace(retries=0)
    ti = SimpleNamespace(
        dag_id="d", run_id="r", task_id="t", map_index=-1, max_tries=0, try_number=1, task=task
    )
    return {"ti": ti}


def operator(conn_id: str, **more: Any) -> LookoutVisionStartModelPackagingJobOperator:
    return LookoutVisionStartModelPackagingJobOperator(
        task_id="package",
        aws_conn_id=conn_id,
        project_name="p",
        model_version="1",
        configuration=GREENGRASS,
        waiter_delay=0,
        **more,
    )


def test_a_service_without_packaging_jobs_is_not_asked_again(connect: Any) -> None:
    with running_service(flags=["--no-worker"]) as service:
        conn_id = connect(
            login=service.access_key_id,
            password=service.secret_access_key,
            endpoint_url=service.endpoint_url,
        )
        with pytest.raises(AirflowFailException, match="NotImplementedException"):
            operator(conn_id).execute(context())


def described(status: str) -> dict[str, Any]:
    return {"ModelPackagingDescription": {"JobName": "j", "Status": status, "StatusMessage": "so it is"}}


@pytest.mark.parametrize("outcome", ["SUCCEEDED", "FAILED"])
def test_starts_once_and_waits(connect: Any, outcome: str) -> None:
    # No service has packaging jobs yet: the answers are botocore's stubs, checked by the model.
    job = {"ProjectName": "p", "JobName": "j"}
    package = operator(connect(endpoint_url="http://127.0.0.1:9"), job_name="j", description="why")
    with Stubber(package.hook.conn) as service:
        wanted = {
            "ProjectName": "p",
            "ModelVersion": "1",
            "Configuration": GREENGRASS,
            "JobName": "j",
            "Description": "why",
            "ClientToken": ANY,
        }
        service.add_response("start_model_packaging_job", {"JobName": "j"}, wanted)
        for status in ("CREATED", "RUNNING", outcome):
            service.add_response("describe_model_packaging_job", described(status), job)
        if outcome == "FAILED":
            with pytest.raises(AirflowException, match="FAILED: so it is"):
                package.execute(context())
        else:
            service.add_response("describe_model_packaging_job", described(outcome), job)
            assert package.execute(context()) == described(outcome)["ModelPackagingDescription"]
        service.assert_no_pending_responses()
