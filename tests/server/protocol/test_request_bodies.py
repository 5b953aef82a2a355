"""RequestBodies that don't come, and bodies for which there is no room."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import anyio
import pytest
from signed_http import SignedHttpClient, connect, read_response, signed_head
from starlette.requests import Request

from airflow_provider_lookoutvision.server.protocol import request_bodies
from airflow_provider_lookoutvision.server.protocol.errors import RequestTimeoutException, ThrottlingException
from airflow_provider_lookoutvision.server.protocol.request_bodies import RequestBodies
from airflow_provider_lookoutvision.testing.service import Key, Service

pytestmark = pytest.mark.one_database

DETECT = "/2020-11-20/projects/p/models/1/detect"
EIGHT = str(8 << 20)


def request_of(*chunks: bytes, ends: bool = True) -> Request:
    """A request that sends these, and then ends or falls silent."""
    messages = iter(
        [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
        + [{"type": "http.request", "body": b"", "more_body": False}] * ends
    )

    async def receive() -> dict[str, Any]:
        return next(messages, None) or await anyio.sleep_forever()

    return Request({"type": "http"}, receive)


def test_a_body_that_does_not_come_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_bodies, "_SECONDS", 0.1)
    monkeypatch.setattr(request_bodies, "_BYTES_A_SECOND", 10 << 20)
    held = RequestBodies(100_000)

    async def stalled() -> None:
        with pytest.raises(RequestTimeoutException, match="3 bytes of the body came"):
            async with held.read(request_of(b"abc", ends=False), 80_000):
                raise AssertionError("it has come")

    anyio.run(stalled)
    assert held._held == 0


def test_what_has_come_counts_and_what_is_announced_does_not() -> None:
    held = RequestBodies(100_000)

    async def many() -> None:
        async with held.read(request_of(b"a" * 70_000), 90_000) as body:
            assert len(body) == 70_000
            with pytest.raises(ThrottlingException):
                async with held.read(request_of(), 70_000):
                    raise AssertionError("there is no room")
            # What is small is let past.
            async with held.read(request_of(b"b" * 60_000), 60_000) as small:
                assert len(small) == 60_000
        async with held.read(request_of(b"a" * 90_000), 90_000) as body:
            assert len(body) == 90_000

    anyio.run(many)
    assert held._held == 0


@contextmanager
def stalled(
    signed_http: SignedHttpClient, count: int, path: str, length: str
) -> Iterator[list[socket.socket]]:
    """Connections that have sent the head of a request, and not a byte of its body."""
    head = signed_head(signed_http, "POST", path, **{"Content-Type": "image/png", "Content-Length": length})
    with ExitStack() as stack:
        connections = [stack.enter_context(connect(signed_http.endpoint_url)) for _ in range(count)]
        for connection in connections:
            connection.sendall(head)
        yield connections


def test_who_sends_nothing_takes_nothing_from_others(signed_http: SignedHttpClient) -> None:
    with stalled(signed_http, 40, DETECT, EIGHT):
        answer = signed_http.send("POST", DETECT, body=bytes(1 << 20), headers={"Content-Type": "image/png"})
        assert answer.code == "ResourceNotFoundException"


def test_no_large_body_is_read_for_a_stranger(service: Service) -> None:
    stranger = SignedHttpClient(service.endpoint_url, Key("AKIAXXXXXXXXXXXXXXXX", "secret", "000000000009"))
    with stalled(stranger, 1, "/2020-11-20/projects", "100000") as [connection]:
        assert "UnrecognizedClientException" in read_response(connection)
