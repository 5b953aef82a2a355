"""Buckets in S3: objects, versions, and whether an error is a fault of the input."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3
import pytest
from bucket_contents import MOST, content_of, error_of
from moto_s3 import running_s3
from services import NewKey

from airflow_provider_lookoutvision.server.storage import s3_store
from airflow_provider_lookoutvision.server.storage.buckets import BucketError, Buckets, Location
from airflow_provider_lookoutvision.server.storage.s3_store import S3Store
from airflow_provider_lookoutvision.testing.service import Service


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    with running_s3() as client:
        yield client.meta.endpoint_url


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    s3_store._s3_client.cache_clear()
    yield
    s3_store._s3_client.cache_clear()


@pytest.fixture
def s3(s3_endpoint: str, aws: None) -> Iterator[Any]:
    client = boto3.client("s3", endpoint_url=s3_endpoint)
    client.create_bucket(Bucket="parts")
    client.put_bucket_versioning(Bucket="parts", VersioningConfiguration={"Status": "Enabled"})
    yield client
    for version in client.list_object_versions(Bucket="parts").get("Versions", []):
        client.delete_object(Bucket="parts", Key=version["Key"], VersionId=version["VersionId"])
    client.close()


def test_objects_of_s3_and_their_versions(s3: Any, s3_endpoint: str) -> None:
    buckets = Buckets(S3Store(s3_endpoint), ["*"])
    first = s3.put_object(Bucket="parts", Key="a/k.manifest", Body=b"first")["VersionId"]
    buckets.write(Location("parts", "a/k.manifest"), b"second")
    assert content_of(buckets, "a/k.manifest") == b"second"
    assert content_of(buckets, "a/k.manifest", version=first) == b"first"
    large = os.urandom(17 << 20)  # more than is kept in memory
    s3.put_object(Bucket="parts", Key="large", Body=large)
    with buckets.open(Location("parts", "large"), len(large)) as stream:
        assert stream.readline(100) == large[: large.find(b"\n") + 1][:100]
        stream.seek(0)
        assert stream.read() == large


@pytest.mark.parametrize(
    ("key", "bucket", "version", "message"),
    [
        ("nothing", "parts", None, "s3://parts/nothing does not exist"),
        ("k", "nobucket", None, "s3://nobucket/k does not exist"),
    ],
)
def test_what_s3_does_not_have(
    key: str, bucket: str, version: str | None, message: str, s3: Any, s3_endpoint: str
) -> None:
    error = error_of(Buckets(S3Store(s3_endpoint), ["*"]), key, bucket, version)
    assert (error.input, str(error)) == (True, message)
    if bucket == "nobucket":
        with pytest.raises(BucketError) as caught:
            Buckets(S3Store(s3_endpoint), ["*"]).write(Location(bucket, key), b"x")
        assert caught.value.input


def test_a_version_that_s3_does_not_have(s3: Any, s3_endpoint: str) -> None:
    s3.put_object(Bucket="parts", Key="k", Body=b"first")
    error = error_of(
        Buckets(S3Store(s3_endpoint), ["*"]), "k", version="00000000-0000-0000-0000-000000000000"
    )
    assert error.input


def test_an_object_of_s3_that_is_too_large(s3: Any, s3_endpoint: str) -> None:
    s3.put_object(Bucket="parts", Key="k", Body=b"x" * (MOST + 1))
    error = error_of(Buckets(S3Store(s3_endpoint), ["*"]), "k")
    assert (error.input, str(error)) == (True, "s3://parts/k has 1001 bytes; the most is 1000")


def test_patterns_hold_for_s3(s3: Any, s3_endpoint: str) -> None:
    s3.put_object(Bucket="parts", Key="k", Body=b"x")
    error = error_of(Buckets(S3Store(s3_endpoint), ["other*"]), "k")
    assert str(error) == "the access key may not use the bucket of s3://parts/k"


def test_an_endpoint_that_nobody_answers_at(aws: None, caplog: pytest.LogCaptureFixture) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
    error = error_of(Buckets(S3Store(endpoint), ["*"]), "k")
    assert not error.input
    # Where the S3 is, is for the log of the service.
    assert str(error) == "s3://parts/k can't be reached: S3 doesn't answer; the log of the service says more"
    assert endpoint in caplog.records[-1].__dict__["reason"]
    with pytest.raises(BucketError) as caught:
        S3Store(endpoint).write(Location("parts", "k"), b"x")
    assert not caught.value.input


def test_a_service_without_credentials_is_a_fault_of_the_machine(
    aws: None, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    error = error_of(Buckets(S3Store(s3_endpoint), ["*"]), "k")
    assert not error.input
    assert "credentials" in str(error)


@contextmanager
def answering(error: dict[str, Any]) -> Iterator[str]:
    """The endpoint of an S3 that answers everything with this error, as it is at the time."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = f"<Error><Code>{error['code']}</Code><Message>no</Message></Error>".encode()
            self.send_response(error["status"])
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_whose_fault_an_error_of_s3_is(aws: None) -> None:
    error: dict[str, Any] = {}
    of_the_input, said = {}, []
    expected = {
        (403, "AccessDenied"): True,
        (403, "InvalidObjectState"): True,
        (405, "MethodNotAllowed"): True,
        (400, "InvalidBucketName"): True,
        (403, "InvalidAccessKeyId"): False,
        (403, "SignatureDoesNotMatch"): False,
        (403, "RequestTimeTooSkewed"): False,
        (400, "ExpiredToken"): False,
        (500, "InternalError"): False,
        (503, "SlowDown"): False,
    }
    with answering(error) as endpoint:
        for status, code in expected:
            error |= {"status": status, "code": code}
            found = error_of(Buckets(S3Store(endpoint), ["*"]), "k")
            of_the_input[status, code] = found.input
            said.append(str(found))
    assert of_the_input == expected
    assert not [text for text in said if "no" in text.split() or "127.0.0.1" in text]


def test_the_rights_that_are_enough(
    aws: None, service: Service, new_key: NewKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    (service.data_dir / "buckets" / "enough").mkdir(parents=True, exist_ok=True)
    key = new_key(allow=["s3:GetObject", "s3:PutObject"])
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key.secret_access_key)
    buckets = Buckets(S3Store(service.endpoint_url), ["*"])
    buckets.check("enough")
    buckets.write(Location("enough", "k"), b"x")
    assert content_of(buckets, "k", "enough") == b"x"
    buckets.check("there-is-none")  # which only a write can show without s3:ListBucket
    with pytest.raises(BucketError) as caught:
        buckets.write(Location("there-is-none", "k"), b"x")
    assert caught.value.input
