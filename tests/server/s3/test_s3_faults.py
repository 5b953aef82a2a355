"""Uploads that end early, are asked for twice, or make no sense."""

from __future__ import annotations

import base64
import fcntl
import io
import os
import socket
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from s3_clients import Signed, refusal, s3_client
from services import first_key_of

from airflow_provider_lookoutvision.server.s3.objects import Objects
from airflow_provider_lookoutvision.testing.service import Service, running_service


def crc32(content: bytes) -> str:
    return base64.b64encode(zlib.crc32(content).to_bytes(4, "big")).decode()


@pytest.mark.parametrize("method", ["GET", "PUT", "POST", "DELETE", "HEAD", "PATCH", "OPTIONS"])
def test_nothing_breaks_the_service(s3: Any, bucket: str, s3_service: Service, method: str) -> None:
    owner = first_key_of(s3_service)
    for path in (
        "/",
        "//",
        f"/{bucket}",
        f"/{bucket}/%ff",
        f"/{bucket}?uploads&delete",
        f"/{bucket}/k?uploadId=..%2f..",
        f"/{bucket}/k?partNumber=1&uploadId=x",
        f"/{bucket}/%00",
        "/..",
        "/%2e%2e/x",
        f"/{bucket}/k?max-keys=x",
    ):
        url = s3_service.endpoint_url + path
        body = b"<Delete>" if method == "POST" else b""
        request = AWSRequest(method=method, url=url, data=body, headers={})
        S3SigV4Auth(Credentials(owner.access_key_id, owner.secret_access_key), "s3", "us-east-1").add_auth(
            request
        )
        connection = HTTPConnection("127.0.0.1", s3_service.port, timeout=60)
        connection.request(method, path, body=body, headers=dict(request.headers.items()))
        assert connection.getresponse().status in {200, 204, 400, 404, 405, 409, 501}, (method, path)
        connection.close()
    assert not any("internal error" in line for line in s3_service.log_file.read_text().splitlines())
    s3.list_buckets()


@pytest.fixture
def own_service(tmp_path: Path) -> Iterator[Service]:
    with running_service(tmp_path / "service", ["--no-worker"]) as service:
        yield service


def visible(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_service_that_is_killed_in_an_upload_leaves_nothing(own_service: Service) -> None:
    s3 = s3_client(own_service.endpoint_url, first_key_of(own_service))
    s3.create_bucket(Bucket="images")
    s3.put_object(Bucket="images", Key="a/k", Body=b"before", Metadata={"token": "t"})
    folder = own_service.data_dir / "buckets" / "images"
    signed = Signed(own_service, "images")
    request = signed.head("a/k", "UNSIGNED-PAYLOAD", {})
    with socket.create_connection(("127.0.0.1", own_service.port), timeout=30) as connection:
        head = ["PUT /images/a/k HTTP/1.1", f"Host: 127.0.0.1:{own_service.port}"]
        head += [f"{name}: {value}" for name, value in request.headers.items()]
        head += [f"Content-Length: {64 << 20}", "", ""]
        connection.sendall("\r\n".join(head).encode() + b"x" * (8 << 20))
        while not any(path.stat().st_size >= 4 << 20 for path in folder.glob(".s3-*")):
            time.sleep(0.01)
        own_service.kill()
    (left,) = folder.glob(".s3-*")
    past = time.time() - 3600
    os.utime(left, (past, past))
    own_service.start()
    got = s3.get_object(Bucket="images", Key="a/k")
    assert (got["Body"].read(), got["Metadata"]) == (b"before", {"token": "t"})
    until = time.monotonic() + 60
    while list(folder.glob(".s3-*")):  # its housekeeping begins at its start
        assert time.monotonic() < until
        time.sleep(0.05)
    assert visible(folder) == ["a", "a/k"]


def test_a_client_that_goes_leaves_nothing(signed: Signed, s3: Any, bucket: str, folder: Path) -> None:
    request = signed.head("k", "UNSIGNED-PAYLOAD", {})
    with socket.create_connection(("127.0.0.1", signed.service.port), timeout=30) as connection:
        head = [f"PUT /{bucket}/k HTTP/1.1", f"Host: 127.0.0.1:{signed.service.port}"]
        head += [f"{name}: {value}" for name, value in request.headers.items()]
        connection.sendall(
            "\r\n".join([*head, "Content-Length: 9000000", "", ""]).encode() + b"x" * 3_000_000
        )
        while not list(folder.glob(".s3-*")):
            time.sleep(0.01)
    until = time.monotonic() + 60
    while list(folder.iterdir()):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)


def test_an_upload_that_stalls_is_given_up(signed: Signed, bucket: str, folder: Path) -> None:
    request = signed.head("k", "UNSIGNED-PAYLOAD", {})
    with socket.create_connection(("127.0.0.1", signed.service.port), timeout=90) as connection:
        head = [f"PUT /{bucket}/k HTTP/1.1", f"Host: 127.0.0.1:{signed.service.port}"]
        head += [f"{name}: {value}" for name, value in request.headers.items()]
        connection.sendall("\r\n".join([*head, "Content-Length: 9000", "", ""]).encode() + b"x" * 8999)
        answer = b""
        while b"</Error>" not in answer and (part := connection.recv(65536)):
            answer += part
    assert b" 400 " in answer.splitlines()[0]
    assert b"<Code>RequestTimeout</Code>" in answer
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("key", ["k", "nothing"])
def test_what_takes_long_keeps_its_client(s3_service: Service, s3: Any, bucket: str, key: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    upload = s3.create_multipart_upload(Bucket=bucket, Key="c")["UploadId"]
    part = s3.upload_part(Bucket=bucket, Key="c", UploadId=upload, PartNumber=1, Body=b"y")["ETag"]
    impatient = s3_client(s3_service.endpoint_url, first_key_of(s3_service), read_timeout=8)
    objects = Objects(s3_service.data_dir)
    parts = {"Parts": [{"PartNumber": 1, "ETag": part if key == "k" else '"0"'}]}
    where = {"Bucket": bucket, "Key": "c", "UploadId": upload, "MultipartUpload": parts}
    with ThreadPoolExecutor() as pool, objects._locked(bucket, "c"):
        with (s3_service.data_dir / "buckets" / bucket / f".s3-{upload}" / "upload.json").open() as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            done = pool.submit(impatient.complete_multipart_upload, **where)
            time.sleep(12)
        time.sleep(1)
    if key == "k":
        assert done.result()["ETag"].endswith('-1"')
        assert s3.get_object(Bucket=bucket, Key="c")["Body"].read() == b"y"
    else:
        with pytest.raises(ClientError, match="InvalidPart"):
            done.result()


def test_what_is_being_written_is_not_swept(tmp_path: Path) -> None:
    objects = Objects(tmp_path)
    objects.create_bucket("images")
    file = objects.begin("images")
    os.utime(file.path, (0, 0))
    assert objects.sweep() == 0
    assert file.path.exists()
    os.close(file.descriptor)
    assert objects.sweep() == 1
    assert list((tmp_path / "buckets" / "images").iterdir()) == []


def test_a_completed_upload_is_completed_again(s3: Any, bucket: str) -> None:
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    where = {"Bucket": bucket, "Key": "k", "UploadId": upload}
    etag = s3.upload_part(**where, PartNumber=1, Body=b"x")["ETag"]
    wanted = {"Parts": [{"PartNumber": 1, "ETag": etag}]}
    first = s3.complete_multipart_upload(**where, MultipartUpload=wanted, IfNoneMatch="*")
    again = s3.complete_multipart_upload(**where, MultipartUpload=wanted, IfNoneMatch="*")
    assert first["ETag"] == again["ETag"]
    s3.put_object(Bucket=bucket, Key="k", Body=b"y")
    assert refusal(s3.complete_multipart_upload, **where, MultipartUpload=wanted) == ("NoSuchUpload", 404)


def test_parts_that_make_no_object(s3: Any, bucket: str, folder: Path) -> None:
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    where = {"Bucket": bucket, "Key": "k", "UploadId": upload}
    etags = [s3.upload_part(**where, PartNumber=n, Body=b"small")["ETag"] for n in (1, 2)]
    parts = [{"PartNumber": n, "ETag": etag} for n, etag in enumerate(etags, start=1)]

    def complete(parts: list[dict[str, Any]]) -> tuple[str, int]:
        return refusal(s3.complete_multipart_upload, **where, MultipartUpload={"Parts": parts})

    assert complete(parts) == ("EntityTooSmall", 400)
    assert complete(parts[::-1]) == ("InvalidPartOrder", 400)
    assert complete([{**parts[0], "ETag": '"0"'}]) == ("InvalidPart", 400)
    assert complete([{**parts[0], "PartNumber": 9}]) == ("InvalidPart", 400)
    assert complete([]) == ("MalformedXML", 400)
    assert refusal(s3.upload_part, **{**where, "Key": "other"}, PartNumber=1, Body=b"") == (
        "NoSuchUpload",
        404,
    )
    assert refusal(s3.upload_part, **where, PartNumber=10_001, Body=b"") == ("InvalidArgument", 400)
    s3.abort_multipart_upload(**where)
    assert list(folder.iterdir()) == []
    assert complete(parts) == ("NoSuchUpload", 404)


def test_the_checksum_of_an_object_of_parts(s3: Any, bucket: str) -> None:
    content = os.urandom((5 << 20) + 3)
    halves = content[: 5 << 20], content[5 << 20 :]
    for kind in ("COMPOSITE", "FULL_OBJECT"):
        made = s3.create_multipart_upload(
            Bucket=bucket, Key=kind, ChecksumAlgorithm="CRC32", ChecksumType=kind
        )
        where = {"Bucket": bucket, "Key": kind, "UploadId": made["UploadId"]}
        parts = []
        for number, half in enumerate(halves, start=1):
            done = s3.upload_part(**where, PartNumber=number, Body=half, ChecksumAlgorithm="CRC32")
            parts.append({"PartNumber": number, "ETag": done["ETag"], "ChecksumCRC32": done["ChecksumCRC32"]})
        s3.complete_multipart_upload(**where, MultipartUpload={"Parts": parts}, ChecksumType=kind)
        head = s3.head_object(Bucket=bucket, Key=kind, ChecksumMode="ENABLED")
        of_parts = b"".join(zlib.crc32(half).to_bytes(4, "big") for half in halves)
        composite = base64.b64encode(zlib.crc32(of_parts).to_bytes(4, "big")).decode() + "-2"
        assert head["ChecksumCRC32"] == (crc32(content) if kind == "FULL_OBJECT" else composite)
        assert head["ChecksumType"] == kind
        part = s3.get_object(Bucket=bucket, Key=kind, PartNumber=2)
        assert (part["Body"].read(), part["PartsCount"]) == (halves[1], 2)


def test_no_engine_is_loaded_for_it(own_service: Service) -> None:
    s3 = s3_client(own_service.endpoint_url, first_key_of(own_service))
    s3.create_bucket(Bucket="images")
    s3.upload_fileobj(io.BytesIO(b"x" * (9 << 20)), "images", "k")
    maps = Path(f"/proc/{own_service.process.pid}/maps").read_text()
    assert not any(name in maps for name in ("numpy", "onnxruntime", "sklearn"))
