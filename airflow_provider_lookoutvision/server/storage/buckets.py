"""Buckets: a directory tree by default, or S3.

``s3://bucket/key`` is ``<data-dir>/buckets/<bucket>/<key>``, or an object of S3 at any endpoint. Who reads or
writes does it through a ``Buckets`` that knows the caller's bucket patterns, in a request as in a job, so
that the service's own credentials lend nobody anything. No key leaves its bucket: parts such as ``..`` are no
names, and symbolic links inside a bucket aren't followed. (A bucket itself may be a link that the operator
of the service has put there.)
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import secrets
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from airflow_provider_lookoutvision.server.settings import Settings, SettingsError
from airflow_provider_lookoutvision.server.storage.wildcards import matches

_BUCKET = re.compile(r"[0-9A-Za-z._-]{3,63}")
_S3_TIMEOUT_SECONDS = 20
_TRIES = 10
# What S3 says when it is the service's own credentials, or clock, that are wrong.
_S3_CREDENTIAL_FAULTS = frozenset(
    {"ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "RequestTimeTooSkewed", "SignatureDoesNotMatch"}
)


log = logging.getLogger("lookoutvision")


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


def store(settings: Settings) -> Store:
    """The store that the settings name."""
    if settings.buckets == "s3":
        return S3Store(settings.s3_endpoint_url)
    return DirectoryStore(settings.data_dir / "buckets")


class DirectoryStore:
    """Objects as files: ``<root>/<bucket>/<key>``."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def check(self, bucket: str) -> None:
        """Make the folder, since a directory has no other way to get a bucket."""
        try:
            (self._root / bucket).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BucketError(f"the bucket {bucket} can't be used: {error.strerror}", input=False) from None

    def open(self, location: Location, most: int) -> BinaryIO:
        """The file, if it is one."""
        if location.version_id:
            raise BucketError(
                f"{location} names a version, but directories keep none: leave VersionId out", input=True
            )
        with self._folder(location, create=False) as (folder, name):
            # Without O_NONBLOCK a named pipe would wait here for its writer, for ever.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            descriptor = os.open(name, flags, dir_fd=folder)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise BucketError(f"{location} is not a file", input=True)
            _check_size(location, status.st_size, most)
        except BaseException:
            os.close(descriptor)
            raise
        return os.fdopen(descriptor, "rb")

    def write(self, location: Location, content: bytes) -> None:
        """Write a file beside it, then put it in its place."""
        for tries_left in reversed(range(_TRIES)):
            try:
                self._write(location, content)
            except BucketError as error:
                # A folder goes with its last object, and may have done so just now.
                if not (tries_left and isinstance(error.__context__, FileNotFoundError)):
                    raise
            else:
                return

    def stamp(self, location: Location) -> str:
        """The file's size and the time of its last change."""
        with self.open(location, sys.maxsize) as file:
            status = os.fstat(file.fileno())
        return f"{status.st_size}-{status.st_mtime_ns}"

    def _write(self, location: Location, content: bytes) -> None:
        with self._folder(location, create=True) as (folder, name):
            # Where, and by which name and lock, the service's S3 sweeps what killed writers leave.
            temporary = self._root / location.bucket / f".s3-{secrets.token_hex(16)}"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            try:
                with os.fdopen(os.open(temporary, flags, 0o666), "wb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX)
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                    os.replace(temporary, name, dst_dir_fd=folder)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise

    @contextmanager
    def _folder(self, location: Location, *, create: bool) -> Iterator[tuple[int, str]]:
        """Descend to the folder of a key, one name after another, following no link."""
        *folders, name = location.key.split("/")
        if not name:
            raise BucketError(f"{location} is a folder, not an object", input=True)
        descriptor = -1
        try:
            bucket = self._root / location.bucket
            if create:
                bucket.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(bucket, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            for folder in filter(None, folders):
                if create:
                    _make_folder(folder, descriptor)
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                child = os.open(folder, flags, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = child
            yield descriptor, name
        except OSError as error:
            raise _from_os(location, error, self._root) from None
        finally:
            if descriptor >= 0:
                os.close(descriptor)


def _check_size(location: Location, size: int, most: int) -> None:
    if size > most:
        raise BucketError(f"{location} has {size} bytes; the most is {most}", input=True)


def _make_folder(name: str, parent: int) -> None:
    with suppress(FileExistsError):
        os.mkdir(name, dir_fd=parent)


def _from_os(location: Location, error: OSError, root: Path) -> BucketError:
    if error.errno == errno.ENOENT:
        # Where that is on the machine is for the operator of the service to know, not for its callers.
        place = f"the data directory's {root.name}/{location.bucket}"
        return BucketError(f"{location} does not exist (looked in {place})", input=True)
    if error.errno in {errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ENXIO}:
        return BucketError(f"{location} is not a file", input=True)
    if error.errno == errno.ELOOP:
        return BucketError(
            f"{location} leads through a symbolic link, which buckets don't follow", input=True
        )
    return BucketError(f"{location} can't be used: {error.strerror}", input=error.errno == errno.EACCES)


class S3Store:
    """Objects in S3, with the service's own AWS configuration.

    :param endpoint_url: another endpoint than AWS's; empty for what the AWS configuration says.
    """

    def __init__(self, endpoint_url: str) -> None:
        self._endpoint_url = endpoint_url or None

    def check(self, bucket: str) -> None:
        """See whether there is one; only a write can show it where the credentials may not list it."""
        from botocore.exceptions import ClientError

        with _translated(Location(bucket, "")):
            try:
                _s3_client(self._endpoint_url).head_bucket(Bucket=bucket)
            except ClientError as error:
                # HeadBucket needs s3:ListBucket, and a job needs s3:GetObject and s3:PutObject alone.
                if error.response["Error"]["Code"] not in {"403", "AccessDenied"}:
                    raise

    def open(self, location: Location, most: int) -> BinaryIO:
        """The object's body, spooled to a temporary file: what is slow to use can't lose the connection."""
        arguments = {"Bucket": location.bucket, "Key": location.key}
        if location.version_id:
            arguments["VersionId"] = location.version_id
        spool = tempfile.SpooledTemporaryFile(max_size=16 << 20)  # noqa: SIM115 (the caller closes it)
        try:
            with _translated(location):
                answer = _s3_client(self._endpoint_url).get_object(**arguments)
                with closing(answer["Body"]) as body:
                    _check_size(location, answer["ContentLength"], most)
                    for chunk in body.iter_chunks(1 << 20):
                        spool.write(chunk)
        except BaseException:
            spool.close()
            raise
        spool.seek(0)
        return cast("BinaryIO", spool)

    def write(self, location: Location, content: bytes) -> None:
        """Put the object."""
        with _translated(location):
            _s3_client(self._endpoint_url).put_object(Bucket=location.bucket, Key=location.key, Body=content)

    def stamp(self, location: Location) -> str:
        """Its ETag."""
        with _translated(location):
            found = _s3_client(self._endpoint_url).head_object(Bucket=location.bucket, Key=location.key)
        return str(found["ETag"])

    def keys(self, bucket: str, prefix: str) -> Iterator[str]:
        """The keys below a prefix, in order."""
        with _translated(Location(bucket, prefix)):
            pages = _s3_client(self._endpoint_url).get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=bucket, Prefix=prefix):
                yield from (each["Key"] for each in page.get("Contents", ()))


@cache
def _s3_client(endpoint_url: str | None) -> Any:
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError
    from botocore.session import Session

    config = Config(
        connect_timeout=_S3_TIMEOUT_SECONDS, read_timeout=_S3_TIMEOUT_SECONDS, retries={"mode": "standard"}
    )
    try:
        return Session().create_client("s3", endpoint_url=endpoint_url, config=config)
    except (BotoCoreError, ValueError) as error:
        raise SettingsError(f"S3 can't be used: {error}") from None


@contextmanager
def _translated(location: Location) -> Iterator[None]:
    from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, NoCredentialsError

    try:
        yield
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        code = error.response["Error"]["Code"]
        _log_fault(location, error)
        if code in _S3_CREDENTIAL_FAULTS:
            raise _unreachable(location, "S3 refuses the service's own credentials, or its clock") from None
        reason = {
            404: "does not exist",
            403: "may not be used with the service's credentials, or does not exist",
        }.get(status, f"can't be used: S3 answered with the error {code}")
        raise BucketError(f"{location} {reason}", input=status in {400, 403, 404, 405}) from None
    except NoCredentialsError as error:
        _log_fault(location, error)
        raise _unreachable(location, "the service has no credentials for S3") from None
    except (BotoCoreError, HTTPClientError, OSError) as error:
        _log_fault(location, error)
        raise _unreachable(location, "S3 doesn't answer") from None


def _log_fault(location: Location, error: Exception) -> None:
    # Where the S3 is and what it says is for the operator of the service, not for its callers.
    log.warning("an object of S3 can't be used", extra={"location": str(location), "reason": str(error)})


def _unreachable(location: Location, reason: str) -> BucketError:
    return BucketError(
        f"{location} can't be reached: {reason}; the log of the service says more", input=False
    )
