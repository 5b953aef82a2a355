"""Import jobs: manifests that take a while, how far an import is, leases that have run out."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from dataset_projects import DatasetProject, statistics
from held_worker import queued_jobs
from manifest_lines import line, manifest
from polling import until
from services import Storage, client_of, storage_of

from airflow_provider_lookoutvision.server.datasets.operations import IMPORT_JOB, UPDATE_JOB
from airflow_provider_lookoutvision.server.storage.schema import dataset_entries
from airflow_provider_lookoutvision.server.storage.schema import jobs as table
from airflow_provider_lookoutvision.testing.service import Key, Service

KINDS = (IMPORT_JOB, UPDATE_JOB)
LINES = 16_000
IMAGES = [manifest(line(f"{n}.png", ("normal", "anomaly", None)[n % 3])) for n in range(LINES)]
LARGE, SMALL = b"".join(IMAGES), b"".join(IMAGES[:300])


@contextmanager
def project_of(service: Service) -> Iterator[tuple[DatasetProject, Storage]]:
    """A project in a service that isn't the shared one, and that service's storage."""
    key = Key(service.access_key_id, service.secret_access_key, "123456789012")
    client = client_of(service.endpoint_url, key, attempts=5)
    with storage_of(service) as storage:
        yield DatasetProject.make(service, client), storage
    client.close()


def count_stored_entries(storage: Storage, subject: int) -> int:
    """How many entries a dataset has so far, seen or not."""
    query = sa.select(sa.func.count()).select_from(dataset_entries)
    with storage.database.read() as connection:
        return int(connection.execute(query.where(dataset_entries.c.dataset_id == subject)).scalar_one())


@contextmanager
def held_import(storage: Storage, account: str = "123456789012") -> Iterator[int]:
    """The account's import of LARGE has stored some entries, and stores no more inside the block.

    The value is the dataset's ID.
    """
    [job] = queued_jobs(storage, account)
    until(lambda: count_stored_entries(storage, job.subject_id), bool)
    with storage.database.write() as connection:  # on SQLite, this is all it takes
        if connection.dialect.name == "postgresql":
            connection.execute(sa.text("LOCK TABLE dataset_entries IN EXCLUSIVE MODE"))
        assert count_stored_entries(storage, job.subject_id) < LINES
        yield int(job.subject_id)


def expire_leases(storage: Storage) -> None:
    """Every lease that nobody renews has run out."""
    with storage.database.write() as connection:
        connection.execute(table.update().values(leased_until=0))


def assert_small_import_is_complete(project: DatasetProject) -> None:
    """That an import of SMALL is complete, with nothing of what was stored in an attempt at LARGE."""
    described = project.settled()
    assert (described["Status"], statistics(described)) == ("CREATE_COMPLETE", (300, 200, 100, 100))
    assert len(project.entries()) == 300


def assert_job_was_given_back(storage: Storage) -> None:
    """That the one job waits for a worker again, and this attempt doesn't count."""
    [job] = queued_jobs(storage)
    assert (job.attempts, job.owner, job.leased_until) == (0, None, 0)


@contextmanager
def separate_worker(service: Service) -> Iterator[subprocess.Popen[bytes]]:
    """``lookoutvision worker`` beside a service, on the same data."""
    command = [sys.executable, "-m", "airflow_provider_lookoutvision.server.cli", "worker"]
    command += ["--data-dir", str(service.data_dir)]
    if "--database-url" in service.flags:
        command += ["--database-url", service.flags[service.flags.index("--database-url") + 1]]
    with (
        service.log_file.open("a") as log,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log) as process,
    ):
        try:
            yield process
        finally:
            process.kill()
