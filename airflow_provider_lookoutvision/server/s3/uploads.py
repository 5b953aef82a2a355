"""Multipart uploads: a folder for each, beside the objects of its bucket, which S3 never shows.

It holds ``upload.json``, which says what it becomes, and a file for each part, whose name says what is in it:
its number, its ETag and its checksum. Completing one copies the parts into one file, which becomes the object
as any does; a repeated completion, after a lost answer, gets the same answer.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from airflow_provider_lookoutvision.server.s3 import checksums, temporary
from airflow_provider_lookoutvision.server.s3.errors import S3Error, no_such_bucket, no_such_upload
from airflow_provider_lookoutvision.server.s3.objects import Check, Objects
from airflow_provider_lookoutvision.server.s3.records import Record, write_whole
from airflow_provider_lookoutvision.server.s3.temporary import Temporary, copy

LEAST_PART = 5 << 20
MOST_PARTS = 10_000
_PART = re.compile(r"([0-9]{5})\.([0-9a-f]{32})\.([A-Z0-9]*)-([0-9a-f]*)")
_UPLOAD_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Upload:
    """What an upload becomes.

    :param algorithm: of the checksum of its parts; empty for none.
    :param initiated: in seconds since the epoch.
    """

    upload_id: str
    key: str
    initiated: float
    headers: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    algorithm: str = ""
    checksum_type: str = ""

    @property
    def initiated_at(self) -> datetime:
        """When it was begun."""
        return datetime.fromtimestamp(int(self.initiated), UTC)


@dataclass(frozen=True)
class Part:
    """A part that has been uploaded; ``checksum`` as the API writes it, or empty."""

    number: int
    etag: str
    algorithm: str
    checksum: str
    size: int
    modified: datetime
    path: Path


@dataclass(frozen=True)
class Wanted:
    """A part as CompleteMultipartUpload lists it."""

    number: int
    etag: str
    checksums: Mapping[str, str]


class Uploads:
    """The uploads of all buckets."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def begin(self, bucket: str, upload: Upload) -> None:
        """Begin an upload.

        :raises S3Error: NoSuchBucket.
        """
        folder = self._folder(bucket, upload.upload_id)
        try:
            folder.mkdir(mode=0o700)
            write_whole(folder / "upload.json", json.dumps(asdict(upload)).encode())
        except FileNotFoundError:
            raise no_such_bucket(bucket) from None

    def find(self, bucket: str, key: str, upload_id: str) -> Upload:
        """An upload that is under way.

        :raises S3Error: NoSuchBucket, NoSuchUpload.
        """
        upload = self._read(self._folder(bucket, upload_id))
        if upload is None or upload.key != key:
            raise no_such_upload(upload_id)
        return upload

    def listed(self, bucket: str) -> list[Upload]:
        """Every upload of a bucket, in the order of their keys."""
        folder = self._objects.bucket(bucket)
        found = (self._read(path) for path in folder.glob(".s3-*") if path.is_dir())
        return sorted(
            filter(None, found), key=lambda upload: (upload.key, upload.initiated, upload.upload_id)
        )

    def begin_part(self, bucket: str, upload_id: str) -> Temporary:
        """A file to write a part into."""
        try:
            return Temporary(self._folder(bucket, upload_id))
        except FileNotFoundError:
            raise no_such_upload(upload_id) from None

    def put_part(
        self, file: Temporary, upload_id: str, number: int, etag: str, algorithm: str, checksum: str
    ) -> None:
        """Make a written file a part, in the place of an earlier one of its number.

        :param checksum: as the API writes it, of the algorithm; empty for none.
        """
        value = base64.b64decode(checksum).hex()
        path = file.path.with_name(f"{number:05}.{etag}.{algorithm if checksum else ''}-{value}")
        file.sync()
        try:
            now = time.time_ns()
            os.utime(file.descriptor, ns=(now, now))
            file.path.rename(path)
            folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            raise no_such_upload(upload_id) from None
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        for other in path.parent.glob(f"{number:05}.*"):
            with suppress(FileNotFoundError):
                if other != path and other.stat().st_mtime_ns < now:
                    other.unlink()

    def parts(self, bucket: str, upload_id: str) -> list[Part]:
        """The parts of an upload, in order."""
        found: dict[int, Part] = {}
        for path in self._folder(bucket, upload_id).glob("[0-9]*"):
            with suppress(FileNotFoundError):
                status = path.stat()
                if match := _PART.fullmatch(path.name):
                    number, etag, algorithm, value = match.groups()
                    modified = datetime.fromtimestamp(status.st_mtime, UTC)
                    checksum = checksums.encoded(bytes.fromhex(value)) if algorithm else ""
                    part = Part(int(number), etag, algorithm, checksum, status.st_size, modified, path)
                    if part.number not in found or found[part.number].modified <= modified:
                        found[part.number] = part
        return [found[number] for number in sorted(found)]

    def abort(self, bucket: str, key: str, upload_id: str) -> None:
        """Forget an upload and its parts."""
        self.find(bucket, key, upload_id)
        self._remove(self._folder(bucket, upload_id))

    def complete(
        self,
        bucket: str,
        key: str,
        upload_id: str,
        wanted: Sequence[Wanted],
        full_checksums: Mapping[str, str],
        check: Check | None,
    ) -> Record:
        """Make the object of the parts.

        :param full_checksums: of the object as a whole, as the request states them.
        """
        folder = self._folder(bucket, upload_id)
        try:
            with _locked(folder / "upload.json"):
                upload = self.find(bucket, key, upload_id)
                done = self._objects.find(bucket, key)
                if (
                    done is not None and done.upload_id == upload_id
                ):  # killed before it could forget the parts
                    self._remove(folder)
                    return done
                chosen = _chosen(self.parts(bucket, upload_id), wanted)
                file = self._objects.begin(bucket)
                try:
                    record = _joined(upload, chosen, full_checksums, file)
                    record = self._objects.put(bucket, key, file, record, check)
                finally:
                    file.close()
                self._remove(folder)
        except FileNotFoundError:
            pass
        except S3Error as error:
            if error.code != "NoSuchUpload":
                raise
        else:
            return record
        current = self._objects.find(bucket, key)
        if current is None or not upload_id or current.upload_id != upload_id:
            raise no_such_upload(upload_id)
        return current

    def _folder(self, bucket: str, upload_id: str) -> Path:
        path = self._objects.bucket(bucket)
        if not _UPLOAD_ID.fullmatch(upload_id):
            raise no_such_upload(upload_id)
        return path / f".s3-{upload_id}"

    def _read(self, folder: Path) -> Upload | None:
        try:
            return Upload(**json.loads((folder / "upload.json").read_bytes()))
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None

    def _remove(self, folder: Path) -> None:
        # Gone in one step: nobody finds half of it, and who writes a part of it finds nothing.
        aside = folder.with_name(temporary.new_name())
        try:
            folder.rename(aside)
        except FileNotFoundError:
            return
        with suppress(FileNotFoundError):
            (aside / "upload.json").unlink()
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _chosen(parts: Sequence[Part], wanted: Sequence[Wanted]) -> list[Part]:
    if not wanted:
        raise S3Error("MalformedXML", "The list of parts is empty")
    numbers = [part.number for part in wanted]
    if numbers != sorted(set(numbers)):
        raise S3Error(
            "InvalidPartOrder",
            "The list of parts was not in ascending order. Parts must be ordered by part number.",
        )
    by_number = {part.number: part for part in parts}
    chosen = []
    for each in wanted:
        part = by_number.get(each.number)
        if part is None or part.etag != each.etag.strip('"') or not _same(part, each.checksums):
            raise S3Error(
                "InvalidPart",
                "One or more of the specified parts could not be found.  The part may not have been "
                "uploaded, or the specified entity tag may not match the part's entity tag.",
                PartNumber=each.number,
                ETag=each.etag,
            )
        chosen.append(part)
    for part in chosen[:-1]:
        if part.size < LEAST_PART:
            raise S3Error(
                "EntityTooSmall",
                "Your proposed upload is smaller than the minimum allowed size",
                PartNumber=part.number,
                ProposedSize=part.size,
                MinSizeAllowed=LEAST_PART,
            )
    return chosen


def _same(part: Part, stated: Mapping[str, str]) -> bool:
    return all(value == part.checksum for algorithm, value in stated.items() if algorithm == part.algorithm)


def _joined(upload: Upload, parts: Sequence[Part], stated: Mapping[str, str], file: Temporary) -> Record:
    """Write the parts into the file; the record of what it is."""
    is_full = upload.checksum_type == checksums.FULL_OBJECT
    algorithms = {upload.algorithm} if is_full and upload.algorithm else set()
    digests = {name: checksums.new(name) for name in algorithms}
    for part in parts:
        copy(part.path, 0, part.size, file, [digest.update for digest in digests.values()])
    sums = {name: checksums.encoded(digest.digest()) for name, digest in digests.items()}
    if upload.algorithm and not is_full and all(part.algorithm == upload.algorithm for part in parts):
        sums[upload.algorithm] = checksums.composite(upload.algorithm, (part.checksum for part in parts))
    for algorithm, value in stated.items():
        if algorithm in sums and value.partition("-")[0] != sums[algorithm].partition("-")[0]:
            raise S3Error("BadDigest", f"The {algorithm} you specified did not match what we received.")
    return Record(
        checksums.multipart_etag(part.etag for part in parts),
        0,
        0,
        upload.headers,
        upload.metadata,
        sums,
        checksums.FULL_OBJECT if is_full else checksums.COMPOSITE,
        tuple(part.size for part in parts),
        upload.upload_id,
    )
