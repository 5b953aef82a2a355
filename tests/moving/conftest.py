"""A service that is its own S3, whose S3 checks keys, and the command as its user has it.

============= ======== =================================================================================
``service``   session  the running service
``lookout``   test     the command: ``lookout("import", ...)``, with an account and a key of the test's own
============= ======== =================================================================================
"""

from __future__ import annotations

from collections.abc import Iterator

import boto3
import pytest
from lookout import Lookout
from services import REGION, Storage, client_of, storage_of

from airflow_provider_lookoutvision.testing.service import Service, running_service


@pytest.fixture(scope="session")
def service() -> Iterator[Service]:
    with running_service() as service:
        yield service


@pytest.fixture(scope="session")
def storage(service: Service) -> Iterator[Storage]:
    with storage_of(service) as storage:
        yield storage


@pytest.fixture
def lookout(service: Service, storage: Storage, account: str, monkeypatch: pytest.MonkeyPatch) -> Lookout:
    key = storage.new_key(account)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key.secret_access_key)
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    # Not of the default session, which has the key of an earlier test.
    s3 = boto3.Session().client("s3", endpoint_url=service.endpoint_url)
    return Lookout(service, key, client_of(service.endpoint_url, key), s3)
