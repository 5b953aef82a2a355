"""Who is signed in: a row for each session, and in the browser a cookie with a random number.

The row names the access key, never its secret, and the cookie says nothing by itself: a key that is deleted,
a session that is signed out or that has expired ends access at once, in every process of the service.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass

import sqlalchemy as sa

from airflow_provider_lookoutvision.server.calls.access import KeyCache
from airflow_provider_lookoutvision.server.storage.database import Database
from airflow_provider_lookoutvision.server.storage.encryption import Cipher
from airflow_provider_lookoutvision.server.storage.schema import console_sessions as table

SECONDS = 12 * 60 * 60
_CSRF = "console csrf"


@dataclass(frozen=True)
class Session:
    """A session.

    :param secret: what the cookie holds.
    :param csrf: what each request that changes something has to bring along.
    """

    secret: str
    access_key_id: str
    region: str
    csrf: str


class Sessions:
    """The sessions of all processes on one database."""

    def __init__(self, database: Database, cipher: Cipher, keys: KeyCache) -> None:
        self._database, self._cipher, self._keys = database, cipher, keys

    def begin(self, access_key_id: str, secret_access_key: str, region: str) -> Session | None:
        """Sign in; None when there is no such key, or its secret is another one."""
        self._keys.refresh(access_key_id)
        stored = self._keys.find(access_key_id)
        expected = stored.secret if stored else secrets.token_urlsafe(30)
        if not hmac.compare_digest(expected.encode(), secret_access_key.encode()) or stored is None:
            return None
        secret = secrets.token_urlsafe(32)
        now = _now()
        with self._database.write() as connection:
            connection.execute(
                table.insert().values(
                    digest=_digest(secret),
                    access_key_id=access_key_id,
                    region=region,
                    created_at=now,
                    expires_at=now + SECONDS * 1000,
                )
            )
        return self._session(secret, access_key_id, region)

    def find(self, secret: str) -> Session | None:
        """The session of a cookie, or None when it is over."""
        query = table.select().where(table.c.digest == _digest(secret), table.c.expires_at > _now())
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        return self._session(secret, row.access_key_id, row.region) if row else None

    def move(self, session: Session, region: str) -> None:
        """Go on in another region."""
        self._execute(table.update().where(table.c.digest == _digest(session.secret)).values(region=region))

    def end(self, session: Session) -> None:
        """Sign out."""
        self._execute(table.delete().where(table.c.digest == _digest(session.secret)))

    def purge(self) -> None:
        """Forget the sessions that have expired."""
        self._execute(table.delete().where(table.c.expires_at <= _now()))

    def _execute(self, statement: sa.Executable) -> None:
        with self._database.write() as connection:
            connection.execute(statement)

    def _session(self, secret: str, access_key_id: str, region: str) -> Session:
        csrf = self._cipher.sign(_CSRF, secret.encode()).hex()
        return Session(secret, access_key_id, region, csrf)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _now() -> int:
    return time.time_ns() // 1_000_000
