"""What the fixtures of ``conftest.py`` give: the types of their functions, clients, a service's storage."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from airflow_provider_lookoutvision.model import teach
from airflow_provider_lookoutvision.server.calls import access
from airflow_provider_lookoutvision.server.settings import Settings
from airflow_provider_lookoutvision.server.storage.database import Database
from airflow_provider_lookoutvision.server.storage.encryption import Cipher
from airflow_provider_lookoutvision.server.storage.opening import opened
from airflow_provider_lookoutvision.server.storage.wildcards import EVERYTHING
from airflow_provider_lookoutvision.testing.service import Key, Service

REGION = "eu-central-1"

NewDatabase = Callable[[], list[str]]
NewKey = Callable[..., Key]
MakeClient = Callable[..., Any]
NewService = Callable[..., Service]


@dataclass(frozen=True)
class Storage:
    """What a service keeps, opened beside it."""

    database: Database
    cipher: Cipher

    def new_key(
        self,
        account: str = "123456789012",
        *,
        allow: Sequence[str] = EVERYTHING,
        project: Sequence[str] = EVERYTHING,
        bucket: Sequence[str] | None = EVERYTHING,
    ) -> Key:
        """Make an access key, as ``lookoutvision keys create`` does; for all buckets, unlike that."""
        with self.database.write() as connection:
            key, secret = access.create_key(
                connection,
                self.cipher,
                account_id=account,
                allowed_actions=allow,
                allowed_projects=project,
                allowed_buckets=bucket,
            )
        return Key(key.access_key_id, secret, account)


@contextmanager
def storage_of(service: Service) -> Iterator[Storage]:
    """What a service keeps, open while the block runs."""
    url = (
        service.flags[service.flags.index("--database-url") + 1] if "--database-url" in service.flags else ""
    )
    with opened(Settings(data_dir=service.data_dir, database_url=url)) as (database, cipher):
        yield Storage(database, cipher)


def beside(service: Service, folder: Path) -> tuple[Path, list[str]]:
    """A data directory and flags for another process with the database, the key and the buckets of one."""
    folder.mkdir()
    shutil.copy(service.data_dir / "secret.key", folder)
    buckets = service.data_dir / "buckets"
    buckets.mkdir(exist_ok=True)
    (folder / "buckets").symlink_to(buckets)
    if "--database-url" in service.flags:
        return folder, [*service.flags]
    return folder, [*service.flags, "--database-url", f"sqlite:///{service.data_dir / 'lookoutvision.db'}"]


def client_of(
    endpoint_url: str,
    key: Key,
    *,
    region: str = REGION,
    attempts: int = 1,
    verify: str | bool | None = None,
    **config: Any,
) -> Any:
    """A boto3 client for a key; by default it sends each request once, so that a fault shows."""
    return _boto_session().client(
        "lookoutvision",
        region_name=region,
        endpoint_url=endpoint_url,
        verify=verify,
        aws_access_key_id=key.access_key_id,
        aws_secret_access_key=key.secret_access_key,
        config=Config(
            retries={"total_max_attempts": attempts, "mode": "standard"},
            **{"connect_timeout": 10, "read_timeout": 60, "max_pool_connections": 40, **config},
        ),
    )


def leave_bodies_unsigned(client: Any) -> None:
    """Let a boto3 client sign ``UNSIGNED-PAYLOAD``, as the SDK for JavaScript does with a stream."""

    def leave_unsigned(request: Any, **_: Any) -> None:
        request.headers["X-Amz-Content-SHA256"] = "UNSIGNED-PAYLOAD"

    client.meta.events.register("before-sign.lookoutvision", leave_unsigned)


@cache
def _boto_session() -> boto3.Session:
    return teach(boto3.Session())


def first_key_of(service: Service) -> Key:
    """The first key that a service made."""
    return Key(service.access_key_id, service.secret_access_key, "123456789012")
