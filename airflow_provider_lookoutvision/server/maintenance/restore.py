"""A service made again from a backup: in an empty data directory, on an empty database of either kind.

A backup of SQLite may be restored into PostgreSQL, and the other way round. One of an earlier version is
brought to the schema of this one. Jobs that were under way begin anew, and models that were hosted are hosted
when the service starts.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from airflow_provider_lookoutvision.server.maintenance import backup
from airflow_provider_lookoutvision.server.settings import SQLITE_FILE, Settings, SettingsError
from airflow_provider_lookoutvision.server.storage import data_directory
from airflow_provider_lookoutvision.server.storage.data_directory import SECRETS
from airflow_provider_lookoutvision.server.storage.database import Database
from airflow_provider_lookoutvision.server.storage.encryption import SECRET_KEY_VARIABLE, write_private
from airflow_provider_lookoutvision.server.storage.schema import access_keys, jobs, metadata


def restore(settings: Settings, source: Path) -> dict[str, Any]:
    """Restore a backup into the data directory and the database that the settings name.

    :return: what the backup's ``backup.json`` says.
    :raises SettingsError: when the backup can't be read, or the target isn't empty; nothing is changed then.
    """
    description = _describe(source)
    _refuse_what_is_there(settings, description)
    with tempfile.TemporaryDirectory(prefix="lookoutvision-restore-") as folder:
        tables = Path(folder) / backup.TABLES
        shutil.copyfile(source / backup.TABLES, tables)
        origin = Database(f"{SQLITE_FILE}{tables.absolute()}")
        try:
            try:
                origin.upgrade()
            except sa.exc.DBAPIError as error:
                raise SettingsError(f"the database of the backup can't be read: {error.orig}") from error
            _restore_tables(settings, origin)
        finally:
            origin.close()
    try:
        for name in SECRETS:
            if (source / name).is_file():
                write_private(settings.data_dir / name, (source / name).read_bytes())
        for name in backup.FOLDERS:
            if (source / name).is_dir():
                shutil.copytree(source / name, settings.data_dir / name, dirs_exist_ok=True)
    except (OSError, shutil.Error) as error:
        raise SettingsError(f"the data directory {settings.data_dir} can't be written: {error}") from error
    return description


def _describe(source: Path) -> dict[str, Any]:
    try:
        description: dict[str, Any] = json.loads((source / backup.DESCRIPTION).read_text())
        readable = description["format"] <= backup.FORMAT and (source / backup.TABLES).is_file()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingsError(f"{source} is no backup that `lookoutvision backup` made: {error}") from None
    if not readable:
        raise SettingsError(f"version {description.get('version')} made {source}: install that version")
    return description


def _refuse_what_is_there(settings: Settings, description: dict[str, Any]) -> None:
    data_dir = settings.data_dir
    if data_dir.exists() and any(data_dir.iterdir()):
        raise SettingsError(f"the data directory {data_dir} isn't empty: a backup is restored into a new one")
    if not description["secret_key"] and not os.environ.get(SECRET_KEY_VARIABLE):
        raise SettingsError(
            f"the backup has no secret key, because the service had it in {SECRET_KEY_VARIABLE}: set that "
            "variable to the same key"
        )


def _restore_tables(settings: Settings, origin: Database) -> None:
    data_directory.prepare(settings)
    target = Database(settings.url)
    try:
        target.upgrade()
        with backup.snapshot(origin) as rows, target.write() as connection:
            if connection.execute(sa.select(sa.func.count()).select_from(access_keys)).scalar_one():
                raise SettingsError("the database isn't empty: a backup is restored into a new one")
            for table in metadata.sorted_tables:
                backup.copy_rows(rows, connection, table)
            # Whoever had them is of another service now, whose clock says nothing here.
            connection.execute(jobs.update().values(owner=None, leased_until=0))
            if not target.is_sqlite:
                _go_on_numbering(connection)
    except sa.exc.DBAPIError as error:
        raise SettingsError(f"the database can't be used: {error.orig}") from error
    finally:
        target.close()


def _go_on_numbering(connection: sa.Connection) -> None:
    """Let PostgreSQL give the next rows IDs after those that were copied."""
    for table in metadata.sorted_tables:
        for column in table.primary_key:
            if column.autoincrement is not True:
                continue
            last = sa.select(sa.func.max(column)).scalar_subquery()
            sequence = sa.func.pg_get_serial_sequence(table.name, column.name)
            connection.execute(
                sa.select(sa.func.setval(sequence, sa.func.coalesce(last, 1), last.is_not(None)))
            )
