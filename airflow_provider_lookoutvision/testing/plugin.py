"""A pytest plugin for tests of DAGs and clients: a real service, a connection, a client, and a clean-up.

In a ``conftest.py``::

    pytest_plugins = ["airflow_provider_lookoutvision.testing.plugin"]

In a test::

    def test_my_dag(lookoutvision):
        lookoutvision.bucket("images").joinpath("train.manifest").write_text(...)
        DagBag(...).get_dag("my_dag").test()
        assert lookoutvision.client.describe_project(ProjectName="circuit-boards")

The service is its own S3: the connection is for both, and ``lookoutvision.s3`` is a client of it.

The service is a process of its own, and needs the extras ``server`` and ``engine`` in this environment. If
this environment's Airflow is too old for them, or a service is already running, set the environment variable
``LOOKOUTVISION_TEST_SERVICE``: to the command ``lookoutvision`` of another environment, or to the URL of the
service, whose access key boto3 then finds in its usual places.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest

from airflow_provider_lookoutvision.model import register_service_model
from airflow_provider_lookoutvision.testing import cleanup
from airflow_provider_lookoutvision.testing.service import (
    SERVICE_VARIABLE,
    Service,
    running_service,
    service_url,
)

REGION = "us-east-1"


@dataclass
class LookoutVision:
    """What the fixture ``lookoutvision`` returns.

    :param endpoint_url: where the API and the S3 are.
    :param client: a boto3 client, with an account that no other test uses; with yours, if the service was
        already running.
    :param conn_id: the Airflow connection to it: ``aws_default``.
    :param s3: a boto3 client of the service's S3, with the same key.
    """

    endpoint_url: str
    client: Any
    conn_id: str
    s3: Any
    _buckets: Path | None
    _connection: dict[str, Any] = field(repr=False, default_factory=dict)

    def bucket(self, name: str) -> Path:
        """The folder that is the service's bucket ``name``; it is created if it doesn't exist.

        :raises RuntimeError: when they belong to a service that was already running, whose folders aren't
            known here.
        """
        if self._buckets is None:
            raise RuntimeError(
                f"there is no folder for {name} here: the buckets are those of the service that "
                f"{SERVICE_VARIABLE} names. Use lookoutvision.s3"
            )
        folder = self._buckets / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def connection(self, **extra: Any) -> str:
        """An Airflow connection as JSON, for ``AIRFLOW_CONN_...`` or ``airflow connections add --conn-json``.

        :param extra: additions to its extra; ``service_config={"s3": {...}}`` is merged with the endpoints.
        """
        return json.dumps(self._connection | {"extra": _merged(self._connection["extra"], extra)})

    def delete_project(self, name: str) -> None:
        """Delete a project with everything in it. A missing project is no error.

        :raises TimeoutError: when something in it is still busy after two minutes.
        """
        cleanup.delete_project(self.client, name)

    def _projects(self) -> set[str]:
        pages = self.client.get_paginator("list_projects").paginate()
        return {project["ProjectName"] for page in pages for project in page["Projects"]}

    def _bucket_names(self) -> set[str]:
        folder = self._buckets
        return {path.name for path in folder.iterdir()} if folder and folder.exists() else set()


@pytest.fixture(scope="session")
def lookoutvision_service() -> Iterator[Service | None]:
    """The service of the session; None when ``LOOKOUTVISION_TEST_SERVICE`` names a running one."""
    if service_url():
        yield None
        return
    with running_service() as service:
        yield service


@pytest.fixture
def lookoutvision(
    lookoutvision_service: Service | None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LookoutVision]:
    """A service, clients of its API and its S3, and the connection ``aws_default`` to both.

    The projects and buckets of the test are deleted afterwards; but not on a service that was already
    running, where they may be somebody else's.
    """
    service = lookoutvision_service
    if service is None:
        found = _found(os.environ[SERVICE_VARIABLE], _own_session())
    else:
        key = service.new_key(account=f"{secrets.randbelow(10**12):012}")
        session = boto3.Session(key.access_key_id, key.secret_access_key, region_name=REGION)
        found = _found(service.endpoint_url, session, buckets=service.data_dir / "buckets")
    before, buckets = found._projects(), found._bucket_names()
    monkeypatch.setenv(f"AIRFLOW_CONN_{found.conn_id.upper()}", found.connection())
    yield found
    made = sorted(found._projects() - before)
    if service is not None:
        for name in made:
            found.delete_project(name)
        for bucket in found._bucket_names() - buckets:
            shutil.rmtree(found.bucket(bucket))
    elif made:
        warnings.warn(
            f"{found.endpoint_url} has new projects since this test began, created by it or by somebody "
            f"else: {', '.join(made)}. They are not deleted: call lookoutvision.delete_project(name)",
            stacklevel=1,
        )


def _own_session() -> boto3.Session:
    session = boto3.Session(region_name=os.environ.get("AWS_DEFAULT_REGION", REGION))
    if session.get_credentials() is None:
        raise RuntimeError(
            f"{SERVICE_VARIABLE} names a running service, but boto3 finds no access key for it"
        )
    return session


def _found(endpoint_url: str, session: boto3.Session, *, buckets: Path | None = None) -> LookoutVision:
    credentials = session.get_credentials()
    connection = {
        "conn_type": "aws",
        "login": credentials.access_key,
        "password": credentials.secret_key,
        "extra": {
            "region_name": session.region_name,
            "endpoint_url": endpoint_url,
        },
    }
    s3 = session.client("s3", endpoint_url=endpoint_url)
    client = register_service_model(session).client("lookoutvision", endpoint_url=endpoint_url)
    return LookoutVision(endpoint_url, client, "aws_default", s3, buckets, connection)


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    both = {
        name: _merged(old[name], value)
        for name, value in new.items()
        if isinstance(value, Mapping) and isinstance(old.get(name), Mapping)
    }
    return {**old, **new, **both}
