"""A server that keeps the requests it gets and answers each as an empty ListProjects."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ssl import SSLContext
from threading import Thread


@dataclass(frozen=True)
class Request:
    target: str
    headers: dict[str, str]

    @property
    def credential(self) -> list[str]:
        """The parts of the signature's scope: access key, date, region, service."""
        match = re.search("Credential=([^,]+)", self.headers["Authorization"])
        assert match
        return match[1].split("/")


@dataclass
class Wire:
    url: str = ""
    requests: list[Request] = field(default_factory=list)


@contextmanager
def wire(tls: SSLContext | None = None) -> Iterator[Wire]:
    kept = Wire()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kept.requests.append(Request(self.path, dict(self.headers)))
            body = b'{"Projects": []}'
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None: ...

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *args: object) -> None: ...  # a client that refuses our certificate

    with Server(("127.0.0.1", 0), Handler) as server:
        kept.url = f"http{'s' if tls else ''}://localhost:{server.server_address[1]}"
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield kept
        server.shutdown()
