"""What docs/comparison.md says of the Amazon provider, where it can be run.

AWS itself can't be had: moto, or botocore's stubs, stand in for it. When a newer Amazon provider does
otherwise, a test fails here, and the document is to be mended.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import boto3
import pytest
from airflow.providers.amazon.aws.operators import bedrock, comprehend, sagemaker
from airflow.providers.amazon.aws.triggers.comprehend import (
    ComprehendPiiEntitiesDetectionJobCompletedTrigger,
)
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowException
from botocore.exceptions import ClientError, ConnectionClosedError, EndpointConnectionError, WaiterError
from botocore.stub import Stubber
from moto.server import ThreadedMotoServer

from airflow_provider_lookoutvision.operators import lookoutvision as operators
from airflow_provider_lookoutvision.testing.lossy_proxy import Exchange, LossyProxy

DOCUMENT = (Path(__file__).parents[1] / "docs" / "comparison.md").read_text()
AMAZON = "airflow.providers.amazon.aws"
NOWHERE = "http://127.0.0.1:9"
ROLE = "arn:aws:iam::123456789012:role/comprehend-role"


def connection(url: str) -> str:
    extra: dict[str, Any] = {"region_name": "us-east-1", "endpoint_url": url}
    extra |= {"config_kwargs": {"retries": {"total_max_attempts": 1}}}
    return json.dumps({"conn_type": "aws", "login": "key", "password": "secret", "extra": extra})


@pytest.fixture(autouse=True)
def nothing_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", connection(NOWHERE))


@pytest.fixture(scope="module")
def moto_url() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def losing_the_first(moto_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[LossyProxy]:
    """AWS, losing its first answer to what creates something."""

    def lost(exchange: Exchange) -> bool:
        return creates(exchange) and not any(map(creates, proxy.exchanges))

    with LossyProxy(moto_url, drop=lost) as proxy:
        monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", connection(proxy.endpoint_url))
        yield proxy


def creates(exchange: Exchange) -> bool:
    target = exchange.headers.get("x-amz-target", "")
    return ".Create" in target or (exchange.method == "POST" and not target)


def try_twice(operator: type, **parameters: Any) -> Any:
    """Run a task that Airflow retries: the second try is another process, and so another object."""
    with pytest.raises(ConnectionClosedError):
        operator(task_id="task", **parameters).execute({})
    return operator(task_id="task", **parameters).execute({})


def test_a_retried_training_of_sagemaker_is_a_second_one(losing_the_first: LossyProxy, moto_url: str) -> None:
    config = {
        "TrainingJobName": "parts",
        "AlgorithmSpecification": {"TrainingImage": "image", "TrainingInputMode": "File"},
        "RoleArn": ROLE,
        "OutputDataConfig": {"S3OutputPath": "s3://models/parts"},
        "ResourceConfig": {"InstanceType": "ml.m4.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
    }
    # Each try has a config of its own: the operator writes the name that it found into it.
    with pytest.raises(ConnectionClosedError):
        train(config).execute({})
    result = train(config).execute({})

    client = boto3.client(
        "sagemaker",
        endpoint_url=moto_url,
        region_name="us-east-1",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
    )
    names = {job["TrainingJobName"] for job in client.list_training_jobs()["TrainingJobSummaries"]}
    assert len(names) == 2
    assert any(re.fullmatch(r"parts-\d{10}", name) for name in names)
    assert result["Training"]["CreationTime"].startswith("datetime.datetime(")


def train(config: dict[str, Any]) -> Any:
    own: dict[str, Any] = json.loads(json.dumps(config))
    return sagemaker.SageMakerTrainingOperator(
        task_id="train", config=own, wait_for_completion=False, print_log=False
    )


def test_each_try_has_another_token_of_botocores(losing_the_first: LossyProxy) -> None:
    try_twice(
        comprehend.ComprehendCreateDocumentClassifierOperator,
        document_classifier_name="parts",
        input_data_config={"S3Uri": "s3://images/parts"},
        mode="MULTI_CLASS",
        data_access_role_arn=ROLE,
        language_code="en",
        wait_for_completion=False,
        do_xcom_push=False,
    )

    tokens = [json.loads(each.body)["ClientRequestToken"] for each in losing_the_first.exchanges]
    assert len(set(tokens)) == 2


def test_bedrock_passes_no_token_either(losing_the_first: LossyProxy) -> None:
    operator = bedrock.BedrockCustomizeModelOperator(
        task_id="train",
        job_name="parts",
        custom_model_name="parts",
        role_arn=ROLE,
        base_model_id="a-model",
        training_data_uri="s3://images/parts",
        output_data_uri="s3://models/parts",
        hyperparameters={"epochs": "1"},
        wait_for_completion=False,
    )
    with pytest.raises(ConnectionClosedError):
        operator.execute({})
    with suppress(ClientError):  # moto looks for the bucket
        operator.execute({})

    tokens = [json.loads(each.body)["clientRequestToken"] for each in losing_the_first.exchanges]
    assert len(set(tokens)) == 2


def detect_pii(**parameters: Any) -> Any:
    return comprehend.ComprehendStartPiiEntitiesDetectionJobOperator(
        task_id="detect",
        input_data_config={"S3Uri": "s3://texts/in"},
        output_data_config={"S3Uri": "s3://texts/out"},
        mode="ONLY_OFFSETS",
        data_access_role_arn=ROLE,
        language_code="en",
        do_xcom_push=False,
        waiter_delay=0,
        **parameters,
    )


def test_a_failure_has_another_error_in_a_worker_than_deferred() -> None:
    operator = detect_pii()
    failed = {"JobStatus": "FAILED", "Message": "the reason"}
    with Stubber(operator.hook.conn) as stub:
        stub.add_response("start_pii_entities_detection_job", {"JobId": "1"})
        stub.add_response(
            "describe_pii_entities_detection_job", {"PiiEntitiesDetectionJobProperties": failed}
        )
        with pytest.raises(WaiterError) as in_a_worker:
            operator.execute({})
    with pytest.raises(AirflowException):
        operator.execute_complete({}, {"status": "error", "message": "the reason", "job_id": "1"})

    assert "the reason" not in str(in_a_worker.value)
    assert not isinstance(in_a_worker.value, AirflowException)


def test_being_throttled_ends_a_wait_in_a_worker() -> None:
    operator = detect_pii(waiter_max_attempts=9)
    with Stubber(operator.hook.conn) as stub:
        stub.add_response("start_pii_entities_detection_job", {"JobId": "1"})
        stub.add_client_error("describe_pii_entities_detection_job", "TooManyRequestsException")
        with pytest.raises(WaiterError, match="TooManyRequests"):
            operator.execute({})


def test_a_service_that_is_away_fails_the_trigger() -> None:
    trigger = ComprehendPiiEntitiesDetectionJobCompletedTrigger(
        job_id="1", waiter_delay=0, waiter_max_attempts=9
    )

    async def run() -> None:
        async for _ in trigger.run():
            pass

    with pytest.raises(EndpointConnectionError):
        asyncio.run(run())


def test_a_trigger_needs_aiobotocore() -> None:
    script = (
        "import asyncio, sys; sys.modules['aiobotocore'] = None\n"
        "from airflow.providers.amazon.aws.triggers.comprehend import"
        " ComprehendPiiEntitiesDetectionJobCompletedTrigger as Trigger\n"
        "asyncio.run(anext(Trigger(job_id='1').run()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1
    assert "ModuleNotFoundError: No module named 'aiobotocore" in done.stderr


def test_theirs_can_be_mapped_too() -> None:
    with DAG("mapped") as dag:
        sagemaker.SageMakerTrainingOperator.partial(task_id="sagemaker").expand(config=[{}, {}])
        comprehend.ComprehendCreateDocumentClassifierOperator.partial(
            task_id="comprehend",
            input_data_config={},
            mode="MULTI_CLASS",
            data_access_role_arn=ROLE,
            language_code="en",
        ).expand(document_classifier_name=["a", "b"])
        bedrock.BedrockBatchInferenceOperator.partial(
            task_id="bedrock", role_arn=ROLE, model_id="m", input_uri="s3://in", output_uri="s3://out"
        ).expand(job_name=["a", "b"])
    assert all(dag.get_task(name).is_mapped for name in ("sagemaker", "comprehend", "bedrock"))


@pytest.mark.parametrize(
    ("operator", "text", "delay", "attempts"),
    [
        (sagemaker.SageMakerTrainingOperator, "30 min (60 times 30 s) when deferred", 30, 60),
        (bedrock.BedrockCustomizeModelOperator, "2.5 h", 120, 75),
        (bedrock.BedrockBatchInferenceOperator, "20 min", 60, 20),
        (comprehend.ComprehendCreateDocumentClassifierOperator, "1 h", 60, 60),
        (comprehend.ComprehendStartPiiEntitiesDetectionJobOperator, "20 min", 60, 20),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_how_long_theirs_wait(operator: type, text: str, delay: int, attempts: int) -> None:
    parameters = inspect.signature(operator).parameters
    if operator is sagemaker.SageMakerTrainingOperator:
        task = sagemaker.SageMakerTrainingOperator(task_id="train", config={})
        assert (task.check_interval, task.max_attempts, task.max_ingestion_time) == (delay, attempts, None)
    else:
        assert parameters["waiter_delay"].default == delay
        assert parameters["waiter_max_attempts"].default == attempts
    assert re.search(rf"`{operator.__name__}`:? [^`|]*{re.escape(text)}", DOCUMENT)


def test_what_is_named_is_there() -> None:
    modules = [
        importlib.import_module(f"{AMAZON}.{kind}.{service}")
        for kind in ("operators", "sensors", "hooks", "triggers")
        for service in ("sagemaker", "bedrock", "comprehend")
    ]
    modules += [
        importlib.import_module(f"{AMAZON}.links.{service}") for service in ("sagemaker", "comprehend")
    ]
    named = set(re.findall(r"`((?:SageMaker|Bedrock|Comprehend|LookoutVision)\w+)(?:[.(][^`]*)?`", DOCUMENT))
    known = {name for module in [operators, *modules] for name in vars(module)}

    assert len(named) > 10
    assert named <= known


def test_which_operators_have_lineage_and_on_kill() -> None:
    theirs = [
        each
        for module in (sagemaker, bedrock, comprehend)
        for name, each in vars(module).items()
        if name.endswith("Operator") and each.__module__ == module.__name__
    ]

    def have(method: str) -> set[str]:
        return {each.__name__ for each in theirs if method in vars(each)}

    assert len(theirs) > 30
    assert have("on_kill") == set()
    assert have("get_openlineage_facets_on_complete") == {
        "SageMakerProcessingOperator",
        "SageMakerTransformOperator",
        "SageMakerTrainingOperator",
    }
