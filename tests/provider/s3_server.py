"""An S3 for tests, of moto, with buckets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
from moto.server import ThreadedMotoServer


@contextmanager
def running_s3(*buckets: str) -> Iterator[Any]:
    """A client of an S3 that runs inside the block and has these buckets, which are empty."""
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    client = boto3.client(
        "s3",
        endpoint_url="http://{}:{}".format(*server.get_host_and_port()),
        aws_access_key_id="a",
        aws_secret_access_key="b",
        region_name="us-east-1",
    )
    for bucket in buckets:
        client.create_bucket(Bucket=bucket)
    yield client
    server.stop()
