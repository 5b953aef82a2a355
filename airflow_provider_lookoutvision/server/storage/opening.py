"""Opening what a service keeps: made at the first time, and upgraded to the newest schema."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from airflow_provider_lookoutvision.server.settings import Settings, SettingsError
from airflow_provider_lookoutvision.server.storage import belonging, data_directory
from airflow_provider_lookoutvision.server.storage.database import Database, sqlite_path
from airflow_provider_lookoutvision.server.storage.encryption import Cipher


@contextmanager
def opened(settings: Settings) -> Iterator[tuple[Database, Cipher]]:
    """The database, upgraded to the newest schema, and its cipher; created if they never existed.

    :raises SettingsError: when they can't be opened, or don't belong together, with the reason.
    """
    with opened_database(settings) as database:
        try:
            cipher = belonging.cipher_of(settings, database)
        except OSError as error:
            raise unusable(settings, error) from None
        yield database, cipher


@contextmanager
def opened_database(settings: Settings, *, create: bool = True) -> Iterator[Database]:
    """The database alone, upgraded to the newest schema.

    :param create: whether a file that isn't there is made.
    :raises SettingsError: when it can't be opened or used, with the reason.
    """
    try:
        path = sqlite_path(settings.url)
        if not create and path is not None and not path.exists():
            raise SettingsError(f"there is no database {path}: name the --data-dir of a service")
        belonging.refuse_a_lost_database(settings)
        data_directory.prepare(settings)
    except OSError as error:
        raise unusable(settings, error) from None
    except sa.exc.DBAPIError as error:
        raise SettingsError(f"the database can't be used: {error.orig}") from error
    database = Database(settings.url, settings.threads)
    try:
        database.upgrade()
        yield database
    except sa.exc.DBAPIError as error:
        raise SettingsError(f"the database can't be used: {error.orig}") from error
    finally:
        database.close()


def unusable(settings: Settings, error: OSError) -> SettingsError:
    """The error of a data directory that can't be read or written."""
    return SettingsError(f"the data directory {settings.data_dir} can't be used: {error}")
