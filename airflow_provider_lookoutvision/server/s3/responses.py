"""Answers on their way out, and what the log says of their requests."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import anyio
from starlette.requests import ClientDisconnect
from starlette.types import Send

from airflow_provider_lookoutvision.server.s3 import xml
from airflow_provider_lookoutvision.server.s3.bodies import BLOCK
from airflow_provider_lookoutvision.server.s3.objects import Opened

_KEEP_ALIVE_SECONDS = 5.0
_SEND_SECONDS = 60.0


@dataclass
class RequestLog:
    """The log line of a request, filled in step by step, since a request may end anywhere."""

    request_id: str
    operation: str | None = None
    bucket: str | None = None
    access_key_id: str | None = None
    account_id: str | None = None
    region: str | None = None
    status: int | None = None
    error: str | None = None
    reads_body: bool = False
    has_begun: bool = False
    started: float = field(default_factory=time.perf_counter)


async def start(send: Send, entry: RequestLog, headers: Mapping[str, str]) -> None:
    """Send status and headers."""
    sent = {"x-amz-request-id": entry.request_id, **headers}
    encoded = [(name.lower().encode("latin-1"), _header(value)) for name, value in sent.items()]
    await send({"type": "http.response.start", "status": entry.status, "headers": encoded})


async def respond(send: Send, entry: RequestLog, headers: Mapping[str, str], body: bytes) -> None:
    """Send an answer, or what is left of one that has begun."""
    if entry.has_begun:
        body = body.removeprefix(xml.HEAD.encode())
    else:
        await start(send, entry, headers)
    await send({"type": "http.response.body", "body": body})


def _header(value: str) -> bytes:
    return value.encode("latin-1", "replace").replace(b"\r", b" ").replace(b"\n", b" ")


async def keep_alive(send: Send, entry: RequestLog) -> None:
    """Send a byte now and then, from some seconds on, in an answer that has begun as a success."""
    await anyio.sleep(_KEEP_ALIVE_SECONDS)
    entry.status = 200
    await start(send, entry, {"Content-Type": "application/xml"})
    entry.has_begun = True
    space = xml.HEAD.encode()
    while True:
        await send({"type": "http.response.body", "body": space, "more_body": True})
        space = b" "
        await anyio.sleep(_KEEP_ALIVE_SECONDS)


async def send_object(
    send: Send,
    entry: RequestLog,
    headers: Mapping[str, str],
    opened: Opened,
    begin: int,
    end: int,
    in_thread: Callable[..., Awaitable[bytes]],
) -> None:
    """Send the bytes of an object from ``begin`` to ``end``, block by block, and close it.

    :raises ClientDisconnect: when fewer bytes can be sent than were announced: the connection must break.
    """
    try:
        await start(send, entry, headers)
        position = begin
        while position < end:
            block = await in_thread(os.pread, opened.descriptor, min(BLOCK, end - position), position)
            position += len(block)
            if not block:
                entry.error = "Truncated"
                raise ClientDisconnect
            with anyio.move_on_after(_SEND_SECONDS) as patience:
                await send({"type": "http.response.body", "body": block, "more_body": True})
            if patience.cancelled_caught:
                entry.error = "ClientTooSlow"
                raise ClientDisconnect
        await send({"type": "http.response.body", "body": b""})
    finally:
        opened.close()
