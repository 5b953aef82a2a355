"""The objects of the folder buckets.

An object is a regular file below its bucket's folder, and a key that ends in a slash is a folder with a
record. Objects appear whole: they are written beside, are on the disk, and take their place in one step,
under a lock that all processes of this machine respect. So of two writes at once one wins, and conditions
hold.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from airflow_provider_lookoutvision.server.s3 import folders, keys, temporary
from airflow_provider_lookoutvision.server.s3.buckets import Buckets
from airflow_provider_lookoutvision.server.s3.errors import S3Error, no_such_bucket, no_such_key
from airflow_provider_lookoutvision.server.s3.records import Record
from airflow_provider_lookoutvision.server.s3.temporary import Temporary

_BLOCK = 1 << 20
# A file that was changed a moment ago may be changed again without a new time: its ETag isn't kept yet.
_SETTLED_NS = 1_000_000_000
# Called with the record of what is there, under the lock, and may refuse.
Check = Callable[[Record | None], None]


@dataclass
class Opened:
    """An object to read; ``descriptor`` is of its file, or -1 for a folder marker."""

    record: Record
    descriptor: int

    def close(self) -> None:
        """Let go of the file."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class Objects(Buckets):
    """The objects below a data directory."""

    def open(self, bucket: str, key: str) -> Opened:
        """Open an object.

        :raises S3Error: NoSuchBucket, NoSuchKey.
        """
        path = self.bucket(bucket)
        if not key or keys.problem(key):
            raise no_such_key(key)
        try:
            if key.endswith("/"):
                return self._open_marker(path, bucket, key)
            while True:
                if opened := self._open_file(path, bucket, key):
                    return opened
        except OSError as error:
            if error.errno in folders.MISSING:
                raise no_such_key(key) from None
            raise

    def find(self, bucket: str, key: str) -> Record | None:
        """The record of an object, or None."""
        try:
            opened = self.open(bucket, key)
        except S3Error as error:
            if error.code == "NoSuchKey":
                return None
            raise
        opened.close()
        return opened.record

    def _open_marker(self, path: Path, bucket: str, key: str) -> Opened:
        with folders.folder_of(path, key) as (folder, name):
            is_folder = stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
        record = self.records.read(bucket, key, None)
        if not is_folder or record is None:
            raise no_such_key(key)
        return Opened(record, -1)

    def _open_file(self, path: Path, bucket: str, key: str) -> Opened | None:
        """The file and its record; None when it has just been replaced, and its record with it."""
        with folders.folder_of(path, key) as (folder, name):
            descriptor = folders.open_file(name, folder)
            try:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    raise no_such_key(key)
                record = self.records.read(bucket, key, status)
                if record is None:
                    now = os.stat(name, dir_fd=folder, follow_symlinks=False)
                    if (now.st_ino, now.st_mtime_ns) != (status.st_ino, status.st_mtime_ns):
                        os.close(descriptor)
                        return None
                    record = self._computed(bucket, key, descriptor, status)
            except BaseException:
                os.close(descriptor)
                raise
        return Opened(record, descriptor)

    def _computed(self, bucket: str, key: str, descriptor: int, status: os.stat_result) -> Record:
        """The record of a file that came otherwise than by S3."""
        digest = hashlib.md5(usedforsecurity=False)
        offset = 0
        while block := os.pread(descriptor, _BLOCK, offset):
            digest.update(block)
            offset += len(block)
        record = Record(digest.hexdigest(), status.st_size, status.st_mtime_ns)
        after = os.fstat(descriptor)
        settled = time.time_ns() - after.st_mtime_ns > _SETTLED_NS
        if settled and (after.st_size, after.st_mtime_ns) == (status.st_size, status.st_mtime_ns):
            self.records.write(bucket, key, record, status)
        return record

    # -- writing -------------------------------------------------------------------------------------------

    def check_writable(self, bucket: str, key: str) -> None:
        """Refuse a key that the bucket's folder can't hold, before anything is written.

        :raises S3Error: NoSuchBucket, KeyTooLongError, InvalidArgument, InvalidRequest.
        """
        path = self.bucket(bucket)
        if error := keys.problem(key):
            raise error
        parts = key.removesuffix("/").split("/")
        for number in range(1, len(parts) + 1):
            is_parent = number < len(parts) or key.endswith("/")
            try:
                mode = path.joinpath(*parts[:number]).lstat().st_mode
            except (FileNotFoundError, NotADirectoryError):
                return  # nor is there anything below it
            if is_parent and stat.S_ISLNK(mode):
                raise _no_place(
                    f"{'/'.join(parts[:number])!r} is a symbolic link, which buckets don't follow"
                )
            if is_parent and not stat.S_ISDIR(mode):
                raise _no_place(f"{'/'.join(parts[:number])!r} is an object, and can't be a folder too")
        if stat.S_ISDIR(mode) and not is_parent and self._has_objects(bucket, f"{key}/"):
            raise _no_place(f"{key + '/'!r} is a folder with objects, and can't be an object too")

    def begin(self, bucket: str) -> Temporary:
        """A file to write an object into.

        :raises S3Error: NoSuchBucket.
        """
        try:
            return Temporary(self.bucket(bucket))
        except FileNotFoundError:
            raise no_such_bucket(bucket) from None

    def put(
        self,
        bucket: str,
        key: str,
        file: Temporary,
        record: Record,
        check: Check | None = None,
    ) -> Record:
        """Make a written file the object of a key."""
        file.sync()
        path = self.bucket(bucket)
        self.check_writable(bucket, key)
        self._remove_empty_folders(bucket, f"{key}/")
        with self._locked(bucket, key):
            self.check_writable(bucket, key)
            if check:
                check(self.find(bucket, key))
            old = folders.status_of(path, key)
            status = folders.stamped(file.descriptor, old)
            record = record.of(status)
            self.records.write(bucket, key, record, status)
            try:
                self._place(path, bucket, key, file)
            except BaseException:
                self.records.remove(bucket, key, status)
                raise
            if old and (old.st_size, old.st_mtime_ns) != (status.st_size, status.st_mtime_ns):
                self.records.remove(bucket, key, old)
        return record

    def _place(self, path: Path, bucket: str, key: str, file: Temporary | None) -> None:
        """Make the folders of a key, and the file its object. Without a file its last part is a folder."""
        while True:
            try:
                with folders.folder_of(path, key if file else f"{key}x", create=True) as (folder, name):
                    if file:
                        with suppress(OSError):
                            os.rmdir(name, dir_fd=folder)  # an empty one, which no marker keeps
                        os.replace(file.path, name, dst_dir_fd=folder)
                        os.fsync(folder)
                return
            except IsADirectoryError:
                raise _no_place(f"{key + '/'!r} is a folder that isn't empty") from None
            except OSError as error:
                if error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
                    raise
                if file and not file.path.exists():
                    raise no_such_bucket(bucket) from None
                # A folder was deleted with its last object, or is an object now: then this refuses it.
                self.check_writable(bucket, key)

    def put_marker(self, bucket: str, key: str, record: Record, check: Check | None = None) -> Record:
        """Make a folder marker."""
        path = self.bucket(bucket)
        with self._locked(bucket, key):
            self.check_writable(bucket, key)
            if check:
                check(self.find(bucket, key))
            record = replace(record, size=0, modified_ns=time.time_ns())
            self._place(path, bucket, key, None)
            self.records.write(bucket, key, record, None)
        return record

    def delete(self, bucket: str, key: str, check: Check | None = None) -> None:
        """Delete an object; one that isn't there is deleted already."""
        path = self.bucket(bucket)
        if not key or keys.problem(key):
            return
        with self._locked(bucket, key):
            if check:
                check(self.find(bucket, key))
            if not key.endswith("/"):
                status = folders.status_of(path, key)
                if status is None:
                    return
                with folders.folder_of(path, key) as (folder, name):
                    os.unlink(name, dir_fd=folder)
                    os.fsync(folder)
                self.records.remove(bucket, key, status)
            else:
                self.records.remove(bucket, key, None)
                with suppress(OSError):
                    folders.remove(path, key)
        self._prune(bucket, key)

    def _prune(self, bucket: str, key: str) -> None:
        """Remove the folders that have nothing any more: objects make and unmake them."""
        parts = key.removesuffix("/").split("/")[:-1]
        while parts and self._remove_folder(bucket, "/".join(parts)):
            parts.pop()

    def sweep(self) -> int:
        """Remove what killed writers have left; how much that was."""
        return sum(temporary.sweep(self._buckets / bucket) for bucket, _ in self.buckets())


def _no_place(reason: str) -> S3Error:
    return S3Error("InvalidRequest", f"The buckets of this service are folders: {reason}")
