"""What strangers do with connections: many of them, silent ones, endless heads, answers that nobody reads."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
from polling import until
from project_calls import names
from services import NewService, client_of, first_key_of
from signed_http import SignedHttpClient, connect, read_response

from airflow_provider_lookoutvision.server import serving
from airflow_provider_lookoutvision.server.protocol import connections
from airflow_provider_lookoutvision.server.protocol.connections import Connections
from airflow_provider_lookoutvision.server.protocol.connections import client_of as counted_as
from airflow_provider_lookoutvision.server.protocol.http import HEAD_LIMIT, BoundedHttpProtocol
from airflow_provider_lookoutvision.testing.service import Service

pytestmark = pytest.mark.one_database

GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


def memory(service: Service) -> int:
    """The most bytes that a service has had in memory."""
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM"))


def is_closed(connection: socket.socket) -> bool:
    """Wait until the other side closes a connection on which nothing more is to come."""
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


# The real service -----------------------------------------------------------------------------------------


def test_requests_sent_ahead_of_the_answers_stay_where_they_are(new_service: NewService) -> None:
    service = new_service("--no-worker")
    with connect(service.endpoint_url) as client:
        client.sendall(GET)
        read_response(client)
        before = memory(service)
        client.settimeout(2)  # it stops being read, as it should
        sent = 0
        with suppress(TimeoutError):
            while sent < 12_000_000:
                sent += client.send(b"GET / HTTP/1.1\r\n\r\n" * 4000)
        assert memory(service) - before < 40 << 20
    assert SignedHttpClient(service.endpoint_url, first_key_of(service)).send("GET", "/healthz").status == 200


@pytest.mark.parametrize("limit", ["--max-connections", "--max-connections-per-address"])
def test_connections_that_send_nothing_or_half_a_head_shut_nobody_out(
    limit: str, new_service: NewService
) -> None:
    service = new_service("--no-worker", limit, "20")
    client = client_of(service.endpoint_url, first_key_of(service))
    assert names(client) == []
    with ExitStack() as stack:
        silent = [stack.enter_context(connect(service.endpoint_url)) for _ in range(60)]
        for connection in silent[::2]:
            with suppress(ConnectionError):
                connection.sendall(b"GET / HTTP/1.1\r\nHost:")
        assert names(client) == []
        # A browser opens six connections, and keeps them.
        browser = [stack.enter_context(connect(service.endpoint_url)) for _ in range(6)]
        for _ in range(2):
            for connection in browser:
                connection.sendall(GET)
            assert all(read_response(connection).startswith("HTTP/1.1 200 ") for connection in browser)
        assert all(is_closed(connection) for connection in silent[:40])
    assert '"connections closed: too many connections' in service.log_file.read_text()


def test_a_head_that_is_too_large_is_refused_however_it_comes(service: Service) -> None:
    line = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
    long_one = b"a: " + b"b" * (HEAD_LIMIT + 8192) + b"\r\n"
    many = b"".join(b"a%d: b\r\n" % number for number in range(250))
    for headers in (long_one, many):
        with connect(service.endpoint_url) as client:
            client.sendall(line + headers + b"\r\n")
            assert "The head of the request is too large." in read_response(client)
    with connect(service.endpoint_url) as client:
        client.sendall(line + b"a: " + b"b" * (HEAD_LIMIT - 8192) + b"\r\n\r\n")
        assert read_response(client).startswith("HTTP/1.1 200 ")


def test_what_follows_a_request_neither_answers_for_it_nor_changes_the_order(service: Service) -> None:
    with connect(service.endpoint_url) as client:
        client.sendall(GET + b"GET /1 HTTP/1.1\r\nHost: x\r\n\r\n" + GET * 200)
        answers = [read_response(client)[9:12] for _ in range(202)]
        assert answers == ["200", answers[1], *["200"] * 200]
        assert answers[1] != "200"
    with connect(service.endpoint_url) as client:
        client.sendall(GET + b"no HTTP at all\r\n\r\n")
        assert read_response(client).startswith("HTTP/1.1 200 ")
        assert is_closed(client)
    with connect(service.endpoint_url) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
        assert read_response(client).startswith("HTTP/1.1 200 ")


# The same protocol in this process, with shorter times ---------------------------------------------------


@contextmanager
def served(limits: Connections, application: Callable[..., Any], **config: Any) -> Iterator[SimpleNamespace]:
    """``application`` behind the service's own server; ``address`` is where."""
    listener = socket.create_server(("127.0.0.1", 0))
    loaded = uvicorn.Config(
        application, http=BoundedHttpProtocol, log_config=None, lifespan="off", ws="none", **config
    )
    loaded.load()
    server = serving._Server(loaded, limits)

    def run() -> None:
        with asyncio.Runner(loop_factory=loaded.get_loop_factory()) as runner:
            runner.run(server._serve([listener]))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield SimpleNamespace(url=f"http://127.0.0.1:{listener.getsockname()[1]}", server=server)
    finally:
        server.should_exit = True
        thread.join()


async def answer(scope: Any, receive: Any, send: Any) -> None:
    """A large answer, which does not wait for the body."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"12000000")]})
    await send({"type": "http.response.body", "body": bytes(12_000_000)})


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HT",
        b"GET / HTTP/1.1\r\nHost: x\r\n",
        GET,  # whose answer is not read
        GET + b"GET / HTTP/1.1\r\nHost",
    ],
)
def test_who_keeps_it_waiting_is_closed(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.2)
    monkeypatch.setattr("airflow_provider_lookoutvision.server.protocol.http.READ_SECONDS", 0.2)
    with served(Connections(9, 9), answer) as here, connect(here.url) as client:
        client.sendall(sent)
        until(lambda: here.server.server_state.total_requests, lambda count: count == sent.count(b"\r\n\r\n"))
        until(lambda: len(here.server.server_state.connections), lambda count: count == 0)


async def small(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})


def test_a_body_after_its_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.2)
    with served(Connections(9, 9), small) as here, connect(here.url) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
        read_response(client)
        client.sendall(b"a")
        assert is_closed(client)


def test_an_idle_connection_is_kept_for_as_long_as_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.2)
    with served(Connections(9, 9), small, timeout_keep_alive=75) as here, connect(here.url) as client:
        client.sendall(GET)
        read_response(client)
        threading.Event().wait(1.5)  # longer than for a head, and than between two looks
        client.sendall(GET)
        assert read_response(client).startswith("HTTP/1.1 200 ")
    with served(Connections(9, 9), small, timeout_keep_alive=1) as here, connect(here.url) as client:
        client.sendall(GET)
        read_response(client)
        client.sendall(b"\r\n")  # nothing that begins a request
        assert is_closed(client)


def test_when_all_are_worked_on_the_newcomer_is_refused() -> None:
    begun, go_on = threading.Semaphore(0), threading.Event()

    async def busy(scope: Any, receive: Any, send: Any) -> None:
        begun.release()
        while (await receive()).get("more_body"):
            pass
        await asyncio.get_running_loop().run_in_executor(None, go_on.wait)
        await small(scope, receive, send)

    with served(Connections(2, 2), busy) as here, connect(here.url) as one, connect(here.url) as other:
        for connection in (one, other):
            connection.sendall(GET)
            assert begun.acquire(timeout=60)
        with connect(here.url) as newcomer:
            assert read_response(newcomer).startswith("HTTP/1.1 503 ")
        go_on.set()
        assert read_response(one).startswith("HTTP/1.1 200 ")
        assert read_response(other).startswith("HTTP/1.1 200 ")


def test_connections_count_before_their_handshake(certificate: tuple[Path, Path]) -> None:
    tls = {"ssl_certfile": str(certificate[0]), "ssl_keyfile": str(certificate[1])}
    context = ssl.create_default_context(cafile=str(certificate[0]))
    with served(Connections(4, 4), small, **tls) as here, ExitStack() as stack:
        silent = [stack.enter_context(connect(here.url)) for _ in range(12)]
        for _ in range(20):
            with connect(here.url) as raw, context.wrap_socket(raw, server_hostname="127.0.0.1") as client:
                client.sendall(GET)
                assert read_response(client).startswith("HTTP/1.1 200 ")
        assert all(is_closed(connection) for connection in silent[:8])


def test_who_counts_as_one() -> None:
    assert counted_as("192.0.2.1") == "192.0.2.1" == counted_as("::ffff:192.0.2.1")
    assert counted_as("2001:db8::1") == counted_as("2001:db8::ffff:1") != counted_as("2001:db8:1::1")
    assert counted_as("fe80::1%eth0") == counted_as("fe80::2")
