"""A pytest plugin for tests of DAGs and clients: a real service, a connection, a client, and cleaning up.

In a ``conftest.py``::

    pytest_plugins = ["airflow_provider_lookoutvision.testing.plugin"]

In a test::

    def test_my_dag(lookoutvision):
        lookoutvision.bucket("images").joinpath("good.manifest").write_text(...)
        DagBag(...).get_dag("my_dag").test()
        assert lookoutvision.client.describe_project(ProjectName="circuit-boards")

The service is started once, in a process of its own, and needs the extras ``server`` and ``engine`` in this
environment. When it is to live in another one, because Airflow's libraries are too old for it here, or is
running already, the environment variable ``LOOKOUTVISION_TEST_SERVICE`` says so: the command
``lookoutvision`` of the other environment, or the URL of a service, whose access key boto3 then finds as it
finds any.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest

from airflow_provider_lookoutvision.model import teach
from airflow_provider_lookoutvision.testing.service import (
    SERVICE_VARIABLE,
    Service,
    running_service,
    service_url,
)

REGION = "us-east-1"
_WAIT = {"Delay": 1, "MaxAttempts": 120}


@dataclass
class LookoutVision:
    """What the fixture ``lookoutvision`` hands out.

    :param endpoint_url: where the API is.
    :param client: a boto3 client, of an account that no other test has; of yours, when the service was
        running already.
    :param conn_id: the Airflow connection to it: ``aws_default``.
    """

    endpoint_url: str
    client: Any
    conn_id: str
    _buckets: Path | None
    _connection: dict[str, Any] = field(repr=False, default_factory=dict)

    def bucket(self, name: str) -> Path:
        """The folder that the service takes for the bucket ``name``, made if it isn't there.

        :raises RuntimeError: for a service that was running already, whose folders aren't known here.
        """
        if self._buckets is None:
            raise RuntimeError(f"{SERVICE_VARIABLE} names a running service: its buckets aren't known here")
        folder = self._buckets / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def connection(self, **extra: Any) -> str:
        """An Airflow connection as JSON, for ``AIRFLOW_CONN_...`` or ``airflow connections add --conn-json``.

        :param extra: what else its extra is to hold.
        """
        return json.dumps(self._connection | {"extra": self._connection["extra"] | extra})


@pytest.fixture(scope="session")
def lookoutvision_service() -> Iterator[Service | None]:
    """The service of the session; None when ``LOOKOUTVISION_TEST_SERVICE`` names one that is running."""
    if service_url():
        yield None
        return
    with running_service() as service:
        yield service


@pytest.fixture
def lookoutvision(
    lookoutvision_service: Service | None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LookoutVision]:
    """A service, a client, and the connection ``aws_default``; what the test makes is deleted afterwards."""
    found = _found(lookoutvision_service)
    monkeypatch.setenv(f"AIRFLOW_CONN_{found.conn_id.upper()}", found.connection())
    before = _projects(found.client)
    yield found
    for name in _projects(found.client) - before:
        _delete_project(found.client, name)


def _found(service: Service | None) -> LookoutVision:
    if service is None:
        endpoint_url = os.environ[SERVICE_VARIABLE]
        session = boto3.Session(region_name=os.environ.get("AWS_DEFAULT_REGION", REGION))
    else:
        endpoint_url = service.endpoint_url
        key = service.new_key(account=f"{secrets.randbelow(10**12):012}")
        session = boto3.Session(key.access_key_id, key.secret_access_key, region_name=REGION)
    credentials = session.get_credentials()
    if credentials is None:
        raise RuntimeError(
            f"{SERVICE_VARIABLE} names a running service, but boto3 finds no access key for it"
        )
    connection = {
        "conn_type": "aws",
        "login": credentials.access_key,
        "password": credentials.secret_key,
        "extra": {
            "region_name": session.region_name,
            "service_config": {"lookoutvision": {"endpoint_url": endpoint_url}},
        },
    }
    return LookoutVision(
        endpoint_url,
        teach(session).client("lookoutvision", endpoint_url=endpoint_url),
        "aws_default",
        service.data_dir / "buckets" if service else None,
        connection,
    )


def _projects(client: Any) -> set[str]:
    pages = client.get_paginator("list_projects").paginate()
    return {project["ProjectName"] for page in pages for project in page["Projects"]}


def _delete_project(client: Any, name: str) -> None:
    of_project = {"ProjectName": name}
    for page in client.get_paginator("list_models").paginate(**of_project):
        for model in page["Models"]:
            this = of_project | {"ModelVersion": model["ModelVersion"]}
            if model["Status"] in ("STARTING_HOSTING", "HOSTED"):
                client.stop_model(**this)
            if model["Status"] in ("STARTING_HOSTING", "HOSTED", "STOPPING_HOSTING"):
                client.get_waiter("model_stopped").wait(**this, WaiterConfig=_WAIT)
            client.delete_model(**this)
    for dataset in client.describe_project(**of_project)["ProjectDescription"]["Datasets"]:
        this = of_project | {"DatasetType": dataset["DatasetType"]}
        while client.describe_dataset(**this)["DatasetDescription"]["Status"].endswith("IN_PROGRESS"):
            time.sleep(0.2)
        client.delete_dataset(**this)
    client.delete_project(**of_project)
