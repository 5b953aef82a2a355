"""Clients of the S3 that the service serves."""

from __future__ import annotations

import hashlib
from http.client import HTTPConnection
from typing import Any
from urllib.parse import quote

import boto3
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from services import first_key_of
from signed_http import HttpResponse

from airflow_provider_lookoutvision.testing.service import Key, Service

REGION = "us-east-1"


def s3_client(endpoint_url: str, key: Key, *, region: str = REGION, **config: Any) -> Any:
    """A boto3 client as users have it, but that it sends each request once, so that a fault shows."""
    return boto3.client(
        "s3",
        endpoint_url=endpoint_url,
        aws_access_key_id=key.access_key_id,
        aws_secret_access_key=key.secret_access_key,
        region_name=region,
        config=Config(**{"retries": {"total_max_attempts": 1}, "max_pool_connections": 20, **config}),
    )


def refusal(call: Any, **members: Any) -> tuple[str, int]:
    with pytest.raises(ClientError) as caught:
        call(**members)
    error = caught.value.response
    return error["Error"]["Code"], error["ResponseMetadata"]["HTTPStatusCode"]


def md5(content: bytes) -> str:
    """The ETag of an object of one part."""
    return f'"{hashlib.md5(content).hexdigest()}"'


def keys_of(s3: Any, bucket: str, **members: Any) -> list[str]:
    """All keys of a bucket, in the order of the pages."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, **members)
    return [each["Key"] for page in pages for each in page.get("Contents", [])]


def refusal_and_message(call: Any, **members: Any) -> tuple[str, int, str]:
    with pytest.raises(ClientError) as caught:
        call(**members)
    error = caught.value.response
    return (
        error["Error"]["Code"],
        error["ResponseMetadata"]["HTTPStatusCode"],
        error["Error"].get("Message", ""),
    )


class Signed:
    """Sends requests as no boto3 does, over plain HTTP."""

    def __init__(self, service: Service, bucket: str) -> None:
        self.service, self.bucket, self.key = service, bucket, first_key_of(service)

    def head(self, path: str, payload: str, headers: dict[str, str]) -> AWSRequest:
        class Auth(S3SigV4Auth):
            def payload(self, request: Any) -> str:
                return payload

        url = f"{self.service.endpoint_url}/{self.bucket}/{quote(path)}"
        request = AWSRequest(method="PUT", url=url, headers=headers)
        auth = Auth(Credentials(self.key.access_key_id, self.key.secret_access_key), "s3", "us-east-1")
        request.context["payload_signing_enabled"] = True
        auth.add_auth(request)
        return request

    def put(self, path: str, payload: str, headers: dict[str, str], body: bytes) -> HttpResponse:
        return self.send(self.head(path, payload, headers), path, body)

    def send(self, request: AWSRequest, path: str, body: bytes) -> HttpResponse:
        connection = HTTPConnection("127.0.0.1", self.service.port, timeout=60)
        connection.putrequest("PUT", f"/{self.bucket}/{quote(path)}", skip_accept_encoding=True)
        for name, value in request.headers.items():
            connection.putheader(name, value)
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        return HttpResponse(answer.status, dict(answer.getheaders()), answer.read())
