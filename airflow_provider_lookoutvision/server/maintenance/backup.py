"""A backup of a service that runs: one folder, with which ``restore`` makes the same service again.

::

    backup.json     its version, and what it has
    database.db     all tables, as they were at one moment, as SQLite, whatever the database is
    secret.key      without which the access keys can't be used (not if the environment has it)
    credentials     the first key, if there is one
    buckets/  s3/   folder buckets, and what is known of their objects

The database is read in one transaction. Buckets are copied after it, so that what the tables name is there:
objects are written before a table names them, and take their place whole.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from airflow_provider_lookoutvision import __version__
from airflow_provider_lookoutvision.server.settings import SQLITE_FILE, Settings, SettingsError
from airflow_provider_lookoutvision.server.storage.data_directory import SECRETS
from airflow_provider_lookoutvision.server.storage.database import Database
from airflow_provider_lookoutvision.server.storage.encryption import SECRET_KEY_VARIABLE
from airflow_provider_lookoutvision.server.storage.schema import metadata

FORMAT = 1
DESCRIPTION, TABLES = "backup.json", "database.db"
FOLDERS = ("buckets", "s3")
_BATCH = 500
# Locks, and the names of writes that aren't finished.
_LEFT_OUT = shutil.ignore_patterns("locks", ".s3-*")


def back_up(
    settings: Settings, database: Database, destination: Path, *, buckets: bool = True
) -> dict[str, Any]:
    """Write a backup into a new folder, which has its name when it is complete.

    :param buckets: whether folder buckets are copied too.
    :return: what ``backup.json`` says.
    :raises SettingsError: when the folder is there already, or can't be written.
    """
    if destination.exists():
        raise SettingsError(f"{destination} is there already: name a folder that isn't")
    unfinished = destination.with_name(f".{destination.name}.unfinished")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True, mode=0o700)
        with snapshot(database) as connection:
            counts = _copy_tables(connection, unfinished / TABLES)
            revision = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar_one()
        has_key = not os.environ.get(SECRET_KEY_VARIABLE)
        for name in SECRETS:
            if (has_key or name != "secret.key") and (settings.data_dir / name).is_file():
                shutil.copy2(settings.data_dir / name, unfinished / name)
        has_buckets = buckets and settings.buckets == "directory"
        for name in FOLDERS if has_buckets else ():
            if (settings.data_dir / name).is_dir():
                shutil.copytree(
                    settings.data_dir / name, unfinished / name, ignore=_LEFT_OUT, copy_function=_copy
                )
        description = {
            "format": FORMAT,
            "version": __version__,
            "revision": revision,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "rows": counts,
            "secret_key": has_key,
            "buckets": has_buckets,
        }
        (unfinished / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n")
        _sync(unfinished)
        unfinished.rename(destination)
    except (OSError, sqlite3.Error, shutil.Error) as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise SettingsError(f"the backup {destination} can't be written: {error}") from error
    return description


@contextmanager
def snapshot(database: Database) -> Iterator[sa.Connection]:
    """A transaction that reads everything as it is at one moment, while others write."""
    with database.read() as connection:
        if not database.is_sqlite:
            connection.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
        yield connection


def _copy_tables(source: sa.Connection, path: Path) -> dict[str, int]:
    target = Database(f"{SQLITE_FILE}{path.absolute()}")
    try:
        target.upgrade()
        counts = {}
        with target.write() as connection:
            for table in metadata.sorted_tables:
                counts[table.name] = copy_rows(source, connection, table)
    finally:
        target.close()
    with closing(sqlite3.connect(path)) as whole:  # one file, with nothing in a log beside it
        whole.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        whole.execute("PRAGMA journal_mode = DELETE")
        [problem] = whole.execute("PRAGMA integrity_check").fetchone()
        if problem != "ok":
            raise sqlite3.DatabaseError(problem)
    path.chmod(0o600)
    return counts


def copy_rows(source: sa.Connection, target: sa.Connection, table: sa.Table) -> int:
    """Copy a table's rows, some at a time; how many."""
    count = 0
    target.execute(table.delete())  # what the migrations have put there
    rows = source.execution_options(yield_per=_BATCH).execute(table.select().order_by(*table.primary_key))
    for batch in rows.partitions(_BATCH):
        values: Sequence[dict[str, Any]] = [dict(row._mapping) for row in batch]
        target.execute(table.insert(), values)
        count += len(values)
    return count


def _copy(source: str, destination: str) -> None:
    try:
        shutil.copy2(source, destination)
    except FileNotFoundError:
        return  # it was deleted in this moment


def _sync(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
