"""An environment with the last boto3 that has its own model, and a service with accounts to compare in."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from services import REGION, Storage, storage_of

from airflow_provider_lookoutvision.testing.service import Service, running_service

# boto3 1.40.60 has the model too, but no awscli goes with it.
PACKAGES = ("boto3==1.40.59", "botocore==1.40.59", "awscli==1.42.59")

Environ = Callable[..., dict[str, str]]


@pytest.fixture(scope="session")
def old_boto3(pytestconfig: pytest.Config) -> Path:
    """The Python of that environment, made once and kept beside ``.venv``."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    folder = pytestconfig.rootpath / f".venv-boto3-1.40.59-python{version}"
    python, complete = folder / "bin" / "python", folder / "complete"
    if not complete.exists():
        venv.create(folder, clear=True, with_pip=not _uv(), symlinks=True)
        installer = (
            [*_uv(), "pip", "install", "--python", python] if _uv() else [python, "-m", "pip", "install"]
        )
        subprocess.run([*installer, "--quiet", *PACKAGES], check=True, timeout=600)
        complete.touch()
    return python


def _uv() -> list[str]:
    try:
        from uv import find_uv_bin
    except ImportError:
        return []
    return [os.fsdecode(find_uv_bin())]


@pytest.fixture(scope="module")
def compared_service() -> Iterator[Service]:
    with running_service(flags=["--no-worker"]) as service:
        yield service


@pytest.fixture(scope="module")
def compared_storage(compared_service: Service) -> Iterator[Storage]:
    with storage_of(compared_service) as storage:
        yield storage


@pytest.fixture
def environ(compared_service: Service, compared_storage: Storage) -> Environ:
    """``environ(account, **more)``: all that a program needs to use the service with a key of the account."""

    def environ(account: str, **more: str) -> dict[str, str]:
        key = compared_storage.new_key(account)
        return {
            **os.environ,
            "AWS_ACCESS_KEY_ID": key.access_key_id,
            "AWS_SECRET_ACCESS_KEY": key.secret_access_key,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL_LOOKOUTVISION": compared_service.endpoint_url,
            **more,
        }

    return environ
