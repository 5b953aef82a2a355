"""Promotions without a DAG run: better, worse, interrupted at each request, repeated after a later one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, AirflowSkipException
from botocore.exceptions import ConnectionClosedError
from task_context import connected, context, first_answer_of_each_change
from trained_models import QUICK_F1, Account

from airflow_provider_lookoutvision.operators.lookoutvision import (
    LookoutVisionPromoteModelOperator,
    LookoutVisionStartModelOperator,
    LookoutVisionStopModelOperator,
)
from airflow_provider_lookoutvision.sensors.lookoutvision import LookoutVisionModelSensor
from airflow_provider_lookoutvision.testing.lossy_proxy import LossyProxy
from airflow_provider_lookoutvision.testing.service import running_service

pytestmark = pytest.mark.timeout(3600)


@pytest.fixture(scope="module")
def account() -> Iterator[Account]:
    """An account whose project "plates" has two models with the same metrics."""
    with running_service() as service:
        account = Account.with_a_model(service)
        assert account.train() == "2"
        yield account


@pytest.fixture(autouse=True)
def _untagged(account: Account) -> None:
    for version in account.statuses():
        tags = account.client.list_tags_for_resource(ResourceArn=arn(account, version))["Tags"]
        account.client.untag_resource(
            ResourceArn=arn(account, version), TagKeys=[tag["Key"] for tag in tags] or ["none"]
        )


@pytest.fixture
def conn_id(account: Account, connect: Any) -> str:
    return connected(connect, account)


def arn(account: Account, version: str) -> str:
    model = account.client.describe_model(ProjectName="plates", ModelVersion=version)
    return str(model["ModelDescription"]["ModelArn"])


def stages(account: Account) -> dict[str, str | None]:
    tags = {
        version: account.client.list_tags_for_resource(ResourceArn=arn(account, version))["Tags"]
        for version in account.statuses()
    }
    return {
        version: next((tag["Value"] for tag in each if tag["Key"] == "stage"), None)
        for version, each in tags.items()
    }


def promoting(conn_id: str, version: str, **parameters: Any) -> LookoutVisionPromoteModelOperator:
    given = {"project_name": "plates", "model_version": version, "start": False, **parameters}
    return LookoutVisionPromoteModelOperator(task_id="task", aws_conn_id=conn_id, waiter_delay=0.2, **given)


def test_the_candidate_is_hosted_and_takes_the_tag_over(account: Account, conn_id: str) -> None:
    first = promoting(conn_id, "1").execute(context("first"))
    assert (first["promoted"], first["compared_with"], first["replaced"]) == (True, [], [])
    assert stages(account) == {"1": "production", "2": None}

    second = promoting(conn_id, "latest", start=True, max_inference_units="2").execute(context("second"))
    assert (second["ModelVersion"], second["Status"], second["MaxInferenceUnits"]) == ("2", "HOSTED", 2)
    assert (second["promoted"], second["compared_with"], second["replaced"]) == (True, ["1"], ["1"])
    assert second["Performance"]["F1Score"] == pytest.approx(QUICK_F1)
    assert isinstance(second["CreationTimestamp"], str)
    assert stages(account) == {"1": "retired", "2": "production"}

    # What is in use is named by its tag.
    named = {"task_id": "task", "aws_conn_id": conn_id, "project_name": "plates"}
    tagged = {**named, "model_version": "stage=production"}
    sensor = LookoutVisionModelSensor(**tagged, state="hosted", timeout=60)
    assert sensor.poke(context("sensor")).xcom_value["ModelVersion"] == "2"
    stopped = LookoutVisionStopModelOperator(**tagged, waiter_delay=0.2).execute(context("stop"))
    assert (stopped["ModelVersion"], stopped["Status"]) == ("2", "TRAINED")
    for operator in (LookoutVisionStartModelOperator, LookoutVisionPromoteModelOperator):
        none = operator(**named, model_version="stage=none")
        with pytest.raises(AirflowFailException, match="No model of project plates is tagged stage=none"):
            none.execute(context("none"))


def test_a_retried_start_stays_with_the_model_that_had_the_tag(account: Account, conn_id: str) -> None:
    tagged = {"task_id": "task", "aws_conn_id": conn_id, "project_name": "plates", "waiter_delay": 0.2}
    start = LookoutVisionStartModelOperator(**tagged, model_version="stage=production")
    promoting(conn_id, "1").execute(context("before"))
    assert start.execute(context("start"))["ModelVersion"] == "1"
    promoting(conn_id, "2").execute(context("after"))
    assert start.execute(context("start", tries=2))["ModelVersion"] == "1"
    assert account.statuses() == {"1": "HOSTED", "2": "TRAINED"}
    LookoutVisionStopModelOperator(**tagged, model_version="1").execute(context("stop"))


def test_a_candidate_that_is_not_better(account: Account, conn_id: str, task_log: Callable[[], str]) -> None:
    promoting(conn_id, "1", replaced_tag=None).execute(context("first"))
    reason = (
        f"Model plates/2 is not promoted: its F1Score is {QUICK_F1:.4f}, and that of model 1, which is in "
        f"use, {QUICK_F1:.4f}; min_gain is 0.01"
    )
    for if_not_better, error in (("skip", AirflowSkipException), ("fail", AirflowFailException)):
        with pytest.raises(error) as raised:
            promoting(conn_id, "2", min_gain="0.01", if_not_better=if_not_better).execute(context("worse"))
        assert str(raised.value) == reason
    found = promoting(conn_id, "2", min_gain=0.01, if_not_better="succeed", start=True).execute(
        context("worse")
    )
    assert (found["promoted"], found["compared_with"], found["Status"]) == (False, ["1"], "TRAINED")
    assert stages(account) == {"1": "production", "2": None}
    assert "has changed since" not in task_log()

    changes = b'{"source-ref": "s3://plates/new.png"}'
    names = {"ProjectName": "plates", "DatasetType": "test"}
    account.client.update_dataset_entries(**names, Changes=changes)
    account.client.get_waiter("dataset_updated").wait(**names, WaiterConfig={"Delay": 0.2})
    promoting(conn_id, "2", min_gain=-0.01, metric="Recall", replaced_tag="was=used").execute(
        context("other")
    )
    assert "The test dataset has changed since model 1 was trained" in task_log()
    assert stages(account) == {"1": None, "2": "production"}


def test_what_is_in_use_already_is_not_compared(account: Account, conn_id: str) -> None:
    for version in ("1", "2"):
        account.client.tag_resource(
            ResourceArn=arn(account, version), Tags=[{"Key": "stage", "Value": "production"}]
        )
    found = promoting(conn_id, "1", min_gain=1).execute(context("both"))
    assert (found["promoted"], found["replaced"]) == (True, ["2"])
    assert stages(account) == {"1": "production", "2": "retired"}


def test_a_promotion_that_loses_each_answer_once_is_one(account: Account, connect: Any) -> None:
    conn_id = connected(connect, account)
    promoting(conn_id, "1").execute(context("first"))
    with LossyProxy(account.service.endpoint_url, first_answer_of_each_change()) as proxy:
        once = {"retries": {"total_max_attempts": 1}}
        lossy = connected(connect, account, endpoint_url=proxy.endpoint_url, config_kwargs=once)
        promotion = promoting(lossy, "2", start=True)
        for _ in ("the start", "the new tag", "the old one's"):
            with pytest.raises(ConnectionClosedError):
                promotion.execute(context("second"))
            assert "production" in stages(account).values(), "there is a model in use at any time"
        found = promotion.execute(context("second"))
    assert (found["promoted"], found["ModelVersion"], found["Status"]) == (True, "2", "HOSTED")
    assert stages(account) == {"1": "retired", "2": "production"}
    starts = [each for each in proxy.exchanges if each.path.endswith("/start")]
    assert [each.status for each in starts] == [202, 202]

    conn_id = connected(connect, account)
    promoting(conn_id, "1").execute(context("third"))
    late = promoting(conn_id, "2").execute(context("second"))
    assert (late["promoted"], late["replaced"]) == (True, [])
    assert stages(account) == {"1": "production", "2": "retired"}, "a later promotion is left alone"
    cleared = promoting(conn_id, "2").execute(context("second", cleared=1))
    assert cleared["replaced"] == ["1"]
    stop = LookoutVisionStopModelOperator(
        task_id="task", aws_conn_id=conn_id, project_name="plates", model_version="2", waiter_delay=0.2
    )
    stop.execute(context("stop"))


def test_what_is_not_trained_is_not_promoted(account: Account, conn_id: str) -> None:
    project = account.project("untrained")
    version = account.begin_training(project)
    with pytest.raises(AirflowException, match=r"untrained/1 is TRAINING.*let the task retry") as raised:
        promoting(conn_id, version, project_name=project).execute(context("early"))
    assert not isinstance(raised.value, AirflowFailException)
    account.client.delete_model(ProjectName=project, ModelVersion=version)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"metric": "F2"}, "metric is 'F2'; it must be one of F1Score, Precision, Recall"),
        ({"min_gain": "2"}, "min_gain is '2'; it must be a number from -1 to 1"),
        ({"tag": "production"}, "tag is 'production'; it must be key=value, as stage=production"),
        ({"replaced_tag": "=x"}, "replaced_tag is '=x'; it must be key=value"),
        ({"if_not_better": "cry"}, "if_not_better is 'cry'; it must be one of skip, fail, succeed"),
        ({"model_version": "99"}, "has no model '99'"),
    ],
)
def test_parameters_of_a_promotion(conn_id: str, parameters: dict[str, Any], message: str) -> None:
    operator = promoting(conn_id, "1")
    for name, value in parameters.items():
        setattr(operator, name, value)
    with pytest.raises(AirflowFailException, match=message):
        operator.execute(context("wrong"))
