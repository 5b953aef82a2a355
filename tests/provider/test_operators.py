"""The operators without a DAG run: what a DAG file may say, and answers that no DAG run brings about."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_provider_lookoutvision.idempotency import client_token
from airflow_provider_lookoutvision.model import register_service_model
from airflow_provider_lookoutvision.operators import lookoutvision
from airflow_provider_lookoutvision.operators.base import (
    LookoutVisionBaseOperator,
    to_json,
)
from airflow_provider_lookoutvision.operators.lookoutvision import (
    LookoutVisionBuildManifestOperator,
    LookoutVisionCreateProjectOperator,
    LookoutVisionDeleteProjectOperator,
)
from airflow_provider_lookoutvision.sensors import lookoutvision as sensors
from airflow_provider_lookoutvision.testing.lossy_proxy import Exchange, LossyProxy
from airflow_provider_lookoutvision.testing.service import Service, running_service

OPERATORS = [
    each
    for each in vars(lookoutvision).values()
    if isinstance(each, type)
    and issubclass(each, LookoutVisionBaseOperator)
    and each is not LookoutVisionBaseOperator
]
OF_PROJECTS = [each for each in OPERATORS if each is not LookoutVisionBuildManifestOperator]

SENSORS = [
    each
    for each in vars(sensors).values()
    if isinstance(each, type)
    and issubclass(each, sensors.LookoutVisionBaseSensor)
    and each is not sensors.LookoutVisionBaseSensor
]
# What is no template: how to wait, and how much at once, is the DAG author's to say, once for all runs.
STATIC = {
    "cancel_on_kill",
    "create_bucket",
    "defer_after",
    "deferrable",
    "fail_if_empty",
    "max_anomalous_s3_uris",
    "masks",
    "max_uncertain",
    "max_workers",
    "overwrite",
    "skip_missing",
    "start",
    "stop_if_hosted",
    "store_heatmaps",
    "wait_for_completion",
    "waiter_delay",
    "waiter_max_attempts",
}

# What an operator needs besides a project's name.
REQUIRED: dict[str, dict[str, Any]] = {
    "LookoutVisionBuildManifestOperator": {
        "images_s3_prefix": "s3://images/",
        "manifests_s3_prefix": "s3://images/",
    },
    "LookoutVisionCreateDatasetOperator": {"dataset_type": "train"},
    "LookoutVisionImportDatasetsOperator": {"source": "s3://images/", "images_s3_prefix": "s3://images/"},
    "LookoutVisionUpdateDatasetEntriesOperator": {
        "dataset_type": "train",
        "changes": '{"source-ref": "s3://images/1.png"}',
    },
    "LookoutVisionDeleteDatasetOperator": {"dataset_type": "train"},
    "LookoutVisionCreateModelOperator": {"output_s3_prefix": "s3://models/"},
    "LookoutVisionPromoteModelOperator": {"model_version": "1"},
    "LookoutVisionStartModelOperator": {"model_version": "1"},
    "LookoutVisionStopModelOperator": {"model_version": "1"},
    "LookoutVisionDeleteModelOperator": {"model_version": "1"},
    "LookoutVisionStartModelPackagingJobOperator": {"model_version": "1", "configuration": {}},
    "LookoutVisionDetectAnomaliesOperator": {"model_version": "1", "image_s3_uri": "s3://images/1.png"},
    "LookoutVisionSetThresholdOperator": {"model_version": "1", "threshold": 0.5},
    "LookoutVisionDatasetSensor": {"dataset_type": "train"},
    "LookoutVisionModelPackagingJobSensor": {"job_name": "j"},
}


def made(operator: Any, **parameters: Any) -> Any:
    return operator(task_id="task", **REQUIRED.get(operator.__name__, {}), **parameters)


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running_service() as service:
        yield service


@pytest.fixture
def conn_id(service: Service, connect: Any) -> str:
    return str(
        connect(
            login=service.access_key_id,
            password=service.secret_access_key,
            endpoint_url=service.endpoint_url,
        )
    )


@pytest.fixture
def client(service: Service) -> Any:
    session = boto3.Session(service.access_key_id, service.secret_access_key, region_name="eu-central-1")
    return register_service_model(session).client("lookoutvision", endpoint_url=service.endpoint_url)


def context(run_id: str, *, max_tries: int = 1, retries: int = 1, try_number: int = 1) -> Any:
    task = SimpleNamespace(retries=retries)
    ti = SimpleNamespace(dag_id="dag", run_id=run_id, task_id="create", map_index=-1, task=task)
    return {"ti": SimpleNamespace(**vars(ti), max_tries=max_tries, try_number=try_number)}


def create(conn_id: str, project_name: str, **parameters: Any) -> LookoutVisionCreateProjectOperator:
    return LookoutVisionCreateProjectOperator(
        task_id="create", aws_conn_id=conn_id, project_name=project_name, **parameters
    )


# -- in a DAG file ---------------------------------------------------------------------------------------


def test_parsing_a_dag_imports_no_boto3() -> None:
    program = (
        "import sys, airflow_provider_lookoutvision.operators.lookoutvision as operators\n"
        "operators.LookoutVisionCreateProjectOperator(task_id='create', project_name='p')\n"
        "heavy = {'boto3', 'botocore', 'airflow.providers.amazon.aws.hooks.base_aws'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def parameters(operator: type) -> set[str]:
    """What this package's classes add to Airflow's own parameters."""
    ours = (each for each in operator.__mro__ if each.__module__.startswith("airflow_provider_lookoutvision"))
    return {
        parameter.name
        for each in ours
        if "__init__" in vars(each)
        for parameter in inspect.signature(each.__init__).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    }


@pytest.mark.parametrize("operator", [*OPERATORS, *SENSORS], ids=lambda operator: operator.__name__)
def test_every_parameter_is_a_template_but_for_switches_and_limits(operator: Any) -> None:
    assert set(operator.template_fields) == parameters(operator) - STATIC
    task = made(
        operator, **({"project_name": "p"} if operator not in OPERATORS or operator in OF_PROJECTS else {})
    )
    assert all(hasattr(task, field) for field in operator.template_fields)


# What a DAG that doesn't render templates to native objects makes of them, and what nobody can make of it.
@pytest.mark.parametrize(
    ("name", "rendered"),
    [
        ("CreateDatasetOperator", {"manifest_s3_uri": "{'s3': 'b'}"}),
        ("CreateModelOperator", {"min_f1": "good"}),
        ("CreateModelOperator", {"tags": "{'line': '7'}"}),
        ("StartModelOperator", {"min_inference_units": "two"}),
        ("StartModelOperator", {"model_version": "1", "max_inference_units": "None"}),
        ("DetectAnomaliesOperator", {"on_invalid_image": "None"}),
        ("DeleteProjectOperator", {"cascade": "perhaps"}),
        ("BuildManifestOperator", {"test_size": "half"}),
        ("BuildManifestOperator", {"seed": "None"}),
        ("BuildManifestOperator", {"mask_colors": "{'scratch': '#FF0000'}"}),
        ("ImportDatasetsOperator", {"seed": "None"}),
        ("ImportDatasetsOperator", {"test_size": "half"}),
        ("ImportDatasetsOperator", {"reference_map": "{'s3://a/': 's3://b/'}"}),
        ("ImportDatasetsOperator", {"if_exists": "None"}),
        ("StartModelPackagingJobOperator", {"configuration": "{'Greengrass': {}}"}),
        ("ModelSensor", {"state": "None"}),
    ],
)
def test_a_text_that_is_no_value_is_refused_at_once(
    name: str, rendered: dict[str, str], connect: Any
) -> None:
    (operator,) = (each for each in (*OPERATORS, *SENSORS) if each.__name__ == f"LookoutVision{name}")
    named = {} if name.startswith("BuildManifest") else {"project_name": "p"}
    task = made(
        operator, aws_conn_id=connect(endpoint_url="http://localhost:9"), **named
    )  # nobody listens there
    for parameter, value in rendered.items():
        setattr(task, parameter, value)
    with pytest.raises(AirflowFailException, match=f"(?i){list(rendered)[-1].replace('_', '_?')}|units"):
        task.execute(context("rendered"))


@pytest.mark.parametrize("operator", [*OPERATORS, *SENSORS], ids=lambda operator: operator.__name__)
def test_parameters_are_given_by_name(operator: Any) -> None:
    with pytest.raises((TypeError, AirflowException), match=r"keyword|positional"):
        operator("p", task_id="task")


def test_a_wrong_if_exists_is_found_when_the_dag_is_parsed() -> None:
    with pytest.raises(AirflowFailException, match=r"'take'.*one of fail, skip"):
        create("c", "p", if_exists="take")
    create("c", "p", if_exists="skip")
    create("c", "p", if_exists="use")
    create("c", "p", if_exists="{{ params.if_exists }}")


def test_a_wrong_if_exists_is_found_after_rendering_too(conn_id: str, client: Any) -> None:
    task = create(conn_id, "rendered", if_exists="{{ params.if_exists }}")
    task.if_exists = "take"  # type: ignore[assignment]  # as rendering does
    with pytest.raises(AirflowFailException, match=r"'take'.*one of fail, skip"):
        task.execute(context("rendered"))
    assert "rendered" not in names(client)


# -- with a token of one's own ---------------------------------------------------------------------------


def names(client: Any) -> list[str]:
    return [project["ProjectName"] for project in client.list_projects(MaxResults=100)["Projects"]]


def test_an_explicit_token_is_used_as_it_is(conn_id: str, client: Any) -> None:
    made = client.create_project(ProjectName="mine", ClientToken="by-hand")["ProjectMetadata"]
    found = create(conn_id, "mine", client_token="by-hand").execute(context("explicit"))
    assert found == to_json(made)


def test_the_log_of_a_task_has_the_requests_of_its_calls(
    service: Service, conn_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    operator = create(conn_id, "logged")
    again = create(conn_id, "logged", client_token="another")
    for each in (operator, again):
        monkeypatch.setattr(each.log, "info", lambda text, *values, **_: said.append(text % values))
    operator.execute(context("logged"))
    with pytest.raises(AirflowFailException):
        again.execute(context("logged-again"))
    requests = [line.rpartition(" ")[2] for line in said if "was request" in line]
    log = service.log_file.read_text()
    assert len(set(requests)) >= 2
    assert all(request in log for request in requests)


def test_an_explicit_token_that_made_another_project_is_refused(conn_id: str, client: Any) -> None:
    client.create_project(ProjectName="old", ClientToken="spent")
    with pytest.raises(AirflowFailException, match=r"'spent' created project 'old'.*'new'"):
        create(conn_id, "new", client_token="spent").execute(context("spent"))
    assert "new" not in names(client)


def test_with_an_explicit_token_nothing_else_is_proof(conn_id: str, client: Any) -> None:
    create(conn_id, "derived").execute(context("derived"))
    with pytest.raises(AirflowFailException, match="did not create it"):
        create(conn_id, "derived", client_token="another").execute(context("derived", try_number=2))


def test_an_invalid_token_is_refused_before_any_call(service: Service, conn_id: str, connect: Any) -> None:
    with LossyProxy(service.endpoint_url, lambda _: False) as proxy:
        connect(endpoint_url=proxy.endpoint_url)
        for token in ("", "two words", "t" * 65):
            with pytest.raises(AirflowFailException, match=r"ClientToken .* 1 to 64 characters"):
                create(conn_id, "p", client_token=token).execute(context("invalid"))
        assert not proxy.exchanges


@pytest.mark.parametrize("name", ["", "-a", "_a", "a b", "a/b", "größe", "a\n", "a" * 256])
@pytest.mark.parametrize("operator", OF_PROJECTS, ids=lambda operator: operator.__name__)
def test_an_invalid_name_is_refused_before_any_call(operator: Any, name: str, connect: Any) -> None:
    conn_id = connect(endpoint_url="http://localhost:9")  # nobody listens there
    task = made(operator, aws_conn_id=conn_id, project_name=name)
    with pytest.raises(AirflowFailException, match="1 to 255 characters that match"):
        task.execute(context("invalid"))


# -- other people's timing -------------------------------------------------------------------------------


def test_edited_retries_hide_no_project(conn_id: str) -> None:
    made = create(conn_id, "edited").execute(context("edited"))
    for retries in (5, 0):
        edited = context("edited", retries=retries, try_number=2)
        assert client_token(edited) != client_token(context("edited"))
        assert create(conn_id, "edited").execute(edited) == made


def test_a_name_that_becomes_free_is_taken(service: Service, conn_id: str, client: Any, connect: Any) -> None:
    client.create_project(ProjectName="leaving")

    def delete_after_the_refusal(exchange: Exchange) -> bool:
        if exchange.status == 409:
            client.delete_project(ProjectName="leaving")
        return False

    with LossyProxy(service.endpoint_url, delete_after_the_refusal) as proxy:
        connect(
            login=service.access_key_id,
            password=service.secret_access_key,
            endpoint_url=proxy.endpoint_url,
        )
        made = create(conn_id, "leaving").execute(context("leaving"))
        tokens = {exchange.client_token for exchange in proxy.exchanges if exchange.method == "POST"}
    assert tokens == {client_token(context("leaving"))}
    assert made["ProjectName"] == "leaving"
    assert "leaving" in names(client)


def test_deletes_with_an_explicit_token(conn_id: str, client: Any) -> None:
    client.create_project(ProjectName="unwanted")
    task = LookoutVisionDeleteProjectOperator(
        task_id="delete", aws_conn_id=conn_id, project_name="unwanted", client_token="by-hand"
    )
    task.execute(context("delete"))
    assert "unwanted" not in names(client)
    client.create_project(ProjectName="unwanted")
    with pytest.raises(AirflowFailException, match="ConflictException"):  # the token has deleted another
        task.execute(context("delete"))
    assert "unwanted" in names(client)
