"""The checksums that S3 knows, computed as the bytes come.

MD5 makes ETags. The others are what clients send beside an object, and want back with it. CRCs of 32 and 64
bits are of an object as a whole or, as the SHAs always are, of the checksums of its parts.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from airflow_provider_lookoutvision.server.s3.errors import S3Error, not_implemented

# The bytes of each checksum that is served, by its name in the API.
SIZES: Mapping[str, int] = {
    "CRC32": 4,
    "CRC32C": 4,
    "CRC64NVME": 8,
    "SHA1": 20,
    "SHA256": 32,
    "SHA512": 64,
    "MD5": 16,
}
NOT_SERVED = ("XXHASH64", "XXHASH3", "XXHASH128")
FULL_OBJECT, COMPOSITE = "FULL_OBJECT", "COMPOSITE"


class Digest(Protocol):
    """A checksum that grows."""

    def update(self, data: bytes) -> None:
        """Add bytes."""

    def digest(self) -> bytes:
        """What it is so far."""


class _Crc:
    def __init__(self, step: Callable[[bytes, int], int], size: int) -> None:
        self._step, self._size, self._value = step, size, 0

    def update(self, data: bytes) -> None:
        self._value = self._step(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._size, "big")


def new(algorithm: str) -> Digest:
    """An empty checksum.

    :raises S3Error: NotImplemented for one that isn't served.
    """
    if algorithm == "CRC32":
        return _Crc(zlib.crc32, 4)
    if algorithm in {"CRC32C", "CRC64NVME"}:
        return _Crc(_anycrc("CRC32C" if algorithm == "CRC32C" else "CRC64-NVME"), SIZES[algorithm])
    if algorithm in SIZES:
        return hashlib.new(algorithm.lower(), usedforsecurity=False)
    return not_implemented(f"The checksum {algorithm} is not served: use one of {', '.join(SIZES)}")


def _anycrc(model: str) -> Any:
    # Its tables take some memory, and few clients use them.
    import anycrc

    return anycrc.Model(model).calc


def encoded(digest: bytes) -> str:
    """A checksum as the API writes it."""
    return base64.b64encode(digest).decode()


def check(name: str, sent: str, size: int) -> None:
    """Refuse what can't be a checksum at all."""
    try:
        valid = len(base64.b64decode(sent, validate=True)) == size
    except (binascii.Error, ValueError):
        valid = False
    if not valid:
        if name == "Content-MD5":
            raise S3Error("InvalidDigest", "The Content-MD5 you specified was invalid.")
        raise S3Error("InvalidRequest", f"Value for {name} header is invalid.")


def composite(algorithm: str, parts: Iterable[str]) -> str:
    """The checksum of the checksums of an object's parts."""
    digest, count = new(algorithm), 0
    for part in parts:
        digest.update(base64.b64decode(part))
        count += 1
    return f"{encoded(digest.digest())}-{count}"


def multipart_etag(parts: Iterable[str]) -> str:
    """The ETag of an object of parts with these ETags."""
    etags = [bytes.fromhex(etag) for etag in parts]
    return f"{hashlib.md5(b''.join(etags), usedforsecurity=False).hexdigest()}-{len(etags)}"
