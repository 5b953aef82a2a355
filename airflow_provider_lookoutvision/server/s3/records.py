"""What S3 keeps of an object beside its bytes, in a folder that no bucket shows.

The record of an object is a small JSON file, named by its key, its size and its time of modification. It is
written before its object takes its place, and a file that is changed by hand is another one's. So an object
never has the ETag or the metadata of other bytes, whatever is killed when. A file without a record, as one
that was copied into the folder, gets one when it is first read.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from airflow_provider_lookoutvision.server.s3.checksums import FULL_OBJECT

DEFAULT_TYPE = "binary/octet-stream"


@dataclass(frozen=True)
class Record:
    """An object without its bytes.

    :param etag: without quotes: the MD5 of the bytes, or of the parts' MD5s with their number.
    :param headers: what was stored of ContentType, CacheControl and their like, by their names in the API.
    :param checksums: by algorithm, as the API writes them.
    :param part_sizes: of what was uploaded in parts.
    :param upload_id: of the upload that made it, so that completing it twice is completing it once.
    """

    etag: str
    size: int
    modified_ns: int
    headers: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    checksums: Mapping[str, str] = field(default_factory=dict)
    checksum_type: str = FULL_OBJECT
    part_sizes: tuple[int, ...] = ()
    upload_id: str = ""

    @property
    def modified(self) -> datetime:
        """Its time of modification, in whole seconds, as HTTP has it."""
        return datetime.fromtimestamp(self.modified_ns // 1_000_000_000, UTC)

    @property
    def content_type(self) -> str:
        """Its type."""
        return self.headers.get("ContentType", DEFAULT_TYPE)

    def of(self, status: os.stat_result) -> Record:
        """The same, of this file."""
        return replace(self, size=status.st_size, modified_ns=status.st_mtime_ns)


class Records:
    """The records of all buckets.

    :param root: their folder, made at need.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, bucket: str, key: str, status: os.stat_result | None) -> Record | None:
        """The record of a key whose file is this, or of a folder marker; None if there is none.

        :param status: the file's; None for a folder marker.
        """
        try:
            content = json.loads(self._path(bucket, key, status).read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        return Record(**{**content, "part_sizes": tuple(content["part_sizes"])})

    def write(self, bucket: str, key: str, record: Record, status: os.stat_result | None) -> None:
        """Keep a record, durably."""
        path = self._path(bucket, key, status)
        while True:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with suppress(FileNotFoundError):  # its folder went with its bucket, which may be there again
                write_whole(path, json.dumps(asdict(record)).encode())
                return

    def remove(self, bucket: str, key: str, status: os.stat_result | None) -> None:
        """Forget a record, if there is one."""
        with suppress(FileNotFoundError):
            self._path(bucket, key, status).unlink()

    def remove_bucket(self, bucket: str) -> None:
        """Forget all of a bucket."""
        shutil.rmtree(self._root / bucket, ignore_errors=True)

    def _path(self, bucket: str, key: str, status: os.stat_result | None) -> Path:
        name = hashlib.sha256(key.encode()).hexdigest()[:40]
        identity = f"{status.st_size}-{status.st_mtime_ns}" if status else "folder"
        return self._root / bucket / name[:2] / f"{name}-{identity}.json"


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, and durably."""
    temporary = path.with_name(f".{secrets.token_hex(16)}")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
