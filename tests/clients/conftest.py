"""A service with accounts to compare clients in; a hosted model, and what a program needs to use it and S3.

============= ======== =================================================================================
``old_boto3`` session  the Python of an environment with the last boto3 and AWS CLI that have the service
``environ``   test     ``environ(account)``: the variables of a program, of a service without a worker
``inspector`` session  a project with a model that is hosted (``model_fixtures.ModelProject``)
``plant``     test     the variables of a program that uses the model and S3 with one key
============= ======== =================================================================================
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from environments import python_with
from services import REGION, Storage, storage_of

from airflow_provider_lookoutvision.testing.service import Service, running_service

# boto3 1.40.60 has the model too, but no awscli goes with it.
PACKAGES = ("boto3==1.40.59", "botocore==1.40.59", "awscli==1.42.59")

Environ = Callable[..., dict[str, str]]


@pytest.fixture(scope="session")
def old_boto3() -> Path:
    return python_with("boto3-1.40.59", *PACKAGES)


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


@pytest.fixture(scope="session")
def inspector(classifier: Any) -> Any:
    """The trained model of ``model_fixtures``, hosted."""
    classifier.start()
    assert classifier.ended("1", "STARTING_HOSTING")["Status"] == "HOSTED"
    return classifier


@pytest.fixture
def plant(inspector: Any) -> dict[str, str]:
    """One key for both services, at one URL, and where the images are: what a program has."""
    key = inspector.training_service.new_key(inspector.account)
    url = inspector.training_service.service.endpoint_url
    return {
        **os.environ,
        "AWS_ACCESS_KEY_ID": key.access_key_id,
        "AWS_SECRET_ACCESS_KEY": key.secret_access_key,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_REGION": REGION,
        "AWS_ENDPOINT_URL_LOOKOUTVISION": url,
        "AWS_ENDPOINT_URL_S3": url,
        "ENDPOINT_URL": url,  # for programs that pass it, since their SDK reads no variable
        "BUCKET": inspector.bucket,
        "PROJECT": inspector.name,
        "NORMAL": "normal-100.jpg",
        "ANOMALY": "scratched-100.jpg",
    }
