"""Requests that no SDK would send, signed all the same."""

from __future__ import annotations

import json
import re
import socket
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from airflow_provider_lookoutvision.testing.service import Key

_SECONDS = 60


@dataclass(frozen=True)
class HttpResponse:
    """What came back; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str | None:
        """The error code, or None for a success."""
        return self.headers.get("x-amzn-errortype")

    @property
    def message(self) -> str:
        """The error's text; empty for a success."""
        return str(self.json["Message"]) if self.code else ""

    @property
    def request_id(self) -> str:
        return self.headers["x-amzn-requestid"]


@dataclass(frozen=True)
class SignedHttpClient:
    """Sends requests to one service, signed with one key for one region."""

    endpoint_url: str
    key: Key
    region: str = "eu-central-1"

    def send(
        self,
        method: str,
        path: str,
        query: str = "",
        body: bytes = b"",
        headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
        *,
        signed: bool = True,
        chunks: Iterable[bytes] | None = None,
    ) -> HttpResponse:
        """Send one request, everything as it is given.

        :param path: and ``query``: as they shall stand in the request line.
        :param chunks: the body in chunks, instead of a Content-Length.
        """
        target = path + (f"?{query}" if query else "")
        sent = {"Host": urlsplit(self.endpoint_url).netloc, **dict(headers)}
        if signed:
            sent |= self.signature(method, target, body, sent)
        return self.send_as_is(method, target, sent, body, chunks=chunks)

    def signature(self, method: str, target: str, body: bytes, headers: Mapping[str, str]) -> dict[str, str]:
        """The headers that sign a request."""
        url = self.endpoint_url + (target if target.startswith("/") else "/")
        request = AWSRequest(method=method, url=url, headers=dict(headers), data=body)
        credentials = Credentials(self.key.access_key_id, self.key.secret_access_key)
        SigV4Auth(credentials, "lookoutvision", self.region).add_auth(request)
        names = ("X-Amz-Date", "Authorization")
        return {name: request.headers[name] for name in names}

    def send_as_is(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes = b"",
        *,
        chunks: Iterable[bytes] | None = None,
    ) -> HttpResponse:
        """Send a request with these headers, and Content-Length or Transfer-Encoding, only."""
        with closing(HTTPConnection(urlsplit(self.endpoint_url).netloc, timeout=_SECONDS)) as connection:
            connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name, value)
            if chunks is not None:
                connection.putheader("Transfer-Encoding", "chunked")
                connection.endheaders(iter(chunks), encode_chunked=True)
            else:
                if "Content-Length" not in headers and (body or method not in {"GET", "HEAD"}):
                    connection.putheader("Content-Length", str(len(body)))
                connection.endheaders(body or None)
            return _answer(connection)

    @contextmanager
    def under_way(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str]
    ) -> Iterator[Callable[[], HttpResponse]]:
        """Send a request, and begin the block when the service has certainly begun to work on it.

        The value of the block waits for the answer.
        """
        sent = {"Host": urlsplit(self.endpoint_url).netloc, **headers}
        sent |= self.signature(method, path, body, sent)
        sent |= {"Expect": "100-continue", "Content-Length": str(len(body))}
        with closing(HTTPConnection(urlsplit(self.endpoint_url).netloc, timeout=_SECONDS)) as connection:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in sent.items():
                connection.putheader(name, value)
            connection.endheaders()
            received = b""
            while b"\r\n\r\n" not in received:
                received += connection.sock.recv(1)
            assert received.startswith(b"HTTP/1.1 100 "), received
            connection.send(body)
            yield lambda: _answer(connection)


def _answer(connection: HTTPConnection) -> HttpResponse:
    answer = connection.getresponse()
    received = {name.lower(): value for name, value in answer.getheaders()}
    return HttpResponse(answer.status, received, answer.read())


@contextmanager
def connect(endpoint_url: str) -> Iterator[socket.socket]:
    """A bare connection to a service."""
    address = urlsplit(endpoint_url)
    with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
        yield connection


def signed_head(
    signed_http: SignedHttpClient, method: str, target: str, body: bytes = b"", **more: str
) -> bytes:
    """A signed head, whose body is not sent yet."""
    headers = {"Host": urlsplit(signed_http.endpoint_url).netloc}
    headers |= signed_http.signature(method, target, body, headers) | more
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def read_response(connection: socket.socket) -> str:
    """One answer, head and body, and nothing of the next."""
    received = b""

    def read(size: int) -> None:
        nonlocal received
        while len(received) < size:
            part = connection.recv(size - len(received))
            assert part, f"closed after {received!r}"
            received += part

    while not received.endswith(b"\r\n\r\n"):
        read(len(received) + 1)
    if length := re.search(rb"content-length: ([0-9]+)", received):
        read(len(received) + int(length[1]))
    return received.decode("latin-1")


def is_well_formed_error(answer: HttpResponse) -> bool:
    assert set(answer.headers) >= {"content-type", "content-length", "x-amzn-errortype", "x-amzn-requestid"}
    assert answer.headers["content-type"] == "application/json"
    assert uuid.UUID(answer.request_id)
    assert isinstance(answer.json["Message"], str)
    assert answer.message
    return True
