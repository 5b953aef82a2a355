"""HTTP/1.1 as uvicorn speaks it, with bounds on what a client may send and how long it may take.

The parser keeps a request line, headers and trailers of any length until they end, and uvicorn parses and
queues as many requests as a client sends ahead of the answers. Here a head has at most ``HEAD_LIMIT`` bytes
and ``MOST_HEADERS`` headers, and what follows a request that waits for its turn is not parsed, and soon not
read any more. ``connections`` closes what keeps the service waiting.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from typing import Any, cast

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from airflow_provider_lookoutvision.server.protocol import connections
from airflow_provider_lookoutvision.server.protocol.connections import IDLE, READ_SECONDS, Connections
from airflow_provider_lookoutvision.server.protocol.request_ids import HEADER, new_request_id

HEAD_LIMIT = 64 << 10
MOST_HEADERS = 200
HANDSHAKE_SECONDS = 10.0
_SLICE = 4 << 10
_TOO_LARGE = "The head of the request is too large."
_NEW, _IDLE, _BODY = range(3)


class _Flow(FlowControl):
    """Reads nothing while there is something left to parse, whoever would like to go on."""

    holding = False

    def resume_reading(self) -> None:
        if not self.holding:
            super().resume_reading()

    def hold(self, holding: bool) -> None:
        self.holding = holding
        (self.pause_reading if holding else self.resume_reading)()


log = logging.getLogger("lookoutvision")


class BoundedHttpProtocol(HttpToolsProtocol):
    """One connection of ``limits``."""

    flow: _Flow

    def __init__(self, *arguments: Any, limits: Connections | None = None, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._limits = limits or Connections(1 << 20, 1 << 20)
        self.address = ""
        self._unparsed = bytearray()
        self._incomplete_bytes = 0
        self._in_message = False
        self._requests = 0
        self._waiting_since = self._stalled_since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # noqa: D102
        super().connection_made(transport)
        self.flow = _Flow(transport)
        self.address = self.client[0] if self.client else ""
        self._waiting_since = self.loop.time()
        if not self._limits.admit(self):
            self._refuse_for_now()
        elif self._unparsed:  # what came in the moment after the handshake
            self._parse()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: D102
        self._limits.remove(self)
        self._unparsed.clear()
        if self.transport is not None:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:  # noqa: D102
        self._unset_keepalive_if_required()
        self._unparsed += data
        if self.transport is not None:
            self._parse()

    def on_message_begin(self) -> None:  # noqa: D102
        if not self._under_way:
            self._waiting_since = self.loop.time()
        self._in_message = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:  # noqa: D102
        if len(self.headers) >= MOST_HEADERS:
            self._incomplete_bytes += HEAD_LIMIT
            raise ValueError(_TOO_LARGE)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:  # noqa: D102
        self._incomplete_bytes = 0
        self._requests += 1
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:  # noqa: D102
        self._incomplete_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:  # noqa: D102
        self._incomplete_bytes = 0
        self._in_message = False
        super().on_message_complete()

    def on_response_complete(self) -> None:  # noqa: D102
        self._waiting_since = self.loop.time()
        super().on_response_complete()
        if self._unparsed:
            self._unset_keepalive_if_required()
            self._parse()

    def pause_writing(self) -> None:  # noqa: D102
        self._stalled_since = self.loop.time()
        super().pause_writing()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, or too much of it, with an ID that the log has too."""
        identity = new_request_id()
        log.warning("a request is refused", extra={"request_id": identity, "status": 400, "error": msg})
        self._write_last("400 Bad Request", identity, "content-type: text/plain; charset=utf-8\r\n", msg)

    def shutdown(self) -> None:  # noqa: D102
        super().shutdown()
        if not self._under_way and self.scheme == "https" and not self.transport.get_write_buffer_size():
            # TLS waits half a minute for the other side's farewell, which an idle client doesn't send.
            self.transport.abort()

    @property
    def waits(self) -> tuple[int, float] | None:
        """Since when it waits for its client, after how easily it is given up: most easily a new one."""
        if self._under_way:
            return (_BODY, self._waiting_since) if self.cycle.more_body else None
        return _IDLE if self._requests else _NEW, self._waiting_since

    @property
    def overdue(self) -> str | None:
        """What has been waited for long enough; for the body of a request under way, its reader waits."""
        now = self.loop.time()
        if self.transport.is_closing() or self.flow.write_paused:
            self._stalled_since = self._stalled_since or now
            return "their clients do not read" if now - self._stalled_since > READ_SECONDS else None
        self._stalled_since = 0.0
        if self._under_way:
            return None
        if self._in_message or not self._requests:
            late = now - self._waiting_since > connections.HEAD_SECONDS
            return "no request came, or no end of it" if late else None
        return IDLE if now - self._waiting_since > self.timeout_keep_alive else None

    @property
    def held_bytes(self) -> int:
        """How many bytes it keeps of requests that are not worked on yet."""
        return self._incomplete_bytes + len(self._unparsed)

    def abort(self) -> None:
        """Close it now."""
        self.transport.abort()

    @property
    def _under_way(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _parse(self) -> None:
        """Parse what has come, until a request waits for the answer to another one."""
        while self._unparsed and not self.pipeline and not self.transport.is_closing():
            data = bytes(self._unparsed[:_SLICE])
            del self._unparsed[:_SLICE]
            self._incomplete_bytes += len(data)
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade:
                # To what, nobody here speaks: it is answered as any other request, and then no more is.
                self.cycle.keep_alive = False
                self._unparsed.clear()
            except httptools.HttpParserError:
                self._refuse("Invalid HTTP request received.")
            else:
                if self._incomplete_bytes > HEAD_LIMIT:
                    self._refuse(_TOO_LARGE)
        if self.transport.is_closing():
            self._unparsed.clear()
        self.flow.hold(bool(self._unparsed))
        if self._unparsed:
            self._limits.check_memory()

    def _refuse(self, message: str) -> None:
        if self._under_way and not self.cycle.more_body:
            # What is wrong follows a request that is worked on: the next answer must be that one's.
            self.cycle.keep_alive = False
            self._unparsed.clear()
        else:
            self.send_400_response(_TOO_LARGE if self._incomplete_bytes > HEAD_LIMIT else message)

    def _refuse_for_now(self) -> None:
        self._write_last("503 Service Unavailable", new_request_id(), "retry-after: 1\r\n")

    def _write_last(self, status: str, identity: str, headers: str, text: str = "") -> None:
        head = f"HTTP/1.1 {status}\r\n{HEADER.decode()}: {identity}\r\n{headers}connection: close\r\n"
        self.transport.write(f"{head}content-length: {len(text)}\r\n\r\n{text}".encode())
        self.transport.close()


class Handshake(asyncio.Protocol):
    """A connection before its TLS handshake: it counts as one that has sent nothing.

    :param http: the protocol that takes over.
    """

    def __init__(self, http: BoundedHttpProtocol, limits: Connections, context: ssl.SSLContext) -> None:
        self._http, self._limits, self._context = http, limits, context
        self._since = 0.0
        self._early = b""
        self.address = ""
        self.held_bytes = 0
        self.overdue = None  # the handshake has a limit of its own

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # noqa: D102
        self._transport = transport
        self.address = (transport.get_extra_info("peername") or ("",))[0]
        loop = asyncio.get_running_loop()
        self._since = loop.time()
        if self._limits.admit(self):
            self._task = loop.create_task(self._take_over(loop))
            loop.call_soon(self._pass_on)  # after the task's first step: TLS has the transport then
        else:
            transport.abort()

    def data_received(self, data: bytes) -> None:  # noqa: D102
        self._early += data

    @property
    def waits(self) -> tuple[int, float]:
        """As one that has sent nothing."""
        return _NEW, self._since

    def abort(self) -> None:
        """Close it now."""
        self._transport.abort()

    def _pass_on(self) -> None:
        if self._early:
            protocol = cast("asyncio.BufferedProtocol", self._transport.get_protocol())
            protocol.get_buffer(len(self._early))[: len(self._early)] = self._early  # type: ignore[index]
            protocol.buffer_updated(len(self._early))

    async def _take_over(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            transport = await loop.start_tls(
                self._transport,
                self._http,
                self._context,
                server_side=True,
                ssl_handshake_timeout=HANDSHAKE_SECONDS,
            )
        except (OSError, ssl.SSLError):
            self._transport.abort()
            return
        finally:
            self._limits.remove(self)
        if transport is not None and not transport.is_closing():
            self._http.connection_made(transport)
