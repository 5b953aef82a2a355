"""That a database, a secret key and a data directory belong together.

A secret key that was lost, or is another one's, must not be replaced silently: no access key would work. Nor
must a database that was lost: everything would seem to be deleted. So the key is made after the tables and
signed into them, and whoever opens both sees what is missing.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from airflow_provider_lookoutvision.server.settings import Settings, SettingsError
from airflow_provider_lookoutvision.server.storage import encryption
from airflow_provider_lookoutvision.server.storage.data_directory import SECRETS
from airflow_provider_lookoutvision.server.storage.database import Database, sqlite_path
from airflow_provider_lookoutvision.server.storage.encryption import SECRET_KEY_VARIABLE, Cipher
from airflow_provider_lookoutvision.server.storage.schema import (
    access_keys,
    console_sessions,
    insert_new,
    service_state,
)

_NAME, _PURPOSE = "secret_key", "database"
_LOCK = "serve.lock"


def refuse_a_lost_database(settings: Settings) -> None:
    """See that there is a database, or that there never was one.

    :raises SettingsError: when the data directory has secrets of one that isn't there.
    """
    left = " and ".join(name for name in SECRETS if (settings.data_dir / name).exists())
    if left and _is_missing(settings):
        raise SettingsError(
            f"{settings.data_dir} has {left} of a database that isn't there: restore that, or name it. "
            f"To begin with an empty one, move {left} to another place"
        )


def _is_missing(settings: Settings) -> bool:
    path = sqlite_path(settings.url)
    if path is not None and not (path.exists() and path.stat().st_size):
        return True
    database = Database(settings.url, 1)
    try:
        return database.is_empty()
    finally:
        database.close()


def cipher_of(settings: Settings, database: Database) -> Cipher:
    """The cipher of a database, whose key is made if there never was one.

    :raises SettingsError: when the key is missing, or that of another database.
    """
    path = settings.data_dir / SECRETS[0]
    if not os.environ.get(SECRET_KEY_VARIABLE) and not path.exists() and _has_a_key(database):
        raise SettingsError(
            f"the secret key of the database is missing: restore {path}, or set {SECRET_KEY_VARIABLE}. If it "
            "is lost, `lookoutvision keys reset` deletes all access keys and makes a new one"
        )
    cipher = encryption.load(settings.data_dir)
    if not belongs(database, cipher):
        raise SettingsError(
            f"the secret key is not that of the database: restore {path}, or the value of "
            f"{SECRET_KEY_VARIABLE}, that it was used with, or name its own database. If its key is lost, "
            "`lookoutvision keys reset` deletes all access keys and goes on with this one"
        )
    with database.read() as connection:
        marked = connection.execute(_MARK).scalar_one_or_none()
    if marked is None:
        with database.write() as connection:
            insert_new(connection, service_state, name=_NAME, value=_mark(cipher), seen_at=_now())
    return cipher


def belongs(database: Database, cipher: Cipher) -> bool:
    """Whether a cipher is the database's, or the database has none yet."""
    with database.read() as connection:
        mark = connection.execute(_MARK).scalar_one_or_none()
        if mark is not None:
            return bool(mark == _mark(cipher))
        # One of an earlier version.
        sealed = connection.execute(sa.select(access_keys.c.sealed_secret).limit(1)).scalar_one_or_none()
    try:
        return sealed is None or bool(cipher.decrypt(sealed))
    except SettingsError:
        return False


def reset(settings: Settings, database: Database) -> int:
    """Delete all access keys, and take the secret key that is there, or a new one; how many there were."""
    cipher = encryption.load(settings.data_dir)
    with database.write() as connection:
        connection.execute(console_sessions.delete())
        deleted = connection.execute(access_keys.delete()).rowcount
        connection.execute(service_state.delete().where(service_state.c.name == _NAME))
        insert_new(connection, service_state, name=_NAME, value=_mark(cipher), seen_at=_now())
    return deleted


@contextmanager
def alone(settings: Settings) -> Iterator[None]:
    """The only server on this data directory, while the block runs.

    :raises SettingsError: when there is another.
    """
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = (settings.data_dir / _LOCK).open("a+")
    except OSError as error:
        raise SettingsError(f"the data directory {settings.data_dir} can't be used: {error}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise SettingsError(
                f"another `lookoutvision serve` (process {file.read().strip()}) uses the data directory "
                f"{settings.data_dir}: stop it, or set another --data-dir"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


_MARK = sa.select(service_state.c.value).where(service_state.c.name == _NAME)


def _has_a_key(database: Database) -> bool:
    with database.read() as connection:
        marked = connection.execute(_MARK).scalar_one_or_none() is not None
        return (
            marked or connection.execute(sa.select(access_keys.c.access_key_id).limit(1)).first() is not None
        )


def _mark(cipher: Cipher) -> str:
    return cipher.sign(_PURPOSE, b"").hex()


def _now() -> int:
    return time.time_ns() // 1_000_000
