"""The folder buckets: the keys that they have, their empty folders, and the lock of a key."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from airflow_provider_lookoutvision.server.s3 import folders, keys
from airflow_provider_lookoutvision.server.s3.errors import S3Error, no_such_bucket
from airflow_provider_lookoutvision.server.s3.records import Records, write_whole

_LOCKS = 256


class Buckets:
    """Buckets below a data directory."""

    def __init__(self, data_dir: Path) -> None:
        self._buckets = data_dir / "buckets"
        self._state = data_dir / "s3"
        self.records = Records(self._state / "records")

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
        with self._locked(bucket, ""):
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
        if self._has_objects(bucket, ""):
            raise not_empty
        for unfinished in path.glob(".s3-*"):
            if keys.is_hidden(unfinished.name):
                shutil.rmtree(unfinished, ignore_errors=True)
        self._remove_empty_folders(bucket, "")
        with self._locked(bucket, ""):
            try:
                path.rmdir()
            except FileNotFoundError:
                raise no_such_bucket(bucket) from None
            except OSError:
                raise not_empty from None
            self.records.remove_bucket(bucket)
            self._state.joinpath("made", bucket).unlink(missing_ok=True)

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

    def _has_objects(self, bucket: str, prefix: str) -> bool:
        """Whether there are objects below it, or it is a folder marker itself."""
        if prefix and self.records.read(bucket, prefix, None) is not None:
            return True
        return any(self.listed(bucket, prefix, by_folder=False))

    def _made(self, bucket: str) -> float:
        try:
            return float((self._state / "made" / bucket).read_text())
        except (FileNotFoundError, ValueError):
            with suppress(FileNotFoundError):
                return (self._buckets / bucket).stat().st_mtime
            return 0.0

    def _remove_empty_folders(self, bucket: str, prefix: str) -> None:
        """Remove the folders that writers left, killed or refused, where only such folders are."""
        entries = list(folders.walk(self.bucket(bucket), prefix))
        for entry in reversed(entries):
            if entry.status is None:
                self._remove_folder(bucket, entry.key.removesuffix("/"))

    def _remove_folder(self, bucket: str, folder: str) -> bool:
        """Remove a folder that is empty, and no marker keeps; whether it is gone."""
        with self._locked(bucket, folder):
            if self.records.read(bucket, f"{folder}/", None) is not None:
                return False
            try:
                folders.remove(self._buckets / bucket, folder)
            except FileNotFoundError:
                return True
            except OSError:
                return False
        return True

    @contextmanager
    def _locked(self, bucket: str, key: str) -> Iterator[None]:
        key = key.removesuffix("/")  # an object and a folder marker of one name exclude each other
        folder = self._state / "locks"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        number = int.from_bytes(hashlib.sha256(f"{bucket}/{key}".encode()).digest()[:2], "big") % _LOCKS
        with (folder / f"{number:02x}").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
