"""The objects of the folder buckets.

An object is a regular file below its bucket's folder, and a key that ends in a slash is a folder with a
record. Objects appear whole: they are written beside, are on the disk, and take their place in one step,
under a lock that all processes of this machine respect. So of two writes at once one wins, and conditions
hold.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from airflow_provider_lookoutvision.server.s3 import folders, keys, temporary
from airflow_provider_lookoutvision.server.s3.errors import S3Error, no_such_bucket, no_such_key
from airflow_provider_lookoutvision.server.s3.records import Record, Records, write_whole
from airflow_provider_lookoutvision.server.s3.temporary import Temporary

_LOCKS = 256
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


class Objects:
    """Buckets and objects below a data directory."""

    def __init__(self, data_dir: Path) -> None:
        self._buckets = data_dir / "buckets"
        self._state = data_dir / "s3"
        self.records = Records(self._state / "records")

    # -- buckets -------------------------------------------------------------------------------------------

    def buckets(self) -> list[tuple[str, float]]:
        """Every bucket, with the time it was made, in seconds since the epoch."""
        try:
            names = sorted(path.name for path in self._buckets.iterdir() if path.is_dir())
        except FileNotFoundError:
            return []
        return [(name, self._made(name)) for name in names if keys.is_bucket_name(name)]

    def bucket(self, bucket: str) -> Path:
        """The folder of a bucket.

        :raises S3Error: NoSuchBucket.
        """
        path = self._buckets / bucket
        if not keys.is_bucket_name(bucket) or not path.is_dir():
            raise no_such_bucket(bucket)
        return path

    def create_bucket(self, bucket: str) -> bool:
        """Make a bucket; False when it is there already."""
        if not keys.is_new_bucket_name(bucket):
            raise S3Error("InvalidBucketName", "The specified bucket is not valid.", BucketName=bucket)
        self._buckets.mkdir(parents=True, exist_ok=True)
        try:
            (self._buckets / bucket).mkdir()
        except FileExistsError:
            return False
        self._state.joinpath("made").mkdir(parents=True, exist_ok=True, mode=0o700)
        write_whole(self._state / "made" / bucket, str(time.time()).encode())
        folder = os.open(self._buckets, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return True

    def delete_bucket(self, bucket: str) -> None:
        """Remove a bucket that has no objects, with its unfinished uploads.

        :raises S3Error: BucketNotEmpty, for files too that are no objects.
        """
        path = self.bucket(bucket)
        if path.is_symlink():
            raise S3Error("AccessDenied", "The bucket is a link that only the operator can remove")
        not_empty = S3Error(
            "BucketNotEmpty", "The bucket you tried to delete is not empty", BucketName=bucket
        )
        if any(self.listed(bucket, by_folder=False)):
            raise not_empty
        for unfinished in path.glob(".s3-*"):
            if keys.is_hidden(unfinished.name):
                shutil.rmtree(unfinished, ignore_errors=True)
        try:
            for folder, _, _ in os.walk(path, topdown=False):
                Path(folder).rmdir()
        except FileNotFoundError:
            raise no_such_bucket(bucket) from None
        except OSError:
            path.mkdir(exist_ok=True)
            raise not_empty from None
        self.records.remove_bucket(bucket)
        self._state.joinpath("made", bucket).unlink(missing_ok=True)

    def _made(self, bucket: str) -> float:
        try:
            return float((self._state / "made" / bucket).read_text())
        except (FileNotFoundError, ValueError):
            with suppress(FileNotFoundError):
                return (self._buckets / bucket).stat().st_mtime
            return 0.0

    # -- reading -------------------------------------------------------------------------------------------

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

    def listed(self, bucket: str, prefix: str = "", after: str = "", *, by_folder: bool) -> Iterator[str]:
        """The keys of a bucket in order, and with ``by_folder`` the folders that have any."""
        path = self.bucket(bucket)
        for entry in folders.walk(path, prefix, after, by_folder=by_folder):
            if entry.is_prefix:
                if any(self._is_object(bucket, below) for below in folders.walk(path, entry.key)):
                    yield entry.key
            elif self._is_object(bucket, entry):
                yield entry.key

    def _is_object(self, bucket: str, entry: folders.Entry) -> bool:
        return entry.status is not None or self.records.read(bucket, entry.key, None) is not None

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
            place = path.joinpath(*parts[:number])
            if place.is_symlink() and number < len(parts):
                raise _no_place(
                    f"{'/'.join(parts[:number])!r} is a symbolic link, which buckets don't follow"
                )
            is_parent = number < len(parts) or key.endswith("/")
            if is_parent and place.exists() and not place.is_dir():
                raise _no_place(f"{'/'.join(parts[:number])!r} is an object, and can't be a folder too")
            is_taken = not is_parent and place.is_dir() and not place.is_symlink()
            if is_taken and any(self.listed(bucket, f"{key}/", by_folder=False)):
                raise _no_place(f"{key + '/'!r} is a folder with objects, and can't be an object too")

    def begin(self, bucket: str) -> Temporary:
        """A file to write an object into."""
        return Temporary(self.bucket(bucket))

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
        with self._locked(bucket, key):
            self.check_writable(bucket, key)
            if check:
                check(self.find(bucket, key))
            old = folders.status_of(path, key)
            status = folders.stamped(file.descriptor, old)
            record = record.of(status)
            self.records.write(bucket, key, record, status)
            try:
                self._take_place(path, bucket, key, file)
            except BaseException:
                self.records.remove(bucket, key, status)
                raise
            if old and (old.st_size, old.st_mtime_ns) != (status.st_size, status.st_mtime_ns):
                self.records.remove(bucket, key, old)
        return record

    def _take_place(self, path: Path, bucket: str, key: str, file: Temporary) -> None:
        while True:
            try:
                with folders.folder_of(path, key, create=True) as (folder, name):
                    with suppress(OSError):
                        os.rmdir(name, dir_fd=folder)  # an empty one, which no marker keeps
                    os.replace(file.path, name, dst_dir_fd=folder)
                    os.fsync(folder)
                return
            except FileNotFoundError:
                if not file.path.exists() or not path.exists():
                    raise no_such_bucket(bucket) from None
                # Somebody deleted the last object of this folder, which went with it: once more.

    def put_marker(self, bucket: str, key: str, record: Record, check: Check | None = None) -> Record:
        """Make a folder marker."""
        path = self.bucket(bucket)
        with self._locked(bucket, key):
            self.check_writable(bucket, key)
            if check:
                check(self.find(bucket, key))
            record = replace(record, size=0, modified_ns=time.time_ns())
            self.records.write(bucket, key, record, None)
            with folders.folder_of(path, key + "x", create=True):
                pass
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
                    (path / key).rmdir()
        self._prune(path, bucket, key)

    def _prune(self, path: Path, bucket: str, key: str) -> None:
        """Remove the folders that have nothing any more: objects make and unmake them."""
        parts = key.removesuffix("/").split("/")[:-1]
        while parts and self.records.read(bucket, "/".join(parts) + "/", None) is None:
            try:
                path.joinpath(*parts).rmdir()
            except OSError:
                return
            parts.pop()

    def sweep(self) -> int:
        """Remove what killed writers have left; how much that was."""
        return sum(temporary.sweep(self._buckets / bucket) for bucket, _ in self.buckets())

    @contextmanager
    def _locked(self, bucket: str, key: str) -> Iterator[None]:
        folder = self._state / "locks"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        number = int.from_bytes(hashlib.sha256(f"{bucket}/{key}".encode()).digest()[:2], "big") % _LOCKS
        with (folder / f"{number:02x}").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _no_place(reason: str) -> S3Error:
    return S3Error("InvalidRequest", f"The buckets of this service are folders: {reason}")
