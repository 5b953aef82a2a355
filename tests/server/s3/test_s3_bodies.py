"""Bodies as clients send them, in pieces and with checksums after them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import os
import socket
import subprocess
import zlib
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from s3_clients import Signed
from services import first_key_of

from airflow_provider_lookoutvision.server.s3.bodies import ChunkSigner
from airflow_provider_lookoutvision.testing.service import running_service

DECODED = 200_000
CONTENT = os.urandom(DECODED)


def chunked(
    request: AWSRequest, secret: str, content: bytes, trailers: dict[str, str] | None = None
) -> bytes:
    """A body in signed chunks, as AWS documents it."""
    scope = request.headers["Authorization"].split("Credential=")[1].split(",")[0].split("/", 1)[1]
    key = ("AWS4" + secret).encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    previous = request.headers["Authorization"].rpartition("Signature=")[2]
    signer = ChunkSigner(key, request.headers["X-Amz-Date"], scope, previous)
    body = b""
    for begin in range(0, len(content) + 65536, 65536):
        chunk = content[begin : begin + 65536]
        previous = signer.signature(previous, hashlib.sha256(chunk).hexdigest())
        body += (
            f"{len(chunk):x};chunk-signature={previous}\r\n".encode() + chunk + (b"\r\n" if chunk else b"")
        )
        if not chunk:
            break
    if trailers:
        text = "".join(f"{name}:{value}\n" for name, value in trailers.items()).encode()
        body += text.replace(b"\n", b"\r\n")
        body += f"x-amz-trailer-signature:{signer.trailer_signature(previous, text)}\r\n".encode()
    return body + b"\r\n"


def crc32(content: bytes) -> str:
    return base64.b64encode(zlib.crc32(content).to_bytes(4, "big")).decode()


STREAMED = {"Content-Encoding": "aws-chunked", "X-Amz-Decoded-Content-Length": str(DECODED)}


def test_signed_chunks(signed: Signed, s3: Any, bucket: str) -> None:
    request = signed.head("k", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", STREAMED)
    body = chunked(request, signed.key.secret_access_key, CONTENT)
    assert signed.send(request, "k", body).status == 200
    head = s3.get_object(Bucket=bucket, Key="k")
    assert (head["Body"].read(), head.get("ContentEncoding")) == (CONTENT, None)
    place = body.index(CONTENT[:100])
    forged = body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :]
    answer = signed.send(signed.head("f", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", STREAMED), "f", forged)
    assert (answer.status, b"SignatureDoesNotMatch" in answer.body) == (403, True)
    short = chunked(request, signed.key.secret_access_key, CONTENT[:-1])
    assert b"IncompleteBody" in signed.send(request, "k", short).body
    assert [each["Key"] for each in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["k"]


def test_signed_chunks_with_a_trailer(signed: Signed, s3: Any, bucket: str) -> None:
    headers = {**STREAMED, "X-Amz-Trailer": "x-amz-checksum-crc32"}
    kind = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
    request = signed.head("k", kind, headers)
    trailer = {"x-amz-checksum-crc32": crc32(CONTENT)}
    body = chunked(request, signed.key.secret_access_key, CONTENT, trailer)
    assert signed.send(request, "k", body).status == 200
    assert s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")["ChecksumCRC32"] == crc32(CONTENT)
    forged = body.replace(crc32(CONTENT).encode(), crc32(b"other").encode())
    assert b"SignatureDoesNotMatch" in signed.send(request, "k", forged).body
    wrong = chunked(request, signed.key.secret_access_key, CONTENT, {"x-amz-checksum-crc32": crc32(b"other")})
    assert b"BadDigest" in signed.send(request, "k", wrong).body
    without = chunked(request, signed.key.secret_access_key, CONTENT)
    assert b"IncompleteBody" in signed.send(request, "k", without).body


def unsigned_chunks(content: bytes, trailer: str, size: int) -> bytes:
    parts = [content[begin : begin + size] for begin in range(0, len(content), size)]
    body = b"".join(f"{len(part):x}\r\n".encode() + part + b"\r\n" for part in parts)
    return body + f"0\r\nx-amz-checksum-crc32:{trailer}\r\n\r\n".encode()


@pytest.mark.parametrize("size", [1000, 65536, 1 << 20])
def test_unsigned_chunks_with_a_trailer(signed: Signed, s3: Any, bucket: str, size: int) -> None:
    headers = {**STREAMED, "X-Amz-Trailer": "x-amz-checksum-crc32"}
    kind = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
    body = unsigned_chunks(CONTENT, crc32(CONTENT), size)
    assert signed.put("k", kind, headers, body).status == 200
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == CONTENT
    for wrong in (unsigned_chunks(CONTENT, crc32(b""), size), body[:-40], body.replace(b"\r\n", b"\n", 1)):
        assert signed.put("new", kind, headers, wrong).status == 400
    assert [each["Key"] for each in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["k"]


def test_other_bodies(signed: Signed, s3: Any, bucket: str) -> None:
    assert signed.put("k", "UNSIGNED-PAYLOAD", {}, b"x").status == 200
    assert signed.put("k", hashlib.sha256(b"y").hexdigest(), {}, b"y").status == 200
    answer = signed.put("k", hashlib.sha256(b"y").hexdigest(), {}, b"z")
    assert (answer.status, b"XAmzContentSHA256Mismatch" in answer.body) == (400, True)
    assert b"AuthorizationHeaderMalformed" in signed.put("k", "nonsense", {}, b"z").body
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"y"


def test_an_object_that_is_too_large_is_refused_before_its_body(signed: Signed) -> None:
    request = signed.head("k", "UNSIGNED-PAYLOAD", {})
    with socket.create_connection(("127.0.0.1", signed.service.port), timeout=30) as connection:
        head = [f"PUT /{signed.bucket}/k HTTP/1.1", f"Host: 127.0.0.1:{signed.service.port}"]
        head += [f"{name}: {value}" for name, value in request.headers.items()]
        head += [f"Content-Length: {(5 << 30) + 1}", "Expect: 100-continue", "", ""]
        connection.sendall("\r\n".join(head).encode())
        answer = b""
        while part := connection.recv(65536):  # until it closes the connection
            answer += part
    assert b" 400 " in answer.splitlines()[0]
    assert b"EntityTooLarge" in answer


def test_https(tmp_path: Path) -> None:
    """Over TLS boto3 sends bodies in unsigned chunks with a trailer."""
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem", "-days", "1"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    flags = [
        "--no-worker",
        "--tls-certificate",
        str(tmp_path / "cert.pem"),
        "--tls-key",
        str(tmp_path / "key.pem"),
    ]
    with running_service(flags=flags) as service:
        owner = first_key_of(service)
        s3 = boto3.client(
            "s3",
            endpoint_url=service.endpoint_url.replace("http:", "https:"),
            aws_access_key_id=owner.access_key_id,
            aws_secret_access_key=owner.secret_access_key,
            region_name="us-east-1",
            verify=str(tmp_path / "cert.pem"),
            config=Config(retries={"total_max_attempts": 1}),
        )
        seen = []
        s3.meta.events.register("before-send.s3.PutObject", lambda request, **_: seen.append(request.headers))
        s3.create_bucket(Bucket="images")
        s3.put_object(Bucket="images", Key="k", Body=io.BytesIO(CONTENT))
        assert seen[0]["X-Amz-Content-SHA256"] == b"STREAMING-UNSIGNED-PAYLOAD-TRAILER"
        assert s3.get_object(Bucket="images", Key="k")["Body"].read() == CONTENT
        s3.upload_fileobj(io.BytesIO(CONTENT * 50), "images", "large")
        assert s3.get_object(Bucket="images", Key="large")["Body"].read() == CONTENT * 50
