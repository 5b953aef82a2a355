"""The operators of hosting without a DAG run: starts and stops, twice, late, killed, and in vain."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from task_context import connected, context, kill
from trained_models import Account

from airflow_provider_lookoutvision.operators.lookoutvision import (
    LookoutVisionDeleteModelOperator,
    LookoutVisionStartModelOperator,
    LookoutVisionStopModelOperator,
)
from airflow_provider_lookoutvision.testing.service import running_service

pytestmark = pytest.mark.timeout(3600)


@pytest.fixture(scope="module")
def account() -> Iterator[Account]:
    """An account whose project "plates" has one trained model."""
    with running_service() as service:
        yield Account.with_a_model(service)


@pytest.fixture
def conn_id(account: Account, connect: Any) -> str:
    return connected(connect, account)


def starting(conn_id: str, **parameters: Any) -> LookoutVisionStartModelOperator:
    given = {"project_name": "plates", "model_version": "1", **parameters}
    return LookoutVisionStartModelOperator(task_id="task", aws_conn_id=conn_id, waiter_delay=0.2, **given)


def stopping(conn_id: str, **parameters: Any) -> LookoutVisionStopModelOperator:
    given = {"project_name": "plates", "model_version": "1", **parameters}
    return LookoutVisionStopModelOperator(task_id="task", aws_conn_id=conn_id, waiter_delay=0.2, **given)


def deleting(conn_id: str, project: str, **parameters: Any) -> LookoutVisionDeleteModelOperator:
    return LookoutVisionDeleteModelOperator(
        task_id="task", aws_conn_id=conn_id, project_name=project, model_version="1", **parameters
    )


def test_a_killed_start_stops_its_own_model_with_cancel_on_kill(conn_id: str, account: Account) -> None:
    for cancel_on_kill, status in ((False, "HOSTED"), (True, "TRAINED")):
        kill(starting(conn_id, cancel_on_kill=cancel_on_kill), f"kill {cancel_on_kill}")
        account.wait("model_stopped" if cancel_on_kill else "model_hosted", "plates", "1")
        assert account.statuses()["1"] == status
        stopping(conn_id).execute(context(f"kill {cancel_on_kill}"))

    account.start("plates", "1")
    start = starting(conn_id, cancel_on_kill=True)
    start.execute(context("somebody else's"))
    start.on_kill()
    assert account.statuses()["1"] == "HOSTED"
    stopping(conn_id).execute(context("somebody else's"))


def test_starting_and_stopping_twice_is_success(conn_id: str, task_log: Callable[[], str]) -> None:
    hosted = starting(conn_id, max_inference_units="2").execute(context("first"))
    assert (hosted["Status"], hosted["MinInferenceUnits"], hosted["MaxInferenceUnits"]) == ("HOSTED", 1, 2)
    assert starting(conn_id).execute(context("second")) == hosted
    assert "hosted with 1 to 2 inference units, not with 1 inference units" in task_log()
    assert starting(conn_id, max_inference_units="2").execute(context("first")) == hosted  # a retry

    unfinished = stopping(conn_id, wait_for_completion=False).execute(context("first"))
    assert unfinished["Status"] in {"STOPPING_HOSTING", "TRAINED"}
    hosted = starting(conn_id).execute(context("third"))  # while the model may still be stopping
    assert (hosted["Status"], hosted["MinInferenceUnits"]) == ("HOSTED", 1)
    for run_id in ("first", "first", "second"):
        assert stopping(conn_id).execute(context(run_id))["Status"] == "TRAINED"


def test_what_was_waited_for_outlives_a_late_kill(account: Account, conn_id: str) -> None:
    for operator, state in (
        (starting(conn_id, cancel_on_kill=True), "HOSTED"),
        (starting(conn_id, cancel_on_kill=True, wait_for_completion=False), "HOSTED"),
    ):
        made = operator.execute(context(f"late {state}"))
        operator.on_kill()
        name = {"ProjectName": operator.project_name, "ModelVersion": made["ModelVersion"]}
        assert account.client.describe_model(**name)["ModelDescription"]["Status"] == state
    stopping(conn_id).execute(context("late"))


def test_there_is_nothing_to_stop_in_what_is_gone(conn_id: str) -> None:
    assert stopping(conn_id, model_version="99").execute(context("gone")) == {}
    assert stopping(conn_id, model_version=None).execute(context("never started")) == {}
    assert stopping(conn_id, project_name="none", model_version="latest").execute(context("gone")) == {}


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"min_inference_units": 6}, "at most 5 inference units"),
        ({"min_inference_units": 2, "max_inference_units": 1}, "less than MinInferenceUnits"),
        ({"min_inference_units": "two"}, "min_inference_units is 'two'; it must be a whole number"),
        ({"model_version": "99"}, "has no model '99'"),
        ({"project_name": "none", "model_version": "latest"}, "ResourceNotFoundException"),
    ],
)
def test_a_start_that_can_not_be_is_not_retried(
    conn_id: str, parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(AirflowFailException, match=message):
        starting(conn_id, **parameters).execute(context("wrong" + message))


def test_a_retry_stays_with_the_version_that_was_the_latest(conn_id: str, account: Account) -> None:
    project = account.project("another")
    account.train(project)
    start = starting(conn_id, project_name=project, model_version="latest")
    assert start.execute(context(project))["ModelVersion"] == "1"
    account.train(project)
    assert start.execute(context(project, tries=2))["ModelVersion"] == "1"
    assert account.statuses(project) == {"1": "HOSTED", "2": "TRAINED"}

    with pytest.raises(AirflowFailException, match="stop it before it is deleted"):
        deleting(conn_id, project).execute(context("hosted"))
    for _ in range(2):
        deleting(conn_id, project, stop_if_hosted=True).execute(context("stopped"))
    assert account.statuses(project) == {"2": "TRAINED"}
