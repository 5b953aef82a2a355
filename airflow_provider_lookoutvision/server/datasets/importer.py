"""The jobs that fill datasets: a manifest is imported, or entries are updated, all or none."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO, ClassVar, Protocol

import sqlalchemy as sa

from airflow_provider_lookoutvision.server.calls import idempotency
from airflow_provider_lookoutvision.server.datasets import manifest
from airflow_provider_lookoutvision.server.datasets.operations import (
    CREATED_MESSAGE,
    IMPORT_JOB,
    UPDATE_JOB,
    UPDATED_MESSAGE,
    DatasetStatus,
)
from airflow_provider_lookoutvision.server.datasets.remarks import remarks
from airflow_provider_lookoutvision.server.jobs.errors import InvalidInput
from airflow_provider_lookoutvision.server.jobs.handler import JobHandler
from airflow_provider_lookoutvision.server.jobs.queue import Job, Lease, WorkerStopping
from airflow_provider_lookoutvision.server.storage.buckets import Buckets, Location
from airflow_provider_lookoutvision.server.storage.schema import dataset_entries, datasets, upsert

LARGEST_MANIFEST = 1_000_000_000
BATCH = 1000
SHOWN_ERRORS = 10


class ImportEnded(Protocol):
    """What waits for the end of an import or update."""

    def __call__(self, connection: sa.Connection, dataset: sa.Row[Any], failure: str | None, /) -> None:
        """Go on, in the transaction in which it ends; ``failure`` is its message, or None."""


@dataclass(frozen=True)
class Importer(JobHandler):
    """Runs import and update jobs.

    :param ended: called at the end of each.
    """

    kinds: ClassVar[tuple[str, ...]] = (IMPORT_JOB, UPDATE_JOB)
    noun: ClassVar[str] = "import"

    ended: ImportEnded

    def handle(self, job: Job, lease: Lease) -> None:
        """Import a manifest, or update entries."""
        if job.kind == IMPORT_JOB:
            self._import(job, lease)
        elif job.kind == UPDATE_JOB:
            self._update(job, lease)

    def _import(self, job: Job, lease: Lease) -> None:
        source = Location(job.details["Bucket"], job.details["Key"], job.details.get("VersionId"))
        with lease.hold() as connection:
            dataset = connection.execute(datasets.select().where(datasets.c.id == job.subject_id)).one()
            # What an earlier attempt has left.
            connection.execute(dataset_entries.delete().where(dataset_entries.c.dataset_id == dataset.id))
        max_images = self._max_images(dataset.type)
        with Buckets(self.store, job.allowed_buckets).open(source, LARGEST_MANIFEST) as stream:
            reader = _LineReader(
                f"the manifest {source}", manifest.Folder.of(source.bucket, source.key), max_images
            )
            for batch in reader.batches(_StoppableStream(stream, self.stopping)):
                if reader.problems:
                    continue  # no entry will be kept, but all errors are reported
                with lease.hold() as connection:
                    _upsert_entries(connection, dataset.id, batch)
        reader.check()
        with lease.finish() as connection:
            # Duplicates of an image count once: the last line is kept.
            message = CREATED_MESSAGE + remarks(connection, dataset, reader.folders)
            _write_result(connection, dataset.id, DatasetStatus.CREATE_COMPLETE, message)
            self.ended(connection, dataset, None)

    def _update(self, job: Job, lease: Lease) -> None:
        with self.database.read() as connection:
            dataset = connection.execute(datasets.select().where(datasets.c.id == job.subject_id)).one()
            bucket = _image_bucket(connection, dataset.id)
        max_images = self._max_images(dataset.type)
        reader = _LineReader("the update", None, max_images, bucket)
        batches = list(reader.batches(io.BytesIO(job.content or b"")))
        reader.check()
        with lease.finish() as connection:
            for batch in batches:
                _upsert_entries(connection, dataset.id, batch)
            message = UPDATED_MESSAGE + remarks(connection, dataset, reader.folders)
            total = _write_result(connection, dataset.id, DatasetStatus.UPDATE_COMPLETE, message)
            if total > max_images:
                raise InvalidInput(
                    f"the dataset would have {total} images; a {dataset.type} dataset has at most "
                    f"{max_images}"
                )
            self.ended(connection, dataset, None)

    def _max_images(self, dataset_type: str) -> int:
        return self.settings.max_train_images if dataset_type == "train" else self.settings.max_test_images

    def fail(self, job: Job, message: str) -> None:
        """Write the failure to the dataset, which is then empty, or as before the update."""
        creating = job.kind == IMPORT_JOB
        status = DatasetStatus.CREATE_FAILED if creating else DatasetStatus.UPDATE_FAILED_ROLLBACK_COMPLETE
        with Lease(self.database, job).finish() as connection:
            if creating:
                connection.execute(
                    dataset_entries.delete().where(dataset_entries.c.dataset_id == job.subject_id)
                )
            _write_result(connection, job.subject_id, status, message)
            dataset = connection.execute(datasets.select().where(datasets.c.id == job.subject_id)).one()
            self.ended(connection, dataset, message)
            idempotency.mark_failed(connection, job.account_id, job.region, job.operation, job.token)


class _LineReader:
    """Reads lines into entries and collects errors.

    :param source: what is read, for messages.
    :param max_images: how many entries are allowed.
    :param bucket: the bucket that all images must be in; None for that of the first image.
    """

    def __init__(
        self, source: str, folder: manifest.Folder | None, max_images: int, bucket: str | None = None
    ) -> None:
        self.problems: list[str] = []
        self.folders: list[str] = []
        self._source, self._folder, self._max_images, self._bucket = source, folder, max_images, bucket
        self._invalid_lines = 0
        self._images: set[int] = set()

    def batches(self, stream: manifest.Lines) -> Iterator[list[manifest.Entry]]:
        """The entries of a stream in batches, each image once, by its last line."""
        entries = self._entries(stream)
        while batch := list(islice(entries, BATCH)):
            yield list({entry.source_ref: entry for entry in batch}.values())

    def check(self) -> None:
        """Check that everything could be read.

        :raises InvalidInput: with the first errors, by line number and reason.
        """
        if self._invalid_lines:
            left = self._invalid_lines - len(self.problems)
            more = f"; and {left} more" if left else ""
            count = (
                f"more than {self._max_images}"
                if self._invalid_lines > self._max_images
                else self._invalid_lines
            )
            lines = "1 invalid line" if self._invalid_lines == 1 else f"{count} invalid lines"
            raise InvalidInput(f"{self._source} has {lines}: {'; '.join(self.problems)}{more}")
        if not self._images:
            raise InvalidInput(f"{self._source} is empty: it needs one JSON object for each image")

    def _entries(self, stream: manifest.Lines) -> Iterator[manifest.Entry]:
        for number, line in manifest.lines(stream):
            try:
                entry = manifest.read(line, self._folder)
                self._check_bucket(entry)
            except manifest.FolderReference as folder:
                self.folders.append(folder.source_ref)
                if len(self.folders) > self._max_images:
                    raise InvalidInput(f"{self._source} names more than {self._max_images} folders") from None
                continue
            except manifest.InvalidLine as problem:
                self._invalid_lines += 1
                if len(self.problems) < SHOWN_ERRORS:
                    self.problems.append(f"line {number}: {problem}")
                if self._invalid_lines > self._max_images:
                    return  # this file is no manifest
                continue
            self._images.add(hash(entry.source_ref))
            if len(self._images) > self._max_images:
                raise InvalidInput(
                    f"{self._source} has more than {self._max_images} images, as many as this service's "
                    "settings max_train_images and max_test_images allow"
                )
            yield entry

    def _check_bucket(self, entry: manifest.Entry) -> None:
        self._bucket = self._bucket or entry.bucket
        if entry.bucket != self._bucket:
            raise manifest.InvalidLine(
                f"its image is in the bucket {entry.bucket}, others are in {self._bucket}; all must be in one"
            )


@dataclass(frozen=True)
class _StoppableStream:
    """A stream that raises once the worker is stopping, at any line, also one that becomes no entry."""

    stream: BinaryIO
    stopping: Callable[[], bool]

    def readline(self, limit: int) -> bytes:
        if self.stopping():
            raise WorkerStopping
        return self.stream.readline(limit)


def _image_bucket(connection: sa.Connection, dataset_id: int) -> str | None:
    of_dataset = dataset_entries.c.dataset_id == dataset_id
    source_ref = connection.execute(
        sa.select(dataset_entries.c.source_ref).where(of_dataset).limit(1)
    ).scalar()
    return Location.of(source_ref).bucket if source_ref else None


def _upsert_entries(connection: sa.Connection, dataset_id: int, entries: Sequence[manifest.Entry]) -> None:
    moment = _now()
    rows = [
        {
            "dataset_id": dataset_id,
            "source_ref": entry.source_ref,
            "label": entry.label,
            "line": entry.line,
            "created_at": moment,
        }
        for entry in entries
    ]
    upsert(connection, dataset_entries, rows, key=("dataset_id", "source_ref"))


def _write_result(connection: sa.Connection, dataset_id: int, status: DatasetStatus, message: str) -> int:
    """Write a dataset's final state and the counts of its entries; how many there are."""
    columns = dataset_entries.c
    counting = sa.select(columns.label, sa.func.count().label("images")).group_by(columns.label)
    rows = connection.execute(counting.where(columns.dataset_id == dataset_id))
    counts: dict[str | None, int] = {row.label: row.images for row in rows}
    total = sum(counts.values())
    connection.execute(
        datasets.update()
        .where(datasets.c.id == dataset_id)
        .values(
            status=status,
            status_message=message,
            updated_at=_now(),
            total=total,
            normal=counts.get("normal", 0),
            anomaly=counts.get("anomaly", 0),
        )
    )
    return total


def _now() -> int:
    return time.time_ns() // 1_000_000
