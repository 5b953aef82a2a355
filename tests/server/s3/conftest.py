"""A running service whose folder buckets are served as S3, clients of it, and a moto server to compare with.

=============== ======== ===============================================================================
``s3_service``  session  the running service
``s3``          test     a boto3 client of it, with a key that may do everything
``bucket``      test     the name of a bucket that no other test has; ``folder`` is its folder
``moto_s3``     session  a boto3 client of a moto server
``signed``      test     sends what no boto3 sends
=============== ======== ===============================================================================
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from moto.server import ThreadedMotoServer
from s3_clients import Signed, s3_client
from services import first_key_of

from airflow_provider_lookoutvision.testing.service import Key, Service, running_service


@pytest.fixture(scope="session")
def s3_service() -> Iterator[Service]:
    with running_service(flags=["--no-worker"]) as service:
        yield service


@pytest.fixture(scope="session")
def s3(s3_service: Service) -> Any:
    return s3_client(s3_service.endpoint_url, first_key_of(s3_service))


@pytest.fixture
def bucket(s3: Any) -> str:
    name = f"bucket-{secrets.token_hex(8)}"
    s3.create_bucket(Bucket=name)
    return name


@pytest.fixture
def folder(s3_service: Service, bucket: str) -> Path:
    return s3_service.data_dir / "buckets" / bucket


@pytest.fixture(scope="session")
def moto_s3() -> Iterator[Any]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield s3_client(f"http://{host}:{port}", Key("a", "b", "123456789012"))
    server.stop()


@pytest.fixture
def signed(s3_service: Service, bucket: str) -> Signed:
    return Signed(s3_service, bucket)
