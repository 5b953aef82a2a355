"""Buckets: a directory tree by default, or S3.

``s3://bucket/key`` is ``<data-dir>/buckets/<bucket>/<key>``, or an object of S3 at any endpoint. Who reads or
writes does it through a ``Buckets`` that knows the caller's bucket patterns, in a request as in a job, so
that the service's own credentials lend nobody anything. No key leaves its bucket: parts such as ``..`` are no
names, and symbolic links inside a bucket aren't followed. (A bucket itself may be a link that the operator
of the service has put there.)
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from airflow_provider_lookoutvision.server.storage.wildcards import matches

_BUCKET = re.compile(r"[0-9A-Za-z._-]{3,63}")


class BucketError(Exception):
    """An object can't be read or written; the message says which and why.

    ``input`` says whose fault it is: true when the request must change (no such object, no right to it),
    false when the same request may succeed later.
    """

    def __init__(self, message: str, *, input: bool) -> None:  # noqa: A002 (as in "input or machine")
        super().__init__(message)
        self.input = input


@dataclass(frozen=True)
class Location:
    """An object: a bucket, a key, and where the store has them a version."""

    bucket: str
    key: str
    version_id: str | None = None

    def __str__(self) -> str:
        """As users write it."""
        return f"s3://{self.bucket}/{self.key}" + (f" (version {self.version_id})" if self.version_id else "")

    @classmethod
    def of(cls, uri: str) -> Location:
        """The location that ``s3://bucket/key`` names."""
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        return cls(bucket, key)


def is_key(key: str) -> bool:
    """Whether it can name an object: its parts are names, and a folder can hold them."""
    return not {".", ".."} & set(key.split("/")) and "\0" not in key


class Store(Protocol):
    """Where objects lie. Every method raises BucketError when the object can't be had."""

    def check(self, bucket: str) -> None:
        """See whether there is such a bucket to write to."""

    def open(self, location: Location, most: int) -> BinaryIO:
        """The object's bytes as a stream; refused when it has more than ``most``."""

    def write(self, location: Location, content: bytes) -> None:
        """Write the object whole, replacing what was there."""

    def stamp(self, location: Location) -> str:
        """A text that changes when the object does."""


class Buckets:
    """A store, seen with a caller's rights.

    :param patterns: the names of the buckets that may be used, with ``*`` and ``?``.
    """

    def __init__(self, store: Store, patterns: Sequence[str]) -> None:
        self._store = store
        self._patterns = patterns

    def allows(self, bucket: str) -> bool:
        """Whether the patterns admit the bucket."""
        return matches(self._patterns, bucket)

    def check(self, bucket: str) -> None:
        """Refuse a bucket to which nothing could be written."""
        self._check(Location(bucket, ""))
        self._store.check(bucket)

    @contextmanager
    def open(self, location: Location, most: int) -> Iterator[BinaryIO]:
        """The object's bytes as a stream, closed after the block; refused when it has more than ``most``."""
        self._check(location)
        stream = self._store.open(location, most)
        try:
            yield stream
        except OSError as error:
            raise BucketError(f"{location} can't be read: {error.strerror}", input=False) from None
        finally:
            stream.close()

    def write(self, location: Location, content: bytes) -> None:
        """Write the object whole, replacing what was there."""
        self._check(location)
        self._store.write(location, content)

    def stamp(self, location: Location) -> str:
        """A text that changes when the object does."""
        self._check(location)
        return self._store.stamp(location)

    def _check(self, location: Location) -> None:
        if not self.allows(location.bucket):
            raise BucketError(f"the access key may not use the bucket of {location}", input=True)
        if not (_BUCKET.fullmatch(location.bucket) and is_key(location.bucket) and is_key(location.key)):
            raise BucketError(f"{location} names no object", input=True)


def check_size(location: Location, size: int, most: int) -> None:
    """Refuse an object that has more than ``most`` bytes."""
    if size > most:
        raise BucketError(f"{location} has {size} bytes; the most is {most}", input=True)
