"""A lease: a worker that lost it writes nothing; faults that may pass are retried."""

from __future__ import annotations

import io
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import pytest
from dataset_projects import DatasetProject, statistics
from held_worker import paused_worker, queued_jobs
from import_jobs import (
    KINDS,
    count_stored_entries,
    expire_leases,
)
from manifest_lines import line, manifest
from polling import until
from services import Storage

from airflow_provider_lookoutvision.server.datasets.importer import Importer, WorkerStopping
from airflow_provider_lookoutvision.server.jobs import queue
from airflow_provider_lookoutvision.server.models.training_entries import import_ended
from airflow_provider_lookoutvision.server.settings import Settings
from airflow_provider_lookoutvision.server.storage.buckets import BucketError, Location
from airflow_provider_lookoutvision.testing.service import Service


@dataclass
class InterruptedStore:
    """A store with one object, whose reader may be met by something in the middle.

    :param meanwhile: called after so many lines of it.
    """

    lines: Sequence[bytes]
    meanwhile: Callable[[], None] = lambda: None
    after: int = 1500
    opened: int = field(default=0, init=False)

    def open(self, location: Location, most: int) -> BinaryIO:
        self.opened += 1
        return self._Reader(self)

    def write(self, location: Location, content: bytes) -> None:
        raise NotImplementedError

    class _Reader(io.BytesIO):
        def __init__(self, store: InterruptedStore) -> None:
            super().__init__(b"".join(store.lines))
            self._left, self._shelf = store.after, store

        def readline(self, size: int | None = -1, /) -> bytes:
            self._left -= 1
            if self._left == 0:
                self._shelf.meanwhile()
            return super().readline(size)


@pytest.fixture
def claim_job(
    project: DatasetProject, service: Service, storage: Storage, account: str
) -> Iterator[Callable[[], queue.Job]]:
    """A function that claims the job of a dataset that has been created; no other worker is awake."""
    with paused_worker(service, storage):
        project.create(manifest(line()), ClientToken="t")

        def claim() -> queue.Job:
            expire_leases(storage)
            job = queue.claim(storage.database, f"test-{secrets.token_hex(4)}", KINDS)
            assert job
            assert job.account_id == account
            return job

        yield claim
        expire_leases(storage)
    project.settled()


def importer(
    service: Service, storage: Storage, store: Any, stopping: Callable[[], bool] = lambda: False
) -> Importer:
    return Importer(storage.database, store, Settings(data_dir=service.data_dir), stopping, import_ended)


OBJECT_LINES = [manifest(line(f"{n}.png")) for n in range(2500)]


def test_a_worker_that_was_thought_dead_writes_nothing_more(
    claim_job: Callable[[], queue.Job], project: DatasetProject, service: Service, storage: Storage
) -> None:
    others: list[queue.Job] = []
    late = claim_job()
    with pytest.raises(queue.LeaseLost):
        importer(service, storage, InterruptedStore(OBJECT_LINES, lambda: others.append(claim_job()))).run(
            late
        )
    assert count_stored_entries(storage, late.subject_id) == 1000  # what it wrote before
    for ending in ("no JSON\n", ""):
        # Neither a good end nor a bad one is its to tell.
        with pytest.raises(queue.LeaseLost):
            importer(service, storage, InterruptedStore([ending.encode()])).run(late)
        with pytest.raises(queue.LeaseLost):
            importer(service, storage, InterruptedStore(OBJECT_LINES)).give_up(late)
    assert (project.describe()["Status"], count_stored_entries(storage, late.subject_id)) == (
        "CREATE_IN_PROGRESS",
        1000,
    )
    queue.Lease(storage.database, late).release()
    queue.Lease(storage.database, late).retry_later()
    [job] = queued_jobs(storage)
    assert (job.owner, job.attempts) == (others[0].owner, 2)
    importer(service, storage, InterruptedStore(OBJECT_LINES[:1200])).run(others[0])
    assert (project.describe()["Status"], statistics(project.describe())[0]) == ("CREATE_COMPLETE", 1200)
    with pytest.raises(queue.LeaseLost):
        importer(service, storage, InterruptedStore(OBJECT_LINES)).run(late)
    assert count_stored_entries(storage, late.subject_id) == statistics(project.describe())[0] == 1200


def test_a_worker_that_comes_back_under_its_own_name_writes_nothing_either(
    claim_job: Callable[[], queue.Job], service: Service, storage: Storage
) -> None:
    late = claim_job()
    expire_leases(storage)
    again = queue.claim(storage.database, late.owner, KINDS)
    assert again
    with pytest.raises(queue.LeaseLost):
        importer(service, storage, InterruptedStore(OBJECT_LINES)).run(late)
    assert count_stored_entries(storage, late.subject_id) == 0


def test_a_lease_is_kept_for_as_long_as_the_work_takes(
    claim_job: Callable[[], queue.Job], service: Service, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "LEASE_MILLISECONDS", 1500)
    job = claim_job()

    def wait_until_it_is_renewed() -> None:
        expire_leases(storage)
        until(lambda: queued_jobs(storage)[0].leased_until, bool)

    importer(service, storage, InterruptedStore(OBJECT_LINES, wait_until_it_is_renewed)).run(job)
    assert count_stored_entries(storage, job.subject_id) == 2500


@pytest.mark.parametrize("nothing", [b"\n", b"{}\n", b"x" * 40_000])
def test_a_worker_stops_where_no_line_becomes_an_entry(
    nothing: bytes, claim_job: Callable[[], queue.Job], service: Service, storage: Storage
) -> None:
    class Endless(InterruptedStore):
        def open(self, location: Location, most: int) -> BinaryIO:
            class Reader(io.BytesIO):
                def readline(self, size: int | None = -1, /) -> bytes:
                    return nothing[:size]

            return Reader()

    asked = 0

    def stopping() -> bool:
        nonlocal asked
        asked += 1
        return asked > 5000

    job = claim_job()
    with pytest.raises(WorkerStopping):
        importer(service, storage, Endless([]), stopping).run(job)
    queue.Lease(storage.database, job).release()
    [left] = queued_jobs(storage)
    assert (left.attempts, left.owner, left.leased_until) == (0, None, 0)


def test_a_fault_of_the_machine_is_tried_three_times(
    claim_job: Callable[[], queue.Job], project: DatasetProject, service: Service, storage: Storage
) -> None:
    class Unreachable(InterruptedStore):
        def open(self, location: Location, most: int) -> BinaryIO:
            super().open(location, most)
            raise BucketError(f"{location} can't be reached: no route", input=False)

    store = Unreachable([])
    for attempt in (1, 2):
        importer(service, storage, store).run(claim_job())
        assert project.describe()["Status"] == "CREATE_IN_PROGRESS"
        # It isn't tried again at once, but when the lease has run out.
        assert queue.claim(storage.database, "another", KINDS) is None
        assert store.opened == attempt
    importer(service, storage, store).run(claim_job())
    described = project.describe()
    assert described["Status"] == "CREATE_FAILED"
    assert (
        described["StatusMessage"]
        == f"Service fault: s3://{project.bucket}/x.manifest can't be reached: no route"
    )


def test_a_fault_that_passes_is_never_seen(
    claim_job: Callable[[], queue.Job], project: DatasetProject, service: Service, storage: Storage
) -> None:
    def fail() -> None:
        raise OSError("the network share has gone")

    importer(service, storage, InterruptedStore(OBJECT_LINES, fail)).run(claim_job())
    assert project.describe()["Status"] == "CREATE_IN_PROGRESS"
    importer(service, storage, InterruptedStore(OBJECT_LINES)).run(claim_job())
    assert (project.describe()["Status"], statistics(project.describe())[0]) == ("CREATE_COMPLETE", 2500)
