"""The two jobs that fill datasets: a manifest imported whole or not at all, entries updated all or none."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO, ClassVar

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
from airflow_provider_lookoutvision.server.jobs.handler import InvalidInput, JobHandler
from airflow_provider_lookoutvision.server.jobs.queue import Job, Lease, Stopped
from airflow_provider_lookoutvision.server.storage.buckets import Buckets, Location
from airflow_provider_lookoutvision.server.storage.schema import dataset_entries, datasets, upsert

LARGEST_MANIFEST = 1_000_000_000
BATCH = 1000
SHOWN_ERRORS = 10


class Importer(JobHandler):
    """Does import and update jobs."""

    kinds: ClassVar[tuple[str, ...]] = (IMPORT_JOB, UPDATE_JOB)
    noun: ClassVar[str] = "import"

    def do(self, job: Job, lease: Lease) -> None:
        """Import a manifest, or update entries."""
        if job.kind == IMPORT_JOB:
            self._import(job, lease)
        elif job.kind == UPDATE_JOB:
            self._update(job, lease)

    def _import(self, job: Job, lease: Lease) -> None:
        source = Location(job.details["Bucket"], job.details["Key"], job.details.get("VersionId"))
        with lease.hold() as connection:
            dataset = connection.execute(datasets.select().where(datasets.c.id == job.subject_id)).one()
            # What an attempt before this one has left.
            connection.execute(dataset_entries.delete().where(dataset_entries.c.dataset_id == dataset.id))
        most = self._most_images(dataset.type)
        with Buckets(self.store, job.allowed_buckets).open(source, LARGEST_MANIFEST) as stream:
            reading = _Reading(f"the manifest {source}", manifest.Folder.of(source.bucket, source.key), most)
            for batch in reading.batches(_Stoppable(stream, self.stopping)):
                if reading.problems:
                    continue  # nothing of it will be kept, but all that is wrong is worth telling
                with lease.hold() as connection:
                    _store(connection, dataset.id, batch)
        reading.check()
        with lease.finish() as connection:
            # Duplicates of an image count once: the last line is the one that is kept.
            _settle(connection, dataset.id, DatasetStatus.CREATE_COMPLETE, CREATED_MESSAGE)

    def _update(self, job: Job, lease: Lease) -> None:
        with self.database.read() as connection:
            dataset = connection.execute(datasets.select().where(datasets.c.id == job.subject_id)).one()
            bucket = _image_bucket(connection, dataset.id)
        most = self._most_images(dataset.type)
        reading = _Reading("the update", None, most, bucket)
        batches = list(reading.batches(io.BytesIO(job.content or b"")))
        reading.check()
        with lease.finish() as connection:
            for batch in batches:
                _store(connection, dataset.id, batch)
            total = _settle(connection, dataset.id, DatasetStatus.UPDATE_COMPLETE, UPDATED_MESSAGE)
            if total > most:
                raise InvalidInput(
                    f"the dataset would have {total} images; a {dataset.type} dataset has at most {most}"
                )

    def _most_images(self, dataset_type: str) -> int:
        return self.settings.max_train_images if dataset_type == "train" else self.settings.max_test_images

    def fail(self, job: Job, message: str) -> None:
        """Tell the dataset, which is then empty, or as it was before the update."""
        creating = job.kind == IMPORT_JOB
        status = DatasetStatus.CREATE_FAILED if creating else DatasetStatus.UPDATE_FAILED_ROLLBACK_COMPLETE
        with Lease(self.database, job).finish() as connection:
            if creating:
                connection.execute(
                    dataset_entries.delete().where(dataset_entries.c.dataset_id == job.subject_id)
                )
            _settle(connection, job.subject_id, status, message)
            idempotency.mark_failed(connection, job.account_id, job.region, job.operation, job.token)


class _Reading:
    """Reads lines into entries and keeps count of what is wrong with them.

    :param source: what is read, for messages.
    :param most: the most entries allowed.
    :param bucket: the bucket that all images must be in; None for that of the first.
    """

    def __init__(
        self, source: str, folder: manifest.Folder | None, most: int, bucket: str | None = None
    ) -> None:
        self.problems: list[str] = []
        self._source, self._folder, self._most, self._bucket = source, folder, most, bucket
        self._wrong = 0
        self._seen: set[int] = set()

    def batches(self, stream: manifest.Lines) -> Iterator[list[manifest.Entry]]:
        """The entries of a stream, some at a time; an image's last line counts."""
        entries = self._entries(stream)
        while batch := list(islice(entries, BATCH)):
            yield list({entry.source_ref: entry for entry in batch}.values())

    def check(self) -> None:
        """Refuse what was read if anything was wrong.

        :raises InvalidInput: with the first errors, by line number and reason.
        """
        if self._wrong:
            left = self._wrong - len(self.problems)
            more = f"; and {left} more" if left else ""
            count = f"more than {self._most}" if self._wrong > self._most else self._wrong
            lines = "1 invalid line" if self._wrong == 1 else f"{count} invalid lines"
            raise InvalidInput(f"{self._source} has {lines}: {'; '.join(self.problems)}{more}")
        if not self._seen:
            raise InvalidInput(f"{self._source} is empty: it needs one JSON object for each image")

    def _entries(self, stream: manifest.Lines) -> Iterator[manifest.Entry]:
        for number, line in manifest.lines(stream):
            try:
                entry = manifest.read(line, self._folder)
                self._check_bucket(entry)
            except manifest.InvalidLine as problem:
                self._wrong += 1
                if len(self.problems) < SHOWN_ERRORS:
                    self.problems.append(f"line {number}: {problem}")
                if self._wrong > self._most:
                    return  # whatever this file is, it is no manifest
                continue
            self._seen.add(hash(entry.source_ref))
            if len(self._seen) > self._most:
                raise InvalidInput(
                    f"{self._source} has more than {self._most} images, as many as this service's settings "
                    "max_train_images and max_test_images allow"
                )
            yield entry

    def _check_bucket(self, entry: manifest.Entry) -> None:
        self._bucket = self._bucket or entry.bucket
        if entry.bucket != self._bucket:
            raise manifest.InvalidLine(
                f"its image is in the bucket {entry.bucket}, others are in {self._bucket}; all must be in one"
            )


@dataclass(frozen=True)
class _Stoppable:
    """Lines of a stream until the worker stops: asked at each, since not every line becomes an entry."""

    stream: BinaryIO
    stopping: Callable[[], bool]

    def readline(self, most: int) -> bytes:
        if self.stopping():
            raise Stopped
        return self.stream.readline(most)


def _image_bucket(connection: sa.Connection, dataset_id: int) -> str | None:
    of_dataset = dataset_entries.c.dataset_id == dataset_id
    source_ref = connection.execute(
        sa.select(dataset_entries.c.source_ref).where(of_dataset).limit(1)
    ).scalar()
    return Location.of(source_ref).bucket if source_ref else None


def _store(connection: sa.Connection, dataset_id: int, entries: Sequence[manifest.Entry]) -> None:
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


def _settle(connection: sa.Connection, dataset_id: int, status: DatasetStatus, message: str) -> int:
    """Write a dataset's last state, and count its entries."""
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
