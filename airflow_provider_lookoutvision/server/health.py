"""Whether a service process lives, can answer, and is ready for everything: three endpoints that need no key.

``/livez`` says that the process answers, and looks at nothing else. ``/readyz`` looks at what requests need:
a write to the database, the tables, the secret key, space on the disk, a worker. ``/healthz`` looks at the
same, and forgives a missing worker, without which the API still answers. Each has a JSON body that names
what is wrong, in words that tell a stranger nothing.

The check has a connection of its own, so that it doesn't wait behind requests; it ends after
``CHECK_SECONDS``, runs once for all who ask within ``_FRESH_SECONDS``, and never twice at a time.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import Mapping

import sqlalchemy as sa
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from airflow_provider_lookoutvision.server.calls import access
from airflow_provider_lookoutvision.server.jobs import heartbeat
from airflow_provider_lookoutvision.server.settings import Settings, SettingsError
from airflow_provider_lookoutvision.server.storage.database import Database
from airflow_provider_lookoutvision.server.storage.encryption import Cipher
from airflow_provider_lookoutvision.server.storage.schema import metadata, service_state, upsert

CHECK_SECONDS = 5.0
_FRESH_SECONDS = 1.0
LEAST_FREE_BYTES = 32 << 20
_OK = "ok"
_PROBE = "health"

log = logging.getLogger("lookoutvision")


class Health:
    """The checks of one process.

    ``routes`` are the endpoints.
    """

    def __init__(self, settings: Settings, cipher: Cipher) -> None:
        self._settings, self._cipher = settings, cipher
        self._running: asyncio.Task[Mapping[str, str]] | None = None
        self._ended_at = 0.0
        self._logged: Mapping[str, str] = {}
        self.routes = [
            Route("/livez", self._live),
            Route("/healthz", self._healthy),
            Route("/readyz", self._ready),
        ]

    async def _live(self, _request: Request) -> Response:
        return JSONResponse({"status": _OK})

    async def _healthy(self, _request: Request) -> Response:
        return self._answer(await self._checks(), forgiven={"worker"})

    async def _ready(self, _request: Request) -> Response:
        return self._answer(await self._checks(), forgiven=set())

    def _answer(self, checks: Mapping[str, str], forgiven: set[str]) -> Response:
        wrong = {name for name, outcome in checks.items() if outcome != _OK}
        status = "unavailable" if wrong - forgiven else "degraded" if wrong else _OK
        code = 503 if wrong - forgiven else 200
        headers = {"Retry-After": "5"} if code == 503 else {}
        return JSONResponse({"status": status, "checks": dict(checks)}, code, headers)

    async def _checks(self) -> Mapping[str, str]:
        if self._running is None or (
            self._running.done() and time.monotonic() - self._ended_at > _FRESH_SECONDS
        ):
            self._running = asyncio.get_running_loop().create_task(self._check_in_thread())
        done, _ = await asyncio.wait({self._running}, timeout=CHECK_SECONDS)
        if done:
            return self._running.result()
        return self._log({"database": f"a write has not ended within {CHECK_SECONDS:g} seconds"})

    async def _check_in_thread(self) -> Mapping[str, str]:
        try:
            return self._log(await asyncio.to_thread(self._check))
        finally:
            self._ended_at = time.monotonic()

    def _check(self) -> Mapping[str, str]:
        checks = dict.fromkeys(("database", "tables", "secret_key", "worker"), _OK)
        if shutil.disk_usage(self._settings.data_dir).free < LEAST_FREE_BYTES:
            checks["disk"] = "the disk of the data directory is full"
        # A new one, so that nothing is read from memory.
        database = Database(self._settings.url, 1)
        try:
            checks |= self._check_database(database)
        except sa.exc.SQLAlchemyError as error:
            log.warning("the database can't be written", extra={"reason": str(getattr(error, "orig", error))})
            checks["database"] = "it can't be read or written"
        finally:
            database.close()
        return checks

    def _check_database(self, database: Database) -> Mapping[str, str]:
        found: dict[str, str] = {}
        if not database.is_current():
            found["tables"] = "they are those of another version"
        with database.read() as connection:
            try:
                for table in metadata.tables.values():
                    connection.execute(sa.select(sa.literal(1)).select_from(table).limit(1))
                silence = heartbeat.silence(connection)
            except (sa.exc.OperationalError, sa.exc.ProgrammingError) as error:
                log.warning("a table can't be read", extra={"reason": str(error.orig)})
                return found | {"tables": "one can't be read"}
            try:
                access.check_seals(connection, self._cipher)
            except SettingsError:
                found |= {"secret_key": "it does not open the stored access keys"}
        if silence is None or silence > heartbeat.MISSING_SECONDS:
            found["worker"] = "none has been heard of"
        # Committed: what is rolled back never reaches SQLite's disk, which may be full.
        with database.write() as connection:
            row = {"name": _PROBE, "value": "", "seen_at": time.time_ns() // 1_000_000}
            upsert(connection, service_state, [row], ["name"])
        return found

    def _log(self, checks: Mapping[str, str]) -> Mapping[str, str]:
        """One line when the outcome changes."""
        wrong = {name: outcome for name, outcome in checks.items() if outcome != _OK}
        if wrong != self._logged:
            self._logged = wrong
            level = logging.WARNING if wrong else logging.INFO
            log.log(level, "health has changed", extra={"checks": wrong or _OK})
        return checks
