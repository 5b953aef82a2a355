"""What a service keeps, opened as it is: nothing is made, and nothing is upgraded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from airflow_provider_lookoutvision.server.settings import Settings, SettingsError
from airflow_provider_lookoutvision.server.storage import encryption
from airflow_provider_lookoutvision.server.storage.database import Database, sqlite_path
from airflow_provider_lookoutvision.server.storage.encryption import SECRET_KEY_VARIABLE, Cipher


@contextmanager
def as_it_is(settings: Settings) -> Iterator[tuple[Database, Cipher]]:
    """The database and the cipher of a service that exists.

    :raises SettingsError: when there is none, or one of another version.
    """
    try:
        path = sqlite_path(settings.url)
        if path is not None and not path.is_file():
            raise SettingsError(f"there is no service in {settings.data_dir}: name its --data-dir")
        if not os.environ.get(SECRET_KEY_VARIABLE) and not (settings.data_dir / "secret.key").is_file():
            raise SettingsError(
                f"there is no secret.key in {settings.data_dir}, and {SECRET_KEY_VARIABLE} isn't set: "
                "restore it from a backup"
            )
        cipher = encryption.load(settings.data_dir)
    except OSError as error:
        raise SettingsError(f"the data directory {settings.data_dir} can't be used: {error}") from None
    database = Database(settings.url, settings.threads)
    try:
        try:
            if not database.is_current():
                raise SettingsError(
                    "the database has the schema of another version: start the service of this version once, "
                    "which upgrades it"
                )
        except sa.exc.DBAPIError as error:
            raise SettingsError(f"the database can't be used: {error.orig}") from error
        try:
            yield database, cipher
        except sa.exc.DBAPIError as error:
            raise SettingsError(f"the database can't be used: {error.orig}") from error
    finally:
        database.close()
