"""A pytest plugin for tests of DAGs and clients: a real service, a connection, a client, and a clean-up.

In a ``conftest.py``::

    pytest_plugins = ["airflow_provider_lookoutvision.testing.plugin"]

In a test::

    def test_my_dag(lookoutvision):
        lookoutvision.bucket("images").joinpath("train.manifest").write_text(...)
        DagBag(...).get_dag("my_dag").test()
        assert lookoutvision.client.describe_project(ProjectName="circuit-boards")

``lookoutvision_s3`` is the same for DAGs that use S3: the service's buckets are in an S3 of the test's own,
and the connection has both endpoints.

The service is a process of its own, and needs the extras ``server`` and ``engine`` in this environment. If
this environment's Airflow is too old for them, or a service is already running, set the environment variable
``LOOKOUTVISION_TEST_SERVICE``: to the command ``lookoutvision`` of another environment, or to the URL of the
service, whose access key boto3 then finds in its usual places.
"""

from __future__ import annotations

import json
import os
import secrets
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
    """What the fixtures ``lookoutvision`` and ``lookoutvision_s3`` return.

    :param endpoint_url: where the API is.
    :param client: a boto3 client, with an account that no other test uses; with yours, if the service was
        already running.
    :param conn_id: the Airflow connection to it: ``aws_default``.
    :param s3: a boto3 client of the S3 with the buckets; ``lookoutvision_s3`` only.
    """

    endpoint_url: str
    client: Any
    conn_id: str
    s3: Any
    _buckets: Path | None
    _connection: dict[str, Any] = field(repr=False, default_factory=dict)

    def bucket(self, name: str) -> Path:
        """The folder that is the service's bucket ``name``; it is created if it doesn't exist.

        :raises RuntimeError: when the buckets are in S3, or belong to a service that was already running,
            whose folders aren't known here.
        """
        if self._buckets is None:
            where = "in S3" if self.s3 else f"those of the service that {SERVICE_VARIABLE} names"
            raise RuntimeError(f"there is no folder for {name} here: the buckets are {where}")
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
    """A service whose buckets are folders, a client, and the connection ``aws_default``.

    The projects of the test are deleted afterwards; but not on a service that was already running, where they
    may be somebody else's.
    """
    service = lookoutvision_service
    if service is None:
        found = _found(os.environ[SERVICE_VARIABLE], _own_session())
    else:
        key = service.new_key(account=f"{secrets.randbelow(10**12):012}")
        session = boto3.Session(key.access_key_id, key.secret_access_key, region_name=REGION)
        found = _found(service.endpoint_url, session, buckets=service.data_dir / "buckets")
    before = found._projects()
    monkeypatch.setenv(f"AIRFLOW_CONN_{found.conn_id.upper()}", found.connection())
    yield found
    made = sorted(found._projects() - before)
    if service is not None:
        for name in made:
            found.delete_project(name)
    elif made:
        warnings.warn(
            f"{found.endpoint_url} has new projects since this test began, created by it or by somebody "
            f"else: {', '.join(made)}. They are not deleted: call lookoutvision.delete_project(name)",
            stacklevel=1,
        )


@pytest.fixture
def lookoutvision_s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[LookoutVision]:
    """A service whose buckets are in S3, clients of both, and the connection ``aws_default`` to both.

    Service and S3 are the test's own, and are deleted afterwards. It needs ``moto[server]``.
    """
    # Imported here, so that the other fixtures work without moto.
    from airflow_provider_lookoutvision.testing.s3 import running_s3, running_service_on

    with running_s3() as s3, running_service_on(s3) as service:
        session = boto3.Session(service.access_key_id, service.secret_access_key, region_name=REGION)
        found = _found(service.endpoint_url, session, s3=s3)
        monkeypatch.setenv(f"AIRFLOW_CONN_{found.conn_id.upper()}", found.connection())
        yield found


def _own_session() -> boto3.Session:
    session = boto3.Session(region_name=os.environ.get("AWS_DEFAULT_REGION", REGION))
    if session.get_credentials() is None:
        raise RuntimeError(
            f"{SERVICE_VARIABLE} names a running service, but boto3 finds no access key for it"
        )
    return session


def _found(
    endpoint_url: str, session: boto3.Session, *, s3: Any = None, buckets: Path | None = None
) -> LookoutVision:
    credentials = session.get_credentials()
    services = {"lookoutvision": endpoint_url} | ({"s3": s3.meta.endpoint_url} if s3 else {})
    connection = {
        "conn_type": "aws",
        "login": credentials.access_key,
        "password": credentials.secret_key,
        "extra": {
            "region_name": session.region_name,
            "service_config": {name: {"endpoint_url": url} for name, url in services.items()},
        },
    }
    client = register_service_model(session).client("lookoutvision", endpoint_url=endpoint_url)
    return LookoutVision(endpoint_url, client, "aws_default", s3, buckets, connection)


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    both = {
        name: _merged(old[name], value)
        for name, value in new.items()
        if isinstance(value, Mapping) and isinstance(old.get(name), Mapping)
    }
    return {**old, **new, **both}
