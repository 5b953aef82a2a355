"""A service that is its own S3, whose S3 checks keys, and the command as its user has it.

============= ======== =================================================================================
``service``   session  the running service
``lookout``   test     the command: ``lookout("import", ...)``, with an account and a key of the test's own
============= ======== =================================================================================
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
from command_line import Outcome, run_command
from services import REGION, Storage, client_of, storage_of

from airflow_provider_lookoutvision.testing.service import Key, Service, running_service


@dataclass
class Lookout:
    """The command, for a key of a service."""

    service: Service
    key: Key
    client: Any
    s3: Any
    bucket: str = field(default_factory=lambda: f"moved-{secrets.token_hex(4)}")

    @property
    def to(self) -> list[str]:
        """Where files go: a bucket that is made."""
        return ["--to", f"s3://{self.bucket}/line-1/", "--create-bucket"]

    def __call__(self, *arguments: str | Path) -> Outcome:
        return run_command(*arguments, "--endpoint-url", self.service.endpoint_url)

    def entries(self, project: str, dataset: str = "train") -> list[dict[str, Any]]:
        """The entries of a dataset."""

        pages = self.client.get_paginator("list_dataset_entries").paginate(
            ProjectName=project, DatasetType=dataset
        )
        return [json.loads(line) for page in pages for line in page["DatasetEntries"]]

    def read(self, uri: str) -> bytes:
        """An object."""
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        content: bytes = self.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        return content


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
    s3 = boto3.client("s3", endpoint_url=service.endpoint_url)
    return Lookout(service, key, client_of(service.endpoint_url, key), s3)
