"""A service process, from its start to its stop."""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from airflow_provider_lookoutvision.server import cluster, logs
from airflow_provider_lookoutvision.server.app import create_app
from airflow_provider_lookoutvision.server.calls import access
from airflow_provider_lookoutvision.server.protocol.connections import Connections
from airflow_provider_lookoutvision.server.protocol.http import BoundedHttpProtocol, Handshake
from airflow_provider_lookoutvision.server.scraping import Metrics
from airflow_provider_lookoutvision.server.settings import Settings, SettingsError
from airflow_provider_lookoutvision.server.signals import exit_on_stop_signal, on_stop_signal
from airflow_provider_lookoutvision.server.storage import belonging, encryption
from airflow_provider_lookoutvision.server.storage.database import Database
from airflow_provider_lookoutvision.server.storage.encryption import Cipher
from airflow_provider_lookoutvision.server.storage.opening import opened, unusable
from airflow_provider_lookoutvision.server.storage.schema import lock
from airflow_provider_lookoutvision.server.worker import WorkerProcess

_BACKLOG = 2048
# Of threads, pipes and databases.
_OTHER_FILES = 512

log = logging.getLogger("lookoutvision")


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT, and finish the requests under way."""
    settings.refuse_open_plaintext()
    logs.configure(settings.log_level)
    if settings.cluster:
        cluster.connect(settings)
    with (
        exit_on_stop_signal(),
        _listen(settings) as listener,
        belonging.alone(settings),
        opened(settings) as (database, cipher),
    ):
        _make_first_key(settings, database, cipher)
        _serve(settings, database, cipher, listener)
    return 0


def _serve(settings: Settings, database: Database, cipher: Cipher, listener: socket.socket) -> None:
    worker = WorkerProcess(settings, database)
    config = uvicorn.Config(
        create_app(settings, database, cipher, worker.wake),
        http=BoundedHttpProtocol,
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=settings.shutdown_seconds,
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
    )
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"the TLS files can't be used: {error}") from None
    try:
        with Metrics(settings, database, cipher).serving():
            if settings.worker:
                worker.start()
            _Server(config, _connection_limits(settings)).run(sockets=[listener])
    finally:
        if settings.worker:
            worker.stop()


def _listen(settings: Settings) -> socket.socket:
    where = f"{settings.host}:{settings.port}"
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)
        family, _, _, _, address = found[0]
        return socket.create_server(address, family=family, backlog=_BACKLOG)
    except OSError as error:
        raise SettingsError(
            f"can't listen on {where}: {error.strerror}; set --host and --port differently, or stop what "
            "listens there"
        ) from None


def _connection_limits(settings: Settings) -> Connections:
    """As many connections as are set, and as the process may have open files beside them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = settings.max_connections + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    most = settings.max_connections
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = max(soft - _OTHER_FILES, soft // 2)
        log.warning(
            "the limit of open files allows fewer connections than max_connections",
            extra={"open_files": soft, "max_connections": settings.max_connections, "connections": most},
        )
    return Connections(most, min(most, settings.max_connections_per_address))


class _Server(uvicorn.Server):
    """Prints its address once it listens, also a port that the system chose; stops at the first signal."""

    def __init__(self, config: uvicorn.Config, limits: Connections) -> None:
        super().__init__(config)
        self._limits = limits

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        # With no socket of its own: uvicorn's way with TLS counts a connection after its handshake only.
        await super().startup([])
        if self.started:
            loop = asyncio.get_running_loop()
            for listener in sockets or ():
                server = await loop.create_server(self._protocol, sock=listener, backlog=_BACKLOG)
                self.servers.append(server)
            address = self.servers[0].sockets[0].getsockname()
            host = f"[{address[0]}]" if ":" in address[0] else address[0]
            scheme = "https" if self.config.ssl else "http"
            print(f"Lookout for Vision API listening on {scheme}://{host}:{address[1]}", flush=True)  # noqa: T201

    def _protocol(self) -> asyncio.Protocol:
        limits, tls = self._limits, self.config.ssl
        http = BoundedHttpProtocol(self.config, self.server_state, self.lifespan.state, limits=limits)
        return Handshake(http, limits, tls) if tls else http

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn's own would drop the requests under way at a second SIGINT, and send the process the signals
        # again after the last request.
        on_stop_signal(self._stop)
        yield

    def _stop(self) -> None:
        self.should_exit = True


def _make_first_key(settings: Settings, database: Database, cipher: Cipher) -> None:
    path = settings.data_dir / "credentials"
    with database.write() as connection:
        lock(connection, ("first key",))
        if not access.list_keys(connection):
            key, secret = access.create_key(connection, cipher)
            text = f"[default]\naws_access_key_id = {key.access_key_id}\naws_secret_access_key = {secret}\n"
            try:
                encryption.write_private(path, text.encode())
            except OSError as error:
                raise unusable(settings, error) from None
            print(f"The first access key is in {path}", flush=True)  # noqa: T201
