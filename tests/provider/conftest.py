"""A whole Airflow and a service for all tests, an AWS environment that nobody shapes, and connections."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow_and_service import Deployment
from airflow_instance import running_airflow
from airflow_metrics import Metrics
from airflow_rest import REST
from postgres_server import PostgresServer

from airflow_provider_lookoutvision.testing.service import running_service

HERE = Path(__file__).parent
DAGS = {
    "be_killed",
    "create",
    "create_and_announce",
    "create_and_be_killed",
    "create_dataset",
    "create_mapped",
    "create_in_groups",
    "create_and_delete_twice",
    "create_with_a_new_name_on_every_try",
    "create_with_a_new_token_on_every_try",
    "detect_and_announce",
    "detect_mapped",
    "train_deferred_and_delete",
    "train_host_and_fail",
    "update_and_delete_dataset",
    "example_lookoutvision_dataset",
    "example_lookoutvision_project",
} | ({"durable"} if REST.has_task_state_store else set())

Connect = Callable[..., str]
TaskLog = Callable[[], str]


@pytest.fixture(scope="session")
def deployment(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: Callable[[], PostgresServer]
) -> Iterator[Deployment]:
    """One Airflow for all tests, its tasks far from UTC, and one service."""
    folders = {"tests": HERE / "dags", "examples": HERE.parents[1] / "example_dags"}
    home = tmp_path_factory.mktemp("airflow")
    database_url = postgres_server().new_database()
    with (
        running_service() as service,
        Metrics() as metrics,
        running_airflow(
            home, database_url, folders, DAGS, TZ="Asia/Kolkata", **metrics.environment
        ) as airflow,
    ):
        yield Deployment(airflow, service, airflow.connection(service.endpoint_url, service), metrics)


@pytest.fixture(scope="module")
def _trigger_all(request: pytest.FixtureRequest, deployment: Deployment) -> None:
    """Trigger all runs that the selected tests of a module need, before the first looks at its own."""
    for item in request.session.items:
        if isinstance(item, pytest.Function) and item.module is request.module:
            for name in item.fixturenames:
                if name.startswith("run_"):
                    request.getfixturevalue(name)


@pytest.fixture(autouse=True)
def _aws_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "aws-credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def task_log(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Iterator[TaskLog]:
    """``task_log()``: what operators have logged.

    Airflow 3 prints it here. Airflow 2 has a logger of its own for tasks, whose handlers depend on what has
    run before in this process.
    """
    logger = logging.getLogger("airflow.task")
    logger.addHandler(caplog.handler)
    try:
        yield lambda: capsys.readouterr().out + caplog.text
    finally:
        logger.removeHandler(caplog.handler)


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Make an Amazon connection with a key and this extra; return its ID."""

    def connect(*, login: str | None = "AKIDEXAMPLE", password: str | None = "secret", **extra: Any) -> str:
        extra = {"region_name": "eu-central-1", **extra}
        connection = {"conn_type": "aws", "login": login, "password": password, "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_LOOKOUTVISION_TEST", json.dumps(connection))
        return "lookoutvision_test"

    return connect
