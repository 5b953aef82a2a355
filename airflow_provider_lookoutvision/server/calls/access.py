"""Access keys and what they may do.

A key belongs to an account and carries three lists of patterns, with IAM's wildcards ``*`` and ``?``: the
actions that it may call (``lookoutvision:Describe*``, ``s3:GetObject``; compared without regard to case, as
IAM does), the names of the projects that it may see, and the names of the buckets that it may have read and
written.
Whatever isn't allowed is refused with AccessDeniedException, and a list shows only what the key may see.
"""

from __future__ import annotations

import base64
import re
import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import sqlalchemy as sa

from airflow_provider_lookoutvision.server.protocol.errors import AccessDeniedException
from airflow_provider_lookoutvision.server.settings import DEFAULT_ACCOUNT
from airflow_provider_lookoutvision.server.storage.database import Database
from airflow_provider_lookoutvision.server.storage.encryption import Cipher
from airflow_provider_lookoutvision.server.storage.schema import access_keys
from airflow_provider_lookoutvision.server.storage.wildcards import EVERYTHING, like, matches

SERVICE = "lookoutvision"
_MOST_CACHED_KEYS = 1024
# Whose actions a key may be allowed: the API's, and those of the buckets.
_SERVICES = (SERVICE, "s3")


@dataclass(frozen=True)
class AccessKey:
    """A key as it is stored, without its secret."""

    access_key_id: str
    account_id: str
    allowed_actions: tuple[str, ...]
    allowed_projects: tuple[str, ...]
    allowed_buckets: tuple[str, ...]
    created_at: int


@dataclass(frozen=True)
class Caller:
    """Who calls, and in which region: the key says the account, the signature's scope the region."""

    key: AccessKey
    region: str

    @property
    def account_id(self) -> str:
        """The account whose resources the caller works on: 12 digits."""
        return self.key.account_id

    def arn(self, resource: str) -> str:
        """The ARN of a resource of the caller's account and region, ``resource`` as in ``project/name``."""
        return self._arn_prefix + resource

    @cached_property
    def _arn_prefix(self) -> str:
        return arn(self.region, self.account_id, "")

    def authorize(
        self, operation: str, project_name: str | None = None, model_version: str | None = None
    ) -> None:
        """Check that the key allows an operation, on a project or a model where there is one.

        :raises AccessDeniedException: when it doesn't.
        """
        action_allowed = matches(
            [pattern.lower() for pattern in self.key.allowed_actions], f"{SERVICE}:{operation}".lower()
        )
        if action_allowed and (project_name is None or self.sees(project_name)):
            return
        model = f"model/{project_name}/{model_version}" if model_version else f"project/{project_name}"
        resource = self.arn(model) if project_name else "*"
        raise AccessDeniedException(
            f"User: {self.user} is not authorized to perform: {SERVICE}:{operation} on resource: {resource}"
        )

    @property
    def user(self) -> str:
        """The ARN that stands for the key."""
        return f"arn:{partition(self.region)}:iam::{self.account_id}:user/{self.key.access_key_id}"

    def sees_bucket(self, bucket: str) -> bool:
        """Whether the key's patterns admit a bucket."""
        return matches(self.key.allowed_buckets, bucket)

    def sees(self, project_name: str) -> bool:
        """Whether the key's patterns admit a project of that name."""
        return matches(self.key.allowed_projects, project_name)


def visible(allowed_projects: Sequence[str], column: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """The same as ``Caller.sees``, as a condition on a column of project names."""
    if "*" in allowed_projects:
        return sa.true()
    return sa.or_(*(column.like(like(pattern), escape="\\") for pattern in allowed_projects))


def arn(region: str, account_id: str, resource: str) -> str:
    """The ARN of one of the service's resources, ``resource`` as in ``project/name``."""
    return f"arn:{partition(region)}:{SERVICE}:{region}:{account_id}:{resource}"


def partition(region: str) -> str:
    """The ARN partition of a region."""
    if region.startswith("cn-"):
        return "aws-cn"
    return "aws-us-gov" if region.startswith("us-gov-") else "aws"


def default_buckets(account_id: str) -> tuple[str, ...]:
    """The buckets of a key that is made without patterns: those that are named for its account.

    Buckets have no owner, so that a key for all of them would read what other accounts have there. The first
    account is the operator's own, who has all of them anyway.
    """
    return EVERYTHING if account_id == DEFAULT_ACCOUNT else (f"{account_id}-*", f"*-{account_id}")


class InvalidKey(ValueError):
    """A key that can't be made as asked; the message says why."""


def create_key(
    connection: sa.Connection,
    cipher: Cipher,
    *,
    account_id: str = DEFAULT_ACCOUNT,
    allowed_actions: Sequence[str] = EVERYTHING,
    allowed_projects: Sequence[str] = EVERYTHING,
    allowed_buckets: Sequence[str] | None = None,
    existing: tuple[str, str] | None = None,
) -> tuple[AccessKey, str]:
    """Make a key; the second value is its secret, which can't be shown again.

    :param allowed_buckets: ``default_buckets`` of the account if None.
    :param existing: the ID and the secret of a key that exists elsewhere. If it is here already, it gets the
        permissions of this call.
    :raises InvalidKey: for an account that isn't 12 digits, an action of a service that isn't here, or the ID
        of another key that is here.
    """
    if not re.fullmatch(r"[0-9]{12}", account_id):
        raise InvalidKey(f"the account {account_id!r} is not 12 digits")
    for action in allowed_actions:
        if action != "*" and action.lower().partition(":")[0] not in _SERVICES:
            raise InvalidKey(
                f"the action {action!r} must be * or begin with {SERVICE}: or s3:, as {SERVICE}:Describe*"
            )
    access_key_id, secret = existing or _new_pair()
    if existing:
        _replace(connection, cipher, access_key_id, secret, account_id)
    key = AccessKey(
        access_key_id,
        account_id,
        tuple(allowed_actions),
        tuple(allowed_projects),
        tuple(default_buckets(account_id) if allowed_buckets is None else allowed_buckets),
        time.time_ns() // 1_000_000,
    )
    connection.execute(
        access_keys.insert().values(
            access_key_id=key.access_key_id,
            account_id=account_id,
            sealed_secret=cipher.encrypt(secret),
            allowed_actions=list(key.allowed_actions),
            allowed_projects=list(key.allowed_projects),
            allowed_buckets=list(key.allowed_buckets),
            created_at=key.created_at,
        )
    )
    return key, secret


def _new_pair() -> tuple[str, str]:
    key_id = "AKIA" + base64.b32encode(secrets.token_bytes(10)).decode()
    return key_id, base64.b64encode(secrets.token_bytes(30)).decode()


def _replace(
    connection: sa.Connection, cipher: Cipher, access_key_id: str, secret: str, account_id: str
) -> None:
    """Delete the key, if it is here, so that it can be made with other permissions."""
    stored = find_key(connection, cipher, access_key_id)
    if stored is None:
        return
    if stored.secret != secret or stored.key.account_id != account_id:
        how = "with another secret" if stored.secret != secret else f"of account {stored.key.account_id}"
        raise InvalidKey(
            f"there is a key {access_key_id} {how} already: `lookoutvision keys delete {access_key_id}` "
            "deletes it"
        )
    delete_key(connection, access_key_id)


def list_keys(connection: sa.Connection) -> Iterable[AccessKey]:
    """Every key, oldest first."""
    rows = connection.execute(
        access_keys.select().order_by(access_keys.c.created_at, access_keys.c.access_key_id)
    )
    return [_key(row) for row in rows]


def delete_key(connection: sa.Connection, access_key_id: str) -> bool:
    """Delete a key; whether there was one. Requests that it signs are refused from now on."""
    deletion = access_keys.delete().where(access_keys.c.access_key_id == access_key_id)
    return connection.execute(deletion).rowcount == 1


_FIND = access_keys.select().where(access_keys.c.access_key_id == sa.bindparam("wanted"))
_CIPHERTEXT = sa.select(access_keys.c.sealed_secret).where(
    access_keys.c.access_key_id == sa.bindparam("wanted")
)


@dataclass(frozen=True)
class StoredKey:
    """A key, its secret, and the ciphertext of the secret."""

    key: AccessKey
    secret: str
    ciphertext: str


def check_seals(connection: sa.Connection, cipher: Cipher) -> None:
    """See that the cipher opens the secret of a stored key, if there is one.

    :raises SettingsError: when another secret key sealed it.
    """
    sealed = connection.execute(sa.select(access_keys.c.sealed_secret).limit(1)).scalar_one_or_none()
    if sealed is not None:
        cipher.decrypt(sealed)


def find_key(connection: sa.Connection, cipher: Cipher, access_key_id: str) -> StoredKey | None:
    """The key of that ID, or None."""
    row = connection.execute(_FIND, {"wanted": access_key_id}).one_or_none()
    return StoredKey(_key(row), cipher.decrypt(row.sealed_secret), row.sealed_secret) if row else None


class StaleKey(Exception):
    """The key has been deleted since it was read."""


class KeyCache:
    """The keys that were used last, so that signatures are verified outside of transactions.

    A key in the cache may have been deleted since: ``confirm`` it in the transaction of the effect, and
    ``refresh`` it before it is refused. A key is never changed in place, and one that is made anew has
    another ciphertext.
    """

    def __init__(self, database: Database, cipher: Cipher) -> None:
        self._database, self._cipher = database, cipher
        self._keys: dict[str, StoredKey] = {}

    def find(self, access_key_id: str) -> StoredKey | None:
        """The key of that ID as it was when it was read last, or None."""
        if (stored := self._keys.get(access_key_id)) is None:
            with self._database.read() as connection:
                stored = find_key(connection, self._cipher, access_key_id)
            if stored:
                if len(self._keys) >= _MOST_CACHED_KEYS:
                    self._keys.clear()
                self._keys[access_key_id] = stored
        return stored

    def refresh(self, access_key_id: str) -> bool:
        """Forget the key if it isn't as it was found, so that it is read again; whether it was forgotten.

        For a refusal, which may be due to a secret or to permissions that the key had.
        """
        if access_key_id not in self._keys:
            return False
        try:
            with self._database.read() as connection:
                self.confirm(connection, access_key_id)
        except StaleKey:
            return True
        return False

    def confirm(self, connection: sa.Connection, access_key_id: str) -> None:
        """Check that the key is still as it was found.

        :raises StaleKey: when it isn't: ``find`` reads it again.
        """
        stored = self._keys.get(access_key_id)
        ciphertext = connection.execute(_CIPHERTEXT, {"wanted": access_key_id}).scalar_one_or_none()
        if stored is None or stored.ciphertext != ciphertext:
            self._keys.pop(access_key_id, None)
            raise StaleKey(access_key_id)


def _key(row: sa.Row[tuple[object, ...]]) -> AccessKey:
    return AccessKey(
        row.access_key_id,
        row.account_id,
        tuple(row.allowed_actions),
        tuple(row.allowed_projects),
        tuple(row.allowed_buckets),
        row.created_at,
    )
