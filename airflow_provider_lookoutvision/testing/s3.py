"""A client of the S3 that a service serves its folder buckets as.

::

    with running_service() as service:
        s3 = s3_client(service, "images")
        s3.put_object(Bucket="images", Key="train.manifest", Body=...)
"""

from __future__ import annotations

from typing import Any

import boto3

from airflow_provider_lookoutvision.testing.service import Service

_REGION = "us-east-1"


def s3_client(service: Service, *buckets: str) -> Any:
    """A boto3 client of the service's S3, with its first key.

    :param buckets: to be made, if they aren't there.
    """
    client = boto3.client(
        "s3",
        endpoint_url=service.endpoint_url,
        aws_access_key_id=service.access_key_id,
        aws_secret_access_key=service.secret_access_key,
        region_name=_REGION,
    )
    for bucket in buckets:
        client.create_bucket(Bucket=bucket)
    return client
