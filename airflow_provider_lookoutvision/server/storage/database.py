"""Transactions on SQLite and PostgreSQL, and the way to the newest schema.

``Database.write`` and ``Database.read`` are the only ways to a connection: one block, one transaction, rolled
back when the block raises. On SQLite a write takes the write lock at its beginning, waits for it when
another process holds it, and is on the disk when the block ends (WAL, ``synchronous=FULL``). On PostgreSQL
a statement has a limited time, a transaction whose client has gone silent is ended, and ``silence`` says what
happens when the server has. ``unavailability`` is why a transaction could not be, if it may be later.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from airflow_provider_lookoutvision.server.settings import SQLITE_FILE, SettingsError
from airflow_provider_lookoutvision.server.storage import schema_version

_BUSY_MILLISECONDS = 30_000
_POOL_SECONDS = 10
_IDLE_MILLISECONDS = 60_000
# A file is made smaller when more of it is free than these bytes, and than one part of so many.
_WASTE, _WASTE_PART = 1 << 20, 10
_STEP, _INCREMENTAL = 1000, 2
_MIGRATION_LOCK = 0x6C6F6F6B  # an arbitrary number that the service's processes share


class DatabaseBusy(Exception):
    """A transaction has waited for too long to write."""


class Database:
    """One database, by URL.

    :param url: an SQLAlchemy URL of SQLite or PostgreSQL.
    :param connections: the most connections held open.
    :raises SettingsError: for another kind of database.
    """

    def __init__(self, url: str, connections: int = 16) -> None:
        address = _address(url)
        backend = address.get_backend_name()
        if backend not in {"sqlite", "postgresql"}:
            raise SettingsError(f"database_url names {backend}; it must be sqlite or postgresql")
        if address.drivername == "postgresql":
            address = address.set(drivername="postgresql+psycopg")
        self.is_sqlite = backend == "sqlite"
        if self.is_sqlite and address.database in {None, "", ":memory:"}:
            raise SettingsError("database_url names a database in memory; it must be a file: sqlite:////path")
        # pysqlite's own transactions begin late and never IMMEDIATE: ``read`` and ``write`` begin them.
        arguments: dict[str, Any] = {"isolation_level": None, "check_same_thread": False}
        if not self.is_sqlite:
            arguments = {**_silence().CONNECT_ARGUMENTS}
            arguments = {name: value for name, value in arguments.items() if name not in address.query}
        try:
            self.engine = sa.create_engine(
                address,
                connect_args=arguments,
                pool_size=connections,
                max_overflow=0,
                pool_timeout=_POOL_SECONDS,
                pool_pre_ping=not self.is_sqlite,
                hide_parameters=True,  # else errors, and so logs, have manifest lines and tokens
            )
            if not self.is_sqlite:
                _silence().bound(self.engine)
        except ModuleNotFoundError as error:
            raise SettingsError(
                f"database_url names {address.drivername}, but {error.name} is not installed: "
                "pip install 'airflow-provider-lookoutvision[postgres]'"
            ) from None
        # Writers of one process queue here, first come first served; SQLite's own waiting polls.
        self._writer = threading.Lock()
        sa.event.listen(self.engine, "connect", _prepare_sqlite if self.is_sqlite else _prepare_postgresql)

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A transaction that reads."""
        with self.engine.begin() as connection:
            if (
                self.is_sqlite
            ):  # which takes no lock, and so can't fail: SQLAlchemy's way would only cost time
                connection.connection.cursor().execute("BEGIN")
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction that writes; committed, and durable, when the block ends.

        :raises DatabaseBusy: when others have been writing for too long.
        """
        with self._turn(), self.engine.begin() as connection:
            if self.is_sqlite:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """On SQLite, this process's turn to write."""
        if not self.is_sqlite:
            yield
            return
        if not self._writer.acquire(timeout=_BUSY_MILLISECONDS / 1000):
            raise DatabaseBusy("other transactions have been writing for too long")
        try:
            yield
        finally:
            self._writer.release()

    def upgrade(self) -> None:
        """Bring the schema to the version of this package; two processes at once do it once.

        :raises SettingsError: when the database is newer than this package.
        """
        if self.is_current():
            return
        with self.write() as connection:
            if not self.is_sqlite:
                _silence().allow_long_statements(connection)
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
            schema_version.upgrade(connection)

    def is_empty(self) -> bool:
        """Whether it has no table at all."""
        with self.read() as connection:
            return not sa.inspect(connection).get_table_names()

    def is_current(self) -> bool:
        """Whether the schema is that of this version."""
        with self.read() as connection:
            return schema_version.current(connection) == schema_version.newest()

    def compact(self) -> None:
        """Give the disk back what deleted rows have left, in small steps; PostgreSQL does it by itself.

        A file of an earlier version is written anew first, once, which holds up other writers meanwhile.
        """
        if not self.is_sqlite:
            return
        raw = self.engine.raw_connection()
        try:
            cursor = raw.cursor()

            def pragma(name: str) -> int:
                return int(cursor.execute(f"PRAGMA {name}").fetchone()[0])

            shrinks = pragma("auto_vacuum") == _INCREMENTAL
            while self._is_worth_it(pragma("freelist_count"), pragma("page_size"), pragma("page_count")):
                with self._writer:
                    if not shrinks:
                        cursor.execute("PRAGMA auto_vacuum = INCREMENTAL")
                    cursor.execute(f"PRAGMA incremental_vacuum({_STEP})" if shrinks else "VACUUM").fetchall()
                if not shrinks:
                    break
            with self._writer:
                cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        finally:
            raw.close()

    @staticmethod
    def _is_worth_it(free: int, page_size: int, pages: int) -> bool:
        return free * page_size > _WASTE and free > pages // _WASTE_PART

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()


def sqlite_path(url: str) -> Path | None:
    """The file of a SQLite database, or None for another kind.

    :raises SettingsError: when it is no database URL.
    """
    address = _address(url)
    is_file = address.get_backend_name() == "sqlite" and address.database
    return Path(address.database) if is_file and address.database else None


def _address(url: str) -> sa.URL:
    if url.startswith(SQLITE_FILE):  # a path, in which nothing means anything to a URL
        return sa.URL.create("sqlite", database=url.removeprefix(SQLITE_FILE))
    try:
        return sa.make_url(url)
    except sa.exc.ArgumentError as error:
        raise SettingsError(f"database_url is not a database URL: {error}") from None


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    # Before anything is written into a new file: later it has no effect, and waits for the write lock.
    if cursor.execute("PRAGMA page_count").fetchone() == (0,):
        cursor.execute("PRAGMA auto_vacuum = INCREMENTAL")
    for pragma in (
        f"busy_timeout = {_BUSY_MILLISECONDS}",
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        "case_sensitive_like = ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _prepare_postgresql(connection: Any, _record: Any) -> None:
    milliseconds = _silence().STATEMENT_SECONDS * 1000
    with connection.cursor() as cursor:
        cursor.execute(f"SET lock_timeout = {milliseconds}")
        cursor.execute(f"SET statement_timeout = {milliseconds}")
        # Else the locks of a machine that dies in a transaction stay for hours, until TCP notices.
        cursor.execute(f"SET idle_in_transaction_session_timeout = {_IDLE_MILLISECONDS}")
    connection.commit()


def _silence() -> Any:
    """The module about PostgreSQL's silence, which needs its driver."""
    from airflow_provider_lookoutvision.server.storage import silence

    return silence


def unavailability(error: BaseException) -> str | None:
    """Why the database can't be used at the moment, or None for an error of another kind."""
    if isinstance(error, DatabaseBusy):
        return str(error)
    if isinstance(error, sa.exc.TimeoutError):
        return "all connections to it are in use"
    if not isinstance(error, sa.exc.DBAPIError):
        return None
    reason = str(error.orig).strip().partition("\n")[0]
    if isinstance(error.orig, sqlite3.Error):
        code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
        return reason if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED} else None
    state = getattr(error.orig, "sqlstate", None)
    lost = error.connection_invalidated or (state is None and isinstance(error, sa.exc.OperationalError))
    return reason if lost or (state or "").startswith(_PASSING_STATES) else None


# Connection exceptions, insufficient resources, an operator's intervention, a lock that didn't become free.
_PASSING_STATES = ("08", "53", "57", "55P03")
