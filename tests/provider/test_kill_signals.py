"""SIGTERM at any moment of a task: the handler runs in the thread of the task, between two instructions."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException
from task_context import connected, context
from trained_models import Account

from airflow_provider_lookoutvision.operators.lookoutvision import LookoutVisionCreateModelOperator
from airflow_provider_lookoutvision.testing.lossy_proxy import Exchange, LossyProxy
from airflow_provider_lookoutvision.testing.service import Service, running_service

pytestmark = pytest.mark.timeout(600)

KILLED = "The task is killed"


class LockedLog:
    """A log that locks itself for each line, as a task's of Airflow 3, and gets a signal in one of them."""

    def __init__(self, killed_at: str) -> None:
        self._lock = threading.Lock()
        self._killed_at = killed_at
        self.lines: list[str] = []

    def info(self, line: str, *arguments: Any) -> None:
        with self._lock:
            self.lines.append(line % arguments)
            if self._killed_at and self.lines[-1].startswith(self._killed_at):
                self._killed_at = ""
                os.kill(os.getpid(), signal.SIGTERM)

    debug = warning = info


@pytest.fixture(scope="module")
def idle_service() -> Iterator[Service]:
    """A service whose trainings never begin."""
    with running_service(flags=["--no-worker", "--max-trainings", "99"]) as service:
        yield service


@pytest.fixture
def account(idle_service: Service) -> Account:
    account = Account.of(idle_service)
    account.client.create_project(ProjectName="plates")
    account.client.create_dataset(ProjectName="plates", DatasetType="train")
    return account


@pytest.fixture
def conn_id(connect: Any, account: Account) -> str:
    return connected(connect, account)


@pytest.fixture
def call_on_sigterm() -> Iterator[Callable[[Callable[[], None]], None]]:
    handler = signal.getsignal(signal.SIGTERM)
    yield lambda on_kill: signal.signal(signal.SIGTERM, lambda *_: on_kill()) and None
    signal.signal(signal.SIGTERM, handler)


def training(conn_id: str, killed_at: str, **parameters: Any) -> tuple[Any, LockedLog]:
    """An operator that trains, and its log."""
    log = LockedLog(killed_at)

    class Operator(LookoutVisionCreateModelOperator):
        @property
        def log(self) -> Any:
            return log

    names = {"task_id": "task", "project_name": "plates", "output_s3_prefix": "s3://models/"}
    return Operator(**names, aws_conn_id=conn_id, waiter_delay=1, **parameters), log


@pytest.mark.parametrize("defer_after", [None, 60])
@pytest.mark.parametrize("killed_at", ["Training a model", "Model plates/1: arn", "Waiting for ModelTrained"])
def test_a_signal_within_a_line_of_the_log_cancels_the_training(
    conn_id: str, account: Account, call_on_sigterm: Any, killed_at: str, defer_after: float | None
) -> None:
    deferral = {"deferrable": True, "defer_after": defer_after} if defer_after else {}
    operator, log = training(conn_id, killed_at, cancel_on_kill=True, **deferral)
    call_on_sigterm(operator.on_kill)
    with pytest.raises(AirflowException, match="the task is killed") as raised:
        operator.execute(context("signal"))
    assert not isinstance(raised.value, AirflowFailException)  # so that a retry trains anew
    assert account.statuses() == {}
    assert [line for line in log.lines if line.startswith(KILLED)] == [
        f"{KILLED}: called DeleteModel for plates/1"
    ]


def test_a_signal_while_the_service_begins_the_training_cancels_it(
    connect: Any, account: Account, call_on_sigterm: Any
) -> None:
    killed: list[str] = []

    def kill_at_the_response(exchange: Exchange) -> bool:
        if exchange.method == "POST" and not killed:
            killed.append(exchange.path)
            os.kill(os.getpid(), signal.SIGTERM)
        return False

    with LossyProxy(account.service.endpoint_url, kill_at_the_response) as proxy:
        conn_id = connected(connect, account, endpoint_url=proxy.endpoint_url)
        operator, _ = training(conn_id, "", cancel_on_kill=True)
        call_on_sigterm(operator.on_kill)
        with pytest.raises(AirflowException, match="the task is killed"):
            operator.execute(context("signal"))
    assert killed
    assert account.statuses() == {}


@pytest.mark.parametrize("killed_at", ["Training a model", "Model plates/1: arn", "Waiting for ModelTrained"])
def test_a_signal_lets_the_training_go_on_and_says_so(
    conn_id: str, account: Account, call_on_sigterm: Any, killed_at: str
) -> None:
    operator, log = training(conn_id, killed_at)
    call_on_sigterm(operator.on_kill)
    with pytest.raises(AirflowException, match="the task is killed"):
        operator.execute(context("signal"))
    assert account.statuses() == {"1": "TRAINING"}
    assert [line for line in log.lines if line.startswith(KILLED)] == [
        f"{KILLED}; the work goes on, since cancel_on_kill isn't set"
    ]


def test_a_second_signal_changes_nothing(conn_id: str, account: Account, call_on_sigterm: Any) -> None:
    operator, log = training(conn_id, "Waiting for ModelTrained", cancel_on_kill=True)

    def twice() -> None:
        operator.on_kill()
        operator.on_kill()

    call_on_sigterm(twice)
    with pytest.raises(AirflowException, match="the task is killed"):
        operator.execute(context("signal"))
    assert account.statuses() == {}
    assert len([line for line in log.lines if line.startswith(KILLED)]) == 1


def test_a_cancellation_that_fails_is_logged(conn_id: str, account: Account, call_on_sigterm: Any) -> None:
    operator, log = training(conn_id, "Waiting for ModelTrained", cancel_on_kill=True)

    def of_a_model_that_somebody_has_deleted() -> None:
        account.client.delete_model(ProjectName="plates", ModelVersion="1")
        operator.on_kill()

    call_on_sigterm(of_a_model_that_somebody_has_deleted)
    with pytest.raises(AirflowException, match="the task is killed"):
        operator.execute(context("signal"))
    assert any(line.startswith(f"{KILLED}, and DeleteModel of plates/1 failed") for line in log.lines)
