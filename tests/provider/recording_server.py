"""A server that records its requests and sends the answers that a test sets; with TLS, if that is wanted."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from ssl import SSLContext
from threading import Thread


@dataclass(frozen=True)
class Request:
    target: str
    headers: dict[str, str]
    at: float = field(default_factory=time.monotonic)

    @property
    def credential(self) -> list[str]:
        """The parts of the signature's scope: access key, date, region, service."""
        match = re.search("Credential=([^,]+)", self.headers["Authorization"])
        assert match
        return match[1].split("/")


@dataclass(frozen=True)
class Answer:
    """By default that of an empty ListProjects."""

    body: str = '{"Projects": []}'
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class RecordingServer:
    url: str = ""
    requests: list[Request] = field(default_factory=list)
    answer: Callable[[Request], Answer] = lambda _: Answer()


@contextmanager
def recording_server(tls: SSLContext | None = None) -> Iterator[RecordingServer]:
    recorded = RecordingServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            request = Request(self.path, dict(self.headers))
            recorded.requests.append(request)
            answer = recorded.answer(request)
            body = answer.body.encode()
            self.send_response(answer.status)
            for header in {"Content-Type": "application/json", **answer.headers}.items():
                self.send_header(*header)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.do_GET()

        def do_DELETE(self) -> None:
            self.do_POST()

        def log_message(self, *args: object) -> None: ...

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(
            self, *args: object
        ) -> None: ...  # a client that has gone, or refuses our certificate

    with Server(("127.0.0.1", 0), Handler) as server:
        recorded.url = f"http{'s' if tls else ''}://localhost:{server.server_address[1]}"
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield recorded
        server.shutdown()


def certificate(folder: Path) -> Path:
    """A file with a key and its own certificate for localhost."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ) + signed.public_bytes(serialization.Encoding.PEM)
    (folder / "localhost.pem").write_bytes(pem)
    return folder / "localhost.pem"
