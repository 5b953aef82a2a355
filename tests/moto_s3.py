"""An S3 that isn't the service's own: moto's; and a service with its buckets there.

::

    with running_s3("images") as s3, running_service_on(s3) as service:
        s3.put_object(Bucket="images", Key="train.manifest", Body=...)
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import boto3
from moto.server import ThreadedMotoServer

from airflow_provider_lookoutvision.testing.service import Service, running_service

_REGION = "us-east-1"


@contextmanager
def running_s3(*buckets: str) -> Iterator[Any]:
    """A client of an S3 that runs inside the block and has these buckets, which are empty.

    It accepts any access key. moto keeps the objects in this process, and deletes them all after the block.
    """
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # else it logs every request
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    try:
        client = boto3.client(
            "s3",
            endpoint_url=url,
            aws_access_key_id="a",
            aws_secret_access_key="b",
            region_name=_REGION,
        )
        for bucket in buckets:
            client.create_bucket(Bucket=bucket)
        yield client
    finally:
        urlopen(Request(f"{url}/moto-api/reset", method="POST")).close()
        server.stop()


def running_service_on(s3: Any, data_dir: Path | None = None) -> AbstractContextManager[Service]:
    """A service that runs inside the block, with its buckets in that S3.

    :param s3: a client, as of ``running_s3``.
    :param data_dir: its data directory, as of ``running_service``.
    """
    return running_service(
        data_dir,
        flags=("--buckets", "s3", "--s3-endpoint-url", s3.meta.endpoint_url),
        environ={"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": _REGION},
    )
