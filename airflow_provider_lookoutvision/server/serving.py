"""A service process from its start to its end."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
import uvicorn

from airflow_provider_lookoutvision.server import access, logs, sealing
from airflow_provider_lookoutvision.server.app import create_app
from airflow_provider_lookoutvision.server.database import Database
from airflow_provider_lookoutvision.server.sealing import Seal
from airflow_provider_lookoutvision.server.settings import Settings, SettingsError


@contextmanager
def opened(settings: Settings) -> Iterator[tuple[Database, Seal]]:
    """The database, its schema the newest, and the seal; made when they aren't there yet.

    :raises SettingsError: when they can't be had, saying why.
    """
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        seal = sealing.load(settings.data_dir)
    except OSError as error:
        raise SettingsError(f"the data directory {settings.data_dir} can't be used: {error}") from None
    database = Database(settings.url, settings.threads)
    try:
        try:
            database.upgrade()
        except sa.exc.OperationalError as error:
            raise SettingsError(f"the database can't be used: {error.orig}") from error
        yield database, seal
    finally:
        database.close()


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; requests under way are finished first."""
    settings.refuse_open_plaintext()
    logs.configure(settings.log_level)
    with opened(settings) as (database, seal):
        _make_first_key(settings, database, seal)
        config = uvicorn.Config(
            create_app(settings, database, seal),
            host=settings.host,
            port=settings.port,
            ssl_certfile=settings.tls_certificate,
            ssl_keyfile=settings.tls_key,
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
        _AnnouncingServer(config).run()
    return 0


class _AnnouncingServer(uvicorn.Server):
    """Says where it listens once it does, the port too where the system chose it."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            address = self.servers[0].sockets[0].getsockname()
            host = f"[{address[0]}]" if ":" in address[0] else address[0]
            scheme = "https" if self.config.ssl else "http"
            print(f"Lookout for Vision API listening on {scheme}://{host}:{address[1]}", flush=True)  # noqa: T201


def _make_first_key(settings: Settings, database: Database, seal: Seal) -> None:
    path = settings.data_dir / "credentials"
    with database.write() as connection:
        if not access.list_keys(connection):
            key, secret = access.create_key(connection, seal)
            text = f"[default]\naws_access_key_id = {key.access_key_id}\naws_secret_access_key = {secret}\n"
            sealing.write_private(path, text.encode())
            print(f"The first access key is in {path}", flush=True)  # noqa: T201
