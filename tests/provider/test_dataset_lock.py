"""Resources in states that end by themselves: what waits for them, what is retried, what ends a wait."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException
from airflow_instance import wait_for
from task_context import connected, context, unguarded
from trained_models import Account

from airflow_provider_lookoutvision.hooks.lookoutvision import LookoutVisionHook
from airflow_provider_lookoutvision.operators.lookoutvision import (
    LookoutVisionCreateModelOperator,
    LookoutVisionDeleteDatasetOperator,
    LookoutVisionDeleteProjectOperator,
    LookoutVisionStartModelOperator,
    LookoutVisionUpdateDatasetEntriesOperator,
)
from airflow_provider_lookoutvision.testing.lossy_proxy import LossyProxy
from airflow_provider_lookoutvision.testing.service import Service, running_service

SHORT = {"waiter_delay": 0.05, "waiter_max_attempts": 3}


@pytest.fixture(scope="module")
def idle() -> Iterator[Service]:
    """A service that begins everything and ends nothing."""
    with running_service(flags=["--no-worker"]) as service:
        yield service


@pytest.fixture
def account(idle: Service) -> Account:
    return Account.of(idle)


@pytest.fixture
def project(account: Account) -> str:
    return new_project(account)


def new_project(account: Account) -> str:
    """A project with an empty dataset."""
    name = f"p-{secrets.token_hex(4)}"
    account.client.create_project(ProjectName=name)
    account.client.create_dataset(ProjectName=name, DatasetType="train")
    return name


@pytest.fixture
def conn_id(account: Account, connect: Any) -> str:
    return connected(connect, account)


def update(account: Account, project: str) -> None:
    """Begin an update, which doesn't end."""
    changes = json.dumps({"source-ref": "s3://images/a.png"}).encode()
    account.client.update_dataset_entries(ProjectName=project, DatasetType="train", Changes=changes)


def updating(
    conn_id: str, project: str, source_refs: list[str], **more: Any
) -> LookoutVisionUpdateDatasetEntriesOperator:
    return LookoutVisionUpdateDatasetEntriesOperator(
        task_id="task", aws_conn_id=conn_id, project_name=project, dataset_type="train",
        changes=[{"source-ref": ref} for ref in source_refs], **{"waiter_delay": 0.1, **more},
    )  # fmt: skip


def fails_retryably(operator: Any, message: str) -> None:
    with pytest.raises(AirflowException, match=message) as raised:
        operator.execute(context("run"))
    assert not isinstance(raised.value, AirflowFailException)


def test_mapped_updates_of_one_dataset_take_turns(connect: Any) -> None:
    refs = [[f"s3://images/{task}-{number}.png" for number in range(500)] for task in range(3)]
    with (
        running_service(flags=["--no-worker"]) as service,
        LossyProxy(service.endpoint_url, lambda _: False) as proxy,
        ThreadPoolExecutor() as pool,
    ):
        account = Account.of(service)
        project = new_project(account)
        update(account, project)
        conn_id = connected(connect, account, endpoint_url=proxy.endpoint_url)
        tasks = [
            pool.submit(unguarded, updating(conn_id, project, each), context("run", map_index=index))
            for index, each in enumerate(refs)
        ]
        statuses = [409] * len(refs)
        wait_for(lambda: posted(proxy)[: len(refs)] == statuses, 300, "all to be refused")
        # Another process with the same database and key, which has a worker.
        flags = ["--database-url", f"sqlite:///{service.data_dir / 'lookoutvision.db'}"]
        environ = {"LOOKOUTVISION_SECRET_KEY": (service.data_dir / "secret.key").read_text()}
        with running_service(flags=flags, environ=environ):
            for task in tasks:
                task.result()  # whose status may be that of the next one's update already
        hook = LookoutVisionHook(aws_conn_id=conn_id)
        found = {entry["source-ref"] for entry in hook.iter_dataset_entries(project, "train")}
    assert posted(proxy).count(202) == len(refs)
    assert found == {"s3://images/a.png", *(ref for each in refs for ref in each)}


def posted(proxy: LossyProxy) -> list[int | None]:
    return [exchange.status for exchange in proxy.exchanges if exchange.method != "GET"]


def test_an_update_waits_no_longer_than_its_attempts(conn_id: str, account: Account, project: str) -> None:
    update(account, project)
    fails_retryably(
        updating(conn_id, project, ["s3://images/b.png"], **SHORT), "timed out, after .*; polled 3 times"
    )


def test_a_dataset_that_is_busy_is_deleted_by_a_retry(conn_id: str, account: Account, project: str) -> None:
    update(account, project)
    delete = LookoutVisionDeleteDatasetOperator(
        task_id="task", aws_conn_id=conn_id, project_name=project, dataset_type="train"
    )
    fails_retryably(delete, "is UPDATE_IN_PROGRESS: wait until that has ended.* let the task retry")


def test_a_training_that_waits_for_the_dataset_ends_with_the_task(
    conn_id: str, account: Account, project: str
) -> None:
    update(account, project)
    train = LookoutVisionCreateModelOperator(
        task_id="task",
        aws_conn_id=conn_id,
        project_name=project,
        output_s3_prefix="s3://out",
        waiter_delay=60,
    )
    train.on_kill()
    fails_retryably(train, "ModelTrained of .*/1 is not waited for any more: the task is killed")
    assert account.statuses(project) == {"1": "TRAINING"}  # for the retry


def test_a_dataset_that_can_not_be_used_is_not_waited_for(
    conn_id: str, account: Account, project: str
) -> None:
    """The token was used for something else; that the dataset is busy has nothing to do with it."""
    updating(conn_id, project, ["s3://images/a.png"], wait_for_completion=False).execute(context("run"))
    with pytest.raises(AirflowFailException, match="already used for UpdateDatasetEntries with other"):
        updating(conn_id, project, ["s3://images/b.png"]).execute(context("run"))


def test_what_needs_a_model_that_is_being_trained_is_fails_retryably(
    conn_id: str, account: Account, project: str
) -> None:
    account.begin_training(project)
    model = {"task_id": "task", "aws_conn_id": conn_id, "project_name": project, "model_version": "1"}
    fails_retryably(LookoutVisionStartModelOperator(**model), "is TRAINING: only a trained model")


def test_a_cascade_waits_no_longer_than_its_attempts(conn_id: str, account: Account, project: str) -> None:
    update(account, project)
    cascade = LookoutVisionDeleteProjectOperator(
        task_id="task", aws_conn_id=conn_id, project_name=project, cascade=True, **SHORT
    )
    fails_retryably(cascade, "is UPDATE_IN_PROGRESS: wait until that has ended")
    assert account.client.describe_project(ProjectName=project)["ProjectDescription"]["Datasets"]


def test_a_killed_cascade_ends(conn_id: str, account: Account, project: str) -> None:
    update(account, project)
    cascade = LookoutVisionDeleteProjectOperator(
        task_id="task", aws_conn_id=conn_id, project_name=project, cascade=True, waiter_delay=60
    )
    cascade.on_kill()
    fails_retryably(cascade, "is not waited for any more: the task is killed")
