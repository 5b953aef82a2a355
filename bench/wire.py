"""Requests as boto3 would send them, signed, as bytes."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

from botocore.awsrequest import AWSPreparedRequest, AWSResponse


def as_bytes(client: Any, operation: str, **parameters: Any) -> bytes:
    """What calling a client's operation would send; nothing is sent.

    :param operation: the client's method, as ``create_project``.
    """
    captured: list[bytes] = []

    def capture(request: AWSPreparedRequest, **_: object) -> AWSResponse:
        captured.append(b"".join(_serialise(request)))
        nothing = SimpleNamespace(stream=lambda *_, **__: iter([b"{}"]))
        return AWSResponse(request.url, 200, {}, nothing)

    client.meta.events.register_first("before-send", capture)
    try:
        getattr(client, operation)(**parameters)
    finally:
        client.meta.events.unregister("before-send", capture)
    return captured[0]


def _serialise(request: AWSPreparedRequest) -> Iterator[bytes]:
    url = urlsplit(request.url)
    target = url.path + (f"?{url.query}" if url.query else "")
    yield f"{request.method} {target} HTTP/1.1\r\nHost: {url.netloc}\r\n".encode()
    for name, value in request.headers.items():
        yield f"{name}: {value.decode() if isinstance(value, bytes) else value}\r\n".encode()
    yield b"\r\n"
    yield request.body if isinstance(request.body, bytes) else (request.body or "").encode()
