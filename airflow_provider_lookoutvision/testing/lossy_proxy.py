"""A proxy that loses requests and responses, to test clients that can't know whether theirs had an effect.

It forwards each request unchanged (the Host header too, so that signatures stay valid). When ``drop`` returns
true it closes the client's connection after the service has responded, without a byte of the response::

    with LossyProxy(service.endpoint_url, drop=lambda exchange: exchange.method == "POST") as proxy:
        client = boto3.client("lookoutvision", endpoint_url=proxy.endpoint_url, ...)

When ``drop_request`` returns true the service doesn't get the request. Both may take as long as they like,
and send the request again (``resend``): so answers are late, and requests come twice.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlsplit

CLIENT_TOKEN_HEADER = "x-amzn-client-token"  # noqa: S105 (a header's name)
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"}
_UPSTREAM_SECONDS = 120


@dataclass(frozen=True)
class Exchange:
    """One request and its response. ``status`` is None when the service didn't respond."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    status: int | None
    answer: bytes
    dropped: bool = False

    @property
    def client_token(self) -> str | None:
        """The request's client token."""
        return self.headers.get(CLIENT_TOKEN_HEADER)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # that is a client which didn't wait for its answer
            super().handle_error(request, client_address)


class LossyProxy:
    """The proxy; it runs inside a ``with`` block.

    :param upstream_url: where the service is, as ``http://127.0.0.1:8320``.
    :param drop: called with each exchange after the service has responded; true loses the response.
    :param drop_request: called with each request before it is forwarded; true loses the request.
    """

    def __init__(
        self,
        upstream_url: str,
        drop: Callable[[Exchange], bool],
        drop_request: Callable[[Exchange], bool] = lambda _: False,
    ) -> None:
        self.exchanges: list[Exchange] = []
        self._upstream = urlsplit(upstream_url)
        self._drop, self._drop_request = drop, drop_request
        self._lock = threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                self.raw_requestline = self.rfile.readline(65537)
                if not self.raw_requestline or not self.parse_request():
                    self.close_connection = True
                    return
                proxy._forward(self)

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="lossy-proxy", daemon=True)

    @property
    def endpoint_url(self) -> str:
        """Where clients reach the proxy."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def resend(self, exchange: Exchange) -> Exchange:
        """Send a request to the service, as it was, and return what came of it."""
        return self._send(exchange)[0]

    def _send(self, exchange: Exchange) -> tuple[Exchange, list[tuple[str, str]]]:
        try:
            connection = HTTPConnection(
                self._upstream.hostname or "", self._upstream.port or 80, timeout=_UPSTREAM_SECONDS
            )
            try:
                connection.request(exchange.method, exchange.path, exchange.body, dict(exchange.headers))
                answer = connection.getresponse()
                return replace(exchange, status=answer.status, answer=answer.read()), answer.getheaders()
            finally:
                connection.close()
        except (OSError, HTTPException):
            # No response: the client sees a closed connection, as it would without the proxy.
            return replace(exchange, status=None), []

    def _forward(self, client: BaseHTTPRequestHandler) -> None:
        body = client.rfile.read(int(client.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in client.headers.items()}
        exchange = Exchange(client.command, client.path, headers, body, None, b"")
        answer_headers: list[tuple[str, str]] = []
        if not self._drop_request(exchange):
            exchange, answer_headers = self._send(exchange)
        exchange = replace(exchange, dropped=exchange.status is None or self._drop(exchange))
        with self._lock:
            self.exchanges.append(exchange)
        if exchange.dropped or exchange.status is None:
            client.close_connection = True
            return
        client.send_response_only(exchange.status)
        for name, value in answer_headers:
            if name.lower() not in _HOP_BY_HOP:
                client.send_header(name, value)
        client.send_header("Content-Length", str(len(exchange.answer)))
        client.end_headers()
        client.wfile.write(exchange.answer)
