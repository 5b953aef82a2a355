"""Files that aren't objects yet: in the folder of their bucket, under a name that S3 never shows.

There, since only a file of the same file system takes an object's place in one step. A writer holds a lock on
its file, so that the leftovers of a killed process are recognised.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from airflow_provider_lookoutvision.server.s3.errors import S3Error

_NAME = re.compile(r"\.s3-[0-9a-f]{32}")
_LEAST_AGE_SECONDS = 60
_SYNCED_BYTES = 64 << 20
UPLOAD_DAYS = 7
_BLOCK = 1 << 20


def new_name() -> str:
    """A name that no key has."""
    return f".s3-{secrets.token_hex(16)}"


class Temporary:
    """A file that is being written."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / new_name()
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self.descriptor = os.open(self.path, flags, 0o666)
        fcntl.flock(self.descriptor, fcntl.LOCK_EX)
        self._unsynced = 0

    def write(self, data: bytes) -> None:
        """Append."""
        view = memoryview(data)
        while view:
            view = view[os.write(self.descriptor, view) :]
        self.written(len(data))

    def written(self, count: int) -> None:
        """Have a large file on the disk as it grows: nobody waits long for its end then."""
        self._unsynced += count
        if self._unsynced >= _SYNCED_BYTES:
            os.fdatasync(self.descriptor)
            self._unsynced = 0

    def sync(self) -> None:
        """Have it on the disk."""
        os.fsync(self.descriptor)

    def close(self) -> None:
        """Remove it, unless it has got another name; and let go of it."""
        if self.descriptor >= 0:
            self.path.unlink(missing_ok=True)
            os.close(self.descriptor)
            self.descriptor = -1


def sweep(bucket: Path) -> int:
    """Remove what killed writers left in a bucket, and uploads that nobody has touched for days."""
    now = time.time()
    removed = 0
    with os.scandir(bucket) as entries:
        found = [Path(entry.path) for entry in entries if _NAME.fullmatch(entry.name)]
    for path in found:
        if path.is_dir() and not path.is_symlink():
            removed += sweep_upload(path, now)
        else:
            removed += _sweep_file(path, now)
    return removed


def sweep_upload(folder: Path, now: float) -> int:
    """Remove what killed writers left of an upload's parts, or all of it when it is old."""
    try:
        newest = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
    except FileNotFoundError:
        return 0
    is_upload = (folder / "upload.json").exists()
    if now - newest > (UPLOAD_DAYS * 86400 if is_upload else _LEAST_AGE_SECONDS):
        shutil.rmtree(folder, ignore_errors=True)
        return 1
    return sum(_sweep_file(path, now) for path in folder.iterdir() if _NAME.fullmatch(path.name))


def _sweep_file(path: Path, now: float) -> int:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        if now - os.fstat(descriptor).st_mtime < _LEAST_AGE_SECONDS:
            return 0
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
    except OSError:
        return 0
    finally:
        os.close(descriptor)
    return 1


def copy(
    source: Path | int,
    begin: int,
    end: int,
    file: Temporary,
    watchers: Sequence[Callable[[bytes], object]] = (),
) -> str:
    """Append bytes of a file to another; what watches sees them all. The MD5 of them, if anything watches."""
    descriptor = source if isinstance(source, int) else os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    digest = hashlib.md5(usedforsecurity=False)
    try:
        if not watchers and _copied_by_the_system(descriptor, begin, end, file):
            return ""
        while begin < end:
            block = os.pread(descriptor, min(_BLOCK, end - begin), begin)
            if not block:
                raise S3Error("InternalError", "The object became shorter while it was read")
            for watch in (digest.update, *watchers):
                watch(block)
            file.write(block)
            begin += len(block)
    finally:
        if not isinstance(source, int):
            os.close(descriptor)
    return digest.hexdigest()


def _copied_by_the_system(descriptor: int, begin: int, end: int, file: Temporary) -> bool:
    """Whether the kernel could do it, which shares the blocks where the file system can."""
    if not hasattr(os, "copy_file_range"):
        return False
    first = begin
    while begin < end:
        try:
            count = min(end - begin, _SYNCED_BYTES)
            done = os.copy_file_range(descriptor, file.descriptor, count, offset_src=begin)
        except OSError as error:
            if begin == first and error.errno in {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}:
                return False
            raise
        if not done:
            raise S3Error("InternalError", "The object became shorter while it was read")
        begin += done
        file.written(done)
    return True
