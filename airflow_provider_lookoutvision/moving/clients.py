"""The clients of a service and of the S3 beside it, as the AWS configuration and the command's flags say."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from botocore import exceptions
from botocore.config import Config
from botocore.session import Session

from airflow_provider_lookoutvision.model import SERVICE_NAME, register_service_model
from airflow_provider_lookoutvision.model.endpoints import is_ended_service, is_of_aws
from airflow_provider_lookoutvision.moving.errors import MovingError

_CONFIG = {"connect_timeout": 10, "read_timeout": 120, "max_pool_connections": 20}
_RETRIES = {"mode": "standard", "total_max_attempts": 5}


@dataclass(frozen=True)
class Clients:
    """Makes them when they are needed.

    :param endpoint_url: of the service; by default what the AWS configuration says.
    :param s3_endpoint_url: of S3; by default what the AWS configuration says for S3, and without that the
        service's, which is its own S3.
    """

    endpoint_url: str | None = None
    s3_endpoint_url: str | None = None
    region: str | None = None
    profile: str | None = None
    s3_profile: str | None = None

    @cached_property
    def service(self) -> Any:
        """The client of the service.

        :raises MovingError: when there is no region or no usable endpoint.
        """
        client = self._made(SERVICE_NAME, self.profile, self.endpoint_url)
        if is_ended_service(client.meta.endpoint_url):
            raise MovingError(
                "No endpoint is configured for Lookout for Vision, and AWS's is gone. Name a service's: "
                "--endpoint-url http://127.0.0.1:8320, or the variable AWS_ENDPOINT_URL_LOOKOUTVISION"
            )
        return client

    @cached_property
    def s3(self) -> Any:
        """The client of S3. A key of the service isn't sent to AWS unless its URL is given."""
        profile = self.s3_profile or self.profile
        client = self._made("s3", profile, self.s3_endpoint_url)
        if self.s3_endpoint_url is None and self.s3_profile is None and is_of_aws(client.meta.endpoint_url):
            client = self._made("s3", profile, self.service.meta.endpoint_url)
        return client

    def _made(self, name: str, profile: str | None, endpoint_url: str | None) -> Any:
        session = register_service_model(Session(profile=profile))
        own = {"s3": {"addressing_style": "path"}} if endpoint_url and not is_of_aws(endpoint_url) else {}
        try:
            client = session.create_client(
                name,
                region_name=self.region,
                endpoint_url=endpoint_url,
                config=Config(retries=_RETRIES, **_CONFIG, **own),
            )
            if session.get_credentials() is None:
                raise exceptions.NoCredentialsError
        except exceptions.NoRegionError as error:
            raise MovingError(
                "No region is configured: --region, or the variable AWS_DEFAULT_REGION"
            ) from error
        except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError) as error:
            raise MovingError(
                f"{error}. A service writes its first key to `credentials` in its data directory: set "
                "AWS_SHARED_CREDENTIALS_FILE to that, or make a key with `lookoutvision keys create`"
            ) from error
        except (exceptions.BotoCoreError, ValueError) as error:
            raise MovingError(str(error)) from error
        return client
