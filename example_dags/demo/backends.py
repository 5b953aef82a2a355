"""What the demo's Airflow talks to: a service, on a free port of this machine, which is its S3 too."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

from airflow_provider_lookoutvision.model import register_service_model
from airflow_provider_lookoutvision.testing.s3 import s3_client
from airflow_provider_lookoutvision.testing.service import SERVICE_VARIABLE, Service, running_service

REGION = "us-east-1"
IMAGES, RESULTS = "images", "results"
SENDS_PER_TRY = 2
_OTHERS = ("AIRFLOW", "AWS_", "BOTO_", "LOOKOUTVISION_", "HTTP_PROXY", "ALL_PROXY")


@dataclass(frozen=True)
class Backends:
    """The service, and clients of it; ``s3`` is that of its S3."""

    service: Service
    s3: Any

    @property
    def client(self) -> Any:
        """A client of the service, to look on with."""
        return register_service_model(boto3.Session()).client(
            "lookoutvision",
            endpoint_url=self.service.endpoint_url,
            region_name=REGION,
            aws_access_key_id=self.service.access_key_id,
            aws_secret_access_key=self.service.secret_access_key,
        )

    def connection(self, endpoint_url: str | None = None) -> dict[str, Any]:
        """The Amazon connection, as Airflow's JSON form has it.

        :param endpoint_url: where the API is, if it isn't where the S3 is.
        """
        api = {"service_config": {"lookoutvision": {"endpoint_url": endpoint_url}}} if endpoint_url else {}
        return {
            "conn_type": "aws",
            "login": self.service.access_key_id,
            "password": self.service.secret_access_key,
            "extra": {
                "region_name": REGION,
                "endpoint_url": self.service.endpoint_url,
                **api,
                "config_kwargs": {"retries": {"mode": "standard", "total_max_attempts": SENDS_PER_TRY}},
            },
        }


def leave_settings_of_others() -> None:
    """Forget what the caller's shell sets for Airflow, AWS or the service: it must not lead to a real one.

    All but ``LOOKOUTVISION_TEST_SERVICE``, the command of a service in another environment.
    """
    for name in [name for name in os.environ if name.upper().startswith(_OTHERS)]:
        if name != SERVICE_VARIABLE:
            del os.environ[name]
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"


@contextmanager
def running_backends(folder: Path) -> Iterator[Backends]:
    """A service with empty buckets, inside the block.

    :raises ServiceFailed: when the service doesn't start.
    """
    with running_service(folder) as service:
        yield Backends(service, s3_client(service, IMAGES, RESULTS))
