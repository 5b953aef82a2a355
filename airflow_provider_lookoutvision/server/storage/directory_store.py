"""Objects as files: how a directory is a store of buckets, without following links or showing half a file."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from airflow_provider_lookoutvision.server.storage.buckets import BucketError, Location, check_size

_TRIES = 10


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
            check_size(location, status.st_size, most)
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
