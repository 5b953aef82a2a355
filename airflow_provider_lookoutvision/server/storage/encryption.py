"""Secrets at rest and tokens on the way: one master key, kept out of the database.

The key comes from ``LOOKOUTVISION_SECRET_KEY`` (needed where several machines share one database), or from
``secret.key`` in the data directory, made at the first start with mode 0600. It encrypts the secret access
keys, which SigV4 needs in the clear, and signs what a client carries back to us.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import os
import tempfile
from functools import lru_cache
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken

from airflow_provider_lookoutvision.server.settings import SettingsError

SECRET_KEY_VARIABLE = "LOOKOUTVISION_SECRET_KEY"  # noqa: S105 (a variable's name)
_SIGNATURE_BYTES = 16


class Cipher:
    """Encrypts and signs with one key.

    :param key: 32 bytes as URL-safe base64, as ``cryptography.fernet.Fernet.generate_key`` makes them.
    :raises SettingsError: when it isn't that.
    """

    def __init__(self, key: bytes) -> None:
        try:
            self._fernet = Fernet(key)
        except ValueError:
            raise SettingsError("the secret key must be 32 bytes as URL-safe base64") from None
        self._signing_key = hmac.digest(base64.urlsafe_b64decode(key), b"signing", "sha256")
        self._decrypted = lru_cache(maxsize=1024)(self._fernet.decrypt)

    def encrypt(self, secret: str) -> str:
        """Encrypt a secret."""
        return self._fernet.encrypt(secret.encode()).decode()

    def decrypt(self, sealed: str) -> str:
        """Decrypt what ``encrypt`` made.

        :raises SettingsError: when another key encrypted it.
        """
        try:
            return self._decrypted(sealed).decode()
        except InvalidToken:
            raise SettingsError(
                "a stored secret was encrypted with another secret key: restore the secret.key file or "
                f"{SECRET_KEY_VARIABLE}, or delete the access key and create a new one"
            ) from None

    def sign(self, purpose: str, text: bytes) -> bytes:
        """A signature of ``text``, good for this purpose only."""
        return hmac.digest(self._signing_key, purpose.encode() + b"\0" + text, hashlib.sha256)[
            :_SIGNATURE_BYTES
        ]

    def verifies(self, purpose: str, text: bytes, signature: bytes) -> bool:
        """Whether ``sign`` made that signature."""
        return hmac.compare_digest(self.sign(purpose, text), signature)


def load(data_dir: Path) -> Cipher:
    """The cipher of this service, by the key of the environment or of the data directory (made at need)."""
    if key := os.environ.get(SECRET_KEY_VARIABLE):
        return Cipher(key.encode())
    path = data_dir / "secret.key"
    if not path.exists():
        write_private(path, Fernet.generate_key(), replace=False)
    return Cipher(path.read_bytes().strip())


def write_private(path: Path, content: bytes, *, replace: bool = True) -> None:
    """Write a file that only its owner can read, whole or not at all.

    :param replace: when False, a file that is already there stays as it is.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            Path(name).replace(path)
        else:
            with contextlib.suppress(FileExistsError):
                path.hardlink_to(name)
    finally:
        Path(name).unlink(missing_ok=True)
