"""The operators of models: a life in real Airflow tasks, then every turn of training without a DAG run."""

from __future__ import annotations

import json
import secrets
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException
from airflow_and_service import Deployment
from airflow_instance import Run
from botocore.exceptions import ConnectionClosedError
from task_context import connected, context, first_answer_of_each_change, kill
from trained_models import BUCKET, QUICK_F1, Account

from airflow_provider_lookoutvision.hooks.lookoutvision import LookoutVisionHook
from airflow_provider_lookoutvision.operators.lookoutvision import (
    LookoutVisionCreateModelOperator,
    LookoutVisionDeleteModelOperator,
    LookoutVisionDeleteProjectOperator,
    LookoutVisionSetThresholdOperator,
)
from airflow_provider_lookoutvision.testing.lossy_proxy import LossyProxy

pytestmark = [pytest.mark.timeout(3600), pytest.mark.usefixtures("_trigger_all")]


# -- in Airflow ------------------------------------------------------------------------------------------


def run_in_an_account(deployment: Deployment, dag_id: str) -> tuple[Run, Account]:
    account = Account.of(deployment.service)
    account.project()
    conn_id = deployment.airflow.connection(deployment.service.endpoint_url, account.key)
    return deployment.airflow.run(dag_id, conn_id=conn_id), account


@pytest.fixture(scope="module")
def run_that_fails(deployment: Deployment) -> tuple[Run, Account]:
    return run_in_an_account(deployment, "train_host_and_fail")


def test_a_killed_task_trains_once(run_that_fails: tuple[Run, Account]) -> None:
    run, account = run_that_fails
    assert run.wait() == "failed"

    assert run.task("create").try_number == 2, run.log("create", 1)
    assert list(account.statuses()) == ["1"]
    description = run.xcom("create")
    assert description["Performance"]["F1Score"] == pytest.approx(QUICK_F1)
    assert description["CreationTimestamp"].endswith("+00:00")
    tags = account.client.list_tags_for_resource(ResourceArn=description["ModelArn"])["Tags"]
    assert tags == [{"Key": "line", "Value": "7"}]


def test_a_teardown_stops_the_model_when_the_work_fails(run_that_fails: tuple[Run, Account]) -> None:
    run, account = run_that_fails
    assert run.wait() == "failed"

    states = {name: run.task(name).state for name in ("start", "work", "stop")}
    assert states == {"start": "success", "work": "failed", "stop": "success"}
    assert "not with model 1" in run.log("work", 1)
    assert run.xcom("start", "Status") == "HOSTED"
    assert str(run.xcom("start", "ModelVersion")) == "1"  # asked for was latest
    assert run.xcom("stop", "Status") == "TRAINED"
    assert account.statuses() == {"1": "TRAINED"}
    assert "Pausing task as DEFERRED" in run.log("start", 1)


@pytest.fixture(scope="module")
def run_deferred(deployment: Deployment) -> tuple[Run, Account]:
    return run_in_an_account(deployment, "train_deferred_and_delete")


def test_trains_in_a_triggerer_and_deletes(run_deferred: tuple[Run, Account]) -> None:
    run, account = run_deferred
    run.wait_for_success()

    assert run.task("create").try_number == 1
    assert "Pausing task as DEFERRED" in run.log("create", 1)
    assert run.xcom("create", "Performance")["Precision"] == 1.0
    assert account.statuses() == {}


def test_links_lead_to_the_console(run_deferred: tuple[Run, Account], deployment: Deployment) -> None:
    run, _ = run_deferred
    run.wait_for_success()

    project = f"{deployment.service.endpoint_url}/console/projects/plates"
    model = f"{project}/models/1"
    links = {"Project": project, "Model": model, "Evaluation": f"{model}/evaluation"}
    assert run.links("create") == run.links("promote") == links
    assert run.links("delete") == {}


def test_a_killed_promotion_is_one(run_deferred: tuple[Run, Account]) -> None:
    run, _ = run_deferred
    run.wait_for_success()

    assert run.task("promote").try_number == 2, run.log("promote", 1)
    assert "An earlier try has promoted model plates/1" in run.log("promote", 2)
    assert (run.xcom("promote", "promoted"), run.xcom("promote", "replaced")) == (True, [])


def test_a_model_and_its_promotion_are_announced(run_deferred: tuple[Run, Account]) -> None:
    run, account = run_deferred
    run.wait_for_success()

    model = run.xcom("create")
    extra = {
        "ProjectName": "plates",
        "ModelVersion": "1",
        "ModelArn": model["ModelArn"],
        **model["Performance"],
        **{
            name: f"s3://{model[name]['Bucket']}/{model[name]['Key']}"
            for name in ("EvaluationManifest", "EvaluationResult")
        },
    }
    models = f"lookoutvision://eu-central-1/{account.key.account}/model/plates"
    assert dict(run.asset_events()) == {
        models: extra,
        f"{models}/stage=production": {**extra, "replaced": []},
    }


# -- without a DAG run -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def account(deployment: Deployment) -> Account:
    """An account whose project "plates" has one trained model, that no test changes but to host it."""
    return Account.with_a_model(deployment.service)


@pytest.fixture
def conn_id(account: Account, connect: Any) -> str:
    return connected(connect, account)


@pytest.fixture
def project(account: Account) -> str:
    """Another project of that account, not trained yet."""
    return account.project(f"p-{secrets.token_hex(4)}")


def creating(conn_id: str, project: str, **parameters: Any) -> LookoutVisionCreateModelOperator:
    parameters = {"output_s3_prefix": f"s3://{BUCKET}/evaluation/", **parameters}
    return LookoutVisionCreateModelOperator(
        task_id="task", aws_conn_id=conn_id, project_name=project, waiter_delay=0.2, **parameters
    )


def deleting(conn_id: str, project: str, version: str, **parameters: Any) -> LookoutVisionDeleteModelOperator:
    return LookoutVisionDeleteModelOperator(
        task_id="task", aws_conn_id=conn_id, project_name=project, model_version=version, **parameters
    )


def test_a_retry_finds_its_training_and_a_clear_begins_another(
    conn_id: str, account: Account, project: str
) -> None:
    unwaited = creating(conn_id, project, wait_for_completion=False, description="by-hand")
    made = unwaited.execute(context(project))
    assert (made["ModelVersion"], made["Status"], made["Description"]) == ("1", "TRAINING", "by-hand")
    found = creating(conn_id, project, description="by-hand").execute(context(project))
    assert (found["ModelVersion"], found["Status"]) == ("1", "TRAINED")

    unwaited.execute(context(project, cleared=1))
    assert account.statuses(project) == {"1": "TRAINED", "2": "TRAINING"}
    for version in ("1", "2"):
        deleting(conn_id, project, version).execute(context(project + version))
    assert account.statuses(project) == {}


def test_a_killed_task_cancels_its_training_if_told_to_and_a_retry_trains_anew(
    conn_id: str, account: Account, project: str
) -> None:
    kill(creating(conn_id, project), project)
    assert account.statuses(project).keys() == {"1"}

    unwaited = creating(conn_id, project, wait_for_completion=False)
    for version in ("1", "2", "3"):
        for _ in ("a try", "a retry"):
            assert unwaited.execute(context(project))["ModelVersion"] == version
        kill(creating(conn_id, project, cancel_on_kill=True), project)
        assert account.statuses(project) == {}

    unwaited.execute(context(project))
    account.client.delete_model(ProjectName=project, ModelVersion="4")
    with pytest.raises(AirflowFailException, match="has been deleted since"):  # by somebody else
        unwaited.execute(context(project))
    assert account.statuses(project) == {}


def test_a_token_of_ones_own_trains_anew_too(conn_id: str, account: Account, project: str) -> None:
    own = {"client_token": secrets.token_hex(8), "wait_for_completion": False}
    kill(creating(conn_id, project, client_token=own["client_token"], cancel_on_kill=True), project)
    assert creating(conn_id, project, **own).execute(context(project))["ModelVersion"] == "2"
    deleting(conn_id, project, "2").execute(context(project))


def test_a_training_that_has_ended_outlives_a_late_kill(conn_id: str, account: Account, project: str) -> None:
    operator = creating(conn_id, project, cancel_on_kill=True)
    operator.execute(context("late"))
    operator.on_kill()
    assert account.statuses(project) == {"1": "TRAINED"}


def test_a_model_that_is_not_good_enough_fails_the_task_and_is_kept(
    conn_id: str, account: Account, project: str
) -> None:
    with pytest.raises(AirflowFailException) as raised:
        creating(conn_id, project, min_f1=0.95).execute(context(project))
    metrics = f"F1Score {QUICK_F1:.4f}, Precision 1.0000, Recall 0.8000; min_f1 is 0.95"
    assert str(raised.value) == f"Model {project}/1 is not good enough: {metrics}. The model is kept"
    assert account.statuses(project) == {"1": "TRAINED"}


@pytest.mark.parametrize("least", ["1.5", "-1", "nan", "good"])
def test_a_wrong_min_f1_is_found_before_the_training(conn_id: str, account: Account, least: str) -> None:
    with pytest.raises(AirflowFailException, match=r"min_f1 is .*; it must be a number from 0 to 1"):
        creating(conn_id, "plates", min_f1=least).execute(context("wrong"))
    assert account.statuses().keys() == {"1"}


def test_min_f1_needs_the_wait() -> None:
    with pytest.raises(AirflowFailException, match="min_f1 needs wait_for_completion"):
        creating("aws_default", "plates", min_f1=0.9, wait_for_completion=False)


@pytest.mark.parametrize(
    ("location", "prefix"),
    [("s3://out/run-7_", "run-7_"), ("s3://out/a/", "a/"), ("s3://out", ""), ("s3://out/", "")],
)
def test_the_prefix_is_kept_as_it_is(account: Account, connect: Any, location: str, prefix: str) -> None:
    with LossyProxy(account.service.endpoint_url, lambda _: False) as proxy:
        conn_id = connected(connect, account, endpoint_url=proxy.endpoint_url)
        with pytest.raises(AirflowFailException, match="ResourceNotFoundException"):
            creating(conn_id, "none", output_s3_prefix=location).execute(context(location))
        sent = json.loads(proxy.exchanges[0].body)
    assert sent == {"OutputConfig": {"S3Location": {"Bucket": "out", "Prefix": prefix}}}


@pytest.mark.parametrize("location", ["b/run", "s3:///run", "https://b/run"])
def test_the_output_must_be_in_s3(conn_id: str, location: str) -> None:
    with pytest.raises(AirflowFailException, match=r"output_s3_prefix is .*; it must be s3://bucket/prefix"):
        creating(conn_id, "plates", output_s3_prefix=location).execute(context("output"))


def test_a_training_whose_images_are_at_fault_is_not_retried(conn_id: str, account: Account) -> None:
    account.client.create_project(ProjectName="empty")
    account.client.create_dataset(ProjectName="empty", DatasetType="train")
    with pytest.raises(AirflowFailException, match="TRAINING_FAILED: Invalid input: "):
        creating(conn_id, "empty").execute(context("empty"))


def test_trainings_over_the_quota_are_left_to_airflows_retries(connect: Any, deployment: Deployment) -> None:
    account = Account.of(deployment.service)
    account.project()
    for _ in range(2):
        account.begin_training()
    with pytest.raises(AirflowException, match=r"max_trainings.*Let the task retry") as raised:
        creating(connected(connect, account), "plates").execute(context("quota"))
    assert not isinstance(raised.value, AirflowFailException)
    for version in account.statuses():
        account.client.delete_model(ProjectName="plates", ModelVersion=version)


def test_a_cascade_goes_on_wherever_it_was_interrupted(account: Account, project: str, connect: Any) -> None:
    """Of every request that changes something the first answer is lost."""
    account.train(project)
    account.start(project, "1")
    account.begin_training(project)
    assert account.statuses(project) == {"1": "HOSTED", "2": "TRAINING"}
    with LossyProxy(account.service.endpoint_url, first_answer_of_each_change()) as proxy:
        once = {"retries": {"total_max_attempts": 1}}
        conn_id = connected(connect, account, endpoint_url=proxy.endpoint_url, config_kwargs=once)
        cascade = LookoutVisionDeleteProjectOperator(
            task_id="task", aws_conn_id=conn_id, project_name=project, cascade=True
        )
        for _ in ("a stop", "model 1", "model 2", "dataset", "dataset", "project"):
            with pytest.raises(ConnectionClosedError):
                cascade.execute(context(project))
        for _ in range(2):
            cascade.execute(context(project))
    with pytest.raises(account.client.exceptions.ResourceNotFoundException):
        account.client.describe_project(ProjectName=project)


def test_the_effort_is_a_tag(conn_id: str, account: Account, project: str) -> None:
    made = creating(conn_id, project, wait_for_completion=False, effort="quick", tags={"line": "7"})
    arn = made.execute(context(project))["ModelArn"]
    tags = LookoutVisionHook(aws_conn_id=conn_id).tags(arn)
    assert tags == {"line": "7", "lookoutvision:effort": "quick"}
    deleting(conn_id, project, "1").execute(context(f"{project}1"))
    with pytest.raises(AirflowFailException, match="effort is 'most'; it must be one of quick, thorough"):
        creating(conn_id, project, effort="most").execute(context(project, cleared=1))


def test_a_threshold_is_set_or_chosen_by_a_target(conn_id: str, account: Account) -> None:
    # Two of ten anomalies look as the normal images do: to find them is to call normal images anomalous.
    def setting(**target: Any) -> dict[str, Any]:
        operator = LookoutVisionSetThresholdOperator(
            task_id="task", aws_conn_id=conn_id, project_name="plates", model_version="latest", **target
        )
        return operator.execute(context("set"))

    [model] = account.client.list_models(ProjectName="plates")["Models"]
    try:
        precise = setting(min_precision="1")
        assert (precise["ModelVersion"], precise["Precision"], precise["Recall"]) == ("1", 1.0, 0.8)
        [described] = account.client.list_models(ProjectName="plates")["Models"]
        assert f"threshold is {precise['Threshold']!r}" in described["StatusMessage"]
        complete = setting(min_recall=0.99)
        assert complete["Recall"] == 1.0
        assert complete["Precision"] < 1
        assert complete["Threshold"] < precise["Threshold"]
        assert setting(threshold=0.3) == {"ModelVersion": "1", "Threshold": 0.3}
        tags = LookoutVisionHook(aws_conn_id=conn_id).tags(model["ModelArn"])
        assert tags == {"lookoutvision:threshold": "0.3"}
    finally:
        account.client.untag_resource(ResourceArn=model["ModelArn"], TagKeys=["lookoutvision:threshold"])
    for target, message in (
        ({}, "exactly one of .*; 0 are set"),
        ({"threshold": 0.5, "min_recall": 0.9}, "; 2 are set"),
        ({"threshold": 1}, "must be a number between 0 and 1"),
        ({"min_recall": "all"}, "must be a number from 0 to 1"),
    ):
        with pytest.raises(AirflowFailException, match=message):
            setting(**target)


def test_the_hook_reads_models(conn_id: str, account: Account, project: str) -> None:
    hook = LookoutVisionHook(aws_conn_id=conn_id)
    account.train(project)
    account.begin_training(project)
    assert [model["ModelVersion"] for model in hook.iter_models(project)] == ["1", "2"]
    for status, version in (((), "2"), ("TRAINED", "1"), (("TRAINED", "TRAINING"), "2")):
        found = hook.latest_model(project, status)
        assert found
        assert found["ModelVersion"] == version
    assert hook.latest_model(project, "HOSTED") is None
    account.client.delete_model(ProjectName=project, ModelVersion="2")
