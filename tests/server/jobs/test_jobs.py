"""Work that outlives its worker: whatever is killed, an import comes to its end, once."""

from __future__ import annotations

import io
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import pytest
import sqlalchemy as sa
from dataset_fixtures import Lab, is_alive, paused, queued, refusal, statistics, until, worker_of, workers_of
from manifest_lines import line, manifest
from services import MakeClient, NewKey, NewService, Storage, client_of, storage_of

from airflow_provider_lookoutvision.server.datasets.importer import Importer, Stopped
from airflow_provider_lookoutvision.server.datasets.operations import IMPORT_JOB, UPDATE_JOB
from airflow_provider_lookoutvision.server.jobs import queue
from airflow_provider_lookoutvision.server.settings import Settings
from airflow_provider_lookoutvision.server.storage.buckets import BucketError, Location
from airflow_provider_lookoutvision.server.storage.schema import dataset_entries, datasets
from airflow_provider_lookoutvision.server.storage.schema import jobs as table
from airflow_provider_lookoutvision.testing.s3 import running_s3, running_service_on
from airflow_provider_lookoutvision.testing.service import Key, Service

KINDS = (IMPORT_JOB, UPDATE_JOB)
LINES = 16_000
IMAGES = [manifest(line(f"{n}.png", ("normal", "anomaly", None)[n % 3])) for n in range(LINES)]
LARGE, SMALL = b"".join(IMAGES), b"".join(IMAGES[:300])


@pytest.fixture
def lab(service: Service, client: Any) -> Lab:
    return Lab.make(service, client)


@contextmanager
def lab_of(service: Service) -> Iterator[tuple[Lab, Storage]]:
    """A lab in a service that isn't the shared one, and that service's storage."""
    key = Key(service.access_key_id, service.secret_access_key, "123456789012")
    client = client_of(service.endpoint_url, key, attempts=5)
    with storage_of(service) as storage:
        yield Lab.make(service, client), storage
    client.close()


def stored(storage: Storage, subject: int) -> int:
    """How many entries a dataset has so far, seen or not."""
    query = sa.select(sa.func.count()).select_from(dataset_entries)
    with storage.database.read() as connection:
        return int(connection.execute(query.where(dataset_entries.c.dataset_id == subject)).scalar_one())


def in_the_middle(storage: Storage, account: str = "123456789012") -> int:
    """Wait until an import has stored something; the dataset's ID."""
    [job] = queued(storage, account)
    count = until(lambda: stored(storage, job.subject_id), bool)
    assert count < LINES
    return int(job.subject_id)


def fifteen_seconds_later(storage: Storage) -> None:
    """Every lease that nobody renews has run out."""
    with storage.database.write() as connection:
        connection.execute(table.update().values(leased_until=0))


def check_small(lab: Lab) -> None:
    """That an import of SMALL is complete, with nothing of what was stored in an attempt at LARGE."""
    described = lab.settled()
    assert (described["Status"], statistics(described)) == ("CREATE_COMPLETE", (300, 200, 100, 100))
    assert len(lab.entries()) == 300


def test_a_worker_that_is_killed_is_replaced_and_its_import_completed(
    lab: Lab, service: Service, storage: Storage, account: str
) -> None:
    worker = worker_of(service)
    lab.create(LARGE)
    dataset = in_the_middle(storage, account)
    os.kill(worker, signal.SIGKILL)
    assert lab.describe()["Status"] == "CREATE_IN_PROGRESS"
    assert lab.entries() == []  # half an import is nobody's to see
    described = lab.settled()
    assert (described["Status"], statistics(described)) == ("CREATE_COMPLETE", (LINES, 10_667, 5334, 5333))
    assert stored(storage, dataset) == LINES
    some = lab.entries(SourceRefContains="99.png")
    assert len(set(some)) == len(some) == 160
    assert worker_of(service) != worker
    lab.delete()


def test_whatever_is_killed_the_import_goes_on_when_it_is_back(new_service: NewService) -> None:
    service = new_service()
    with lab_of(service) as (lab, storage):
        # Both at once: nobody gives anything back, and the lease must run out.
        worker = worker_of(service)
        lab.create(LARGE)
        in_the_middle(storage)
        os.kill(worker, signal.SIGKILL)
        service.kill()
        [left] = queued(storage)
        assert (left.attempts, left.owner is not None) == (1, True)
        lab.source(SMALL)
        service.start()
        fifteen_seconds_later(storage)
        check_small(lab)
        lab.delete()

        # The service alone: its worker notices, gives back what it has, and is gone too.
        worker = worker_of(service)
        lab.create(LARGE)
        in_the_middle(storage)
        service.kill()
        until(lambda: is_alive(worker), lambda alive: not alive)
        [left] = queued(storage)
        assert (left.attempts, left.owner, left.leased_until) == (0, None, 0)
        lab.source(SMALL)
        service.start()
        check_small(lab)
        lab.delete()

        # Stopped in an orderly way, it waits for its worker to give back what it has.
        worker = worker_of(service)
        lab.create(LARGE * 10)  # the same images again and again, for long enough
        in_the_middle(storage)
        service.stop()
        assert not is_alive(worker)
        [left] = queued(storage)
        assert (left.attempts, left.owner, left.leased_until) == (0, None, 0)


@contextmanager
def worker_alone(service: Service) -> Iterator[subprocess.Popen[bytes]]:
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


def test_a_worker_on_its_own_gives_back_what_it_is_told_to_leave(new_service: NewService) -> None:
    service = new_service("--no-worker")
    with lab_of(service) as (lab, storage):
        lab.create(LARGE)
        assert workers_of(service) == []
        with worker_alone(service) as worker:
            in_the_middle(storage)
            worker.terminate()
            assert worker.wait(30) == 0
        assert lab.describe()["Status"] == "CREATE_IN_PROGRESS"
        [left] = queued(storage)
        assert (left.attempts, left.owner, left.leased_until) == (0, None, 0)
        lab.source(SMALL)
        with worker_alone(service) as worker:
            check_small(lab)
            worker.send_signal(signal.SIGINT)
            assert worker.wait(30) == 0


def test_two_services_do_nothing_twice(
    service: Service, storage: Storage, new_service: NewService, make_client: MakeClient, new_key: NewKey
) -> None:
    flags = service.flags
    database = flags[flags.index("--database-url") : flags.index("--database-url") + 2] if flags else []
    twin = new_service(data_dir=service.data_dir, database=database)
    key = new_key()
    clients = [make_client(key=key), make_client(key=key, endpoint_url=twin.endpoint_url)]
    assert worker_of(service) != worker_of(twin)
    folder = service.data_dir / "buckets" / f"images-{secrets.token_hex(6)}"
    folder.mkdir(parents=True)
    (folder / "x.manifest").write_bytes(manifest(*(line(f"{n}.png") for n in range(50))))
    source = {"GroundTruthManifest": {"S3Object": {"Bucket": folder.name, "Key": "x.manifest"}}}
    names = [f"p{number}" for number in range(12)]
    skipped = service.log_file.stat().st_size

    def make(name: str) -> None:
        client = clients[int(name[1:]) % 2]
        client.create_project(ProjectName=name)
        client.create_dataset(ProjectName=name, DatasetType="train", DatasetSource=source)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(make, names))
    for name in names:
        described = until(
            lambda: clients[0].describe_dataset(ProjectName=name, DatasetType="train")["DatasetDescription"],  # noqa: B023
            lambda found: found["Status"] != "CREATE_IN_PROGRESS",
        )
        assert (described["Status"], statistics(described)[0]) == ("CREATE_COMPLETE", 50)
    begun = [
        (found["job"], found["attempt"])
        for found in map(json.loads, service.log_file.read_bytes()[skipped:].splitlines())
        if found["message"] == "job begun"
    ]
    assert len(begun) == len(set(begun)) == 12
    assert {attempt for _, attempt in begun} == {1}


def test_a_job_is_claimed_once(lab: Lab, service: Service, storage: Storage, account: str) -> None:
    with paused(service, storage):
        for number in range(12):
            lab.client.create_project(ProjectName=f"p{number}")
            lab.client.create_dataset(
                ProjectName=f"p{number}", DatasetType="test", DatasetSource=lab.source(manifest(line()))
            )
        waiting = [job.id for job in queued(storage, account)]
        with ThreadPoolExecutor(6) as threads:
            claimed = list(
                threads.map(lambda n: queue.claim(storage.database, f"worker-{n}", KINDS), range(15))
            )
        found = [job.id for job in claimed if job]
        assert sorted(found) == waiting
        assert claimed.count(None) == 3
        # In the order in which they came, for who asks one after another.
        for number in range(15):
            queue.abandon(storage.database, f"worker-{number}")
        one_by_one = [queue.claim(storage.database, "one", KINDS) for _ in range(13)]
        assert [job.id for job in one_by_one if job] == waiting
        assert queue.abandon(storage.database, "one") == 12
    for number in range(12):
        until(
            lambda: lab.client.describe_dataset(ProjectName=f"p{number}", DatasetType="test"),  # noqa: B023
            lambda found: found["DatasetDescription"]["Status"] == "CREATE_COMPLETE",
        )


def test_a_job_whose_workers_always_die_is_given_up(
    lab: Lab, service: Service, storage: Storage, account: str
) -> None:
    with paused(service, storage):
        lab.create(manifest(line()), ClientToken="t")
        for attempt in (1, 2, 3):
            job = queue.claim(storage.database, f"dead-{attempt}", KINDS)
            assert job
            assert job.attempts == attempt
            assert queue.claim(storage.database, "another", KINDS) is None
            fifteen_seconds_later(storage)
    described = lab.settled()
    assert described["Status"] == "CREATE_FAILED"
    assert described["StatusMessage"].startswith(
        "Service fault: the import was begun 3 times, and never came"
    )
    assert queued(storage, account) == []
    # Trying again is safe, and the same token does it.
    assert lab.created(manifest(line()), ClientToken="t")["Status"] == "CREATE_COMPLETE"


def test_an_update_whose_workers_always_die_changes_nothing(
    lab: Lab, service: Service, storage: Storage
) -> None:
    lab.created(manifest(line()))
    with paused(service, storage):
        lab.client.update_dataset_entries(
            ProjectName="p", DatasetType="train", Changes=manifest(line("2.png"))
        )
        for _ in range(3):
            assert queue.claim(storage.database, "dead", KINDS)
            queue.abandon(storage.database, "dead")
    described = lab.settled()
    assert (described["Status"], statistics(described)[0]) == ("UPDATE_FAILED_ROLLBACK_COMPLETE", 1)
    assert described["StatusMessage"].startswith("Service fault: ")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"details": {}}, "Service fault: the import met an error; the log tells which"),
        ({"allowed_buckets": ["other-*"]}, "Invalid input: the access key may not use the bucket of s3://images-"),
        ({"allowed_buckets": []}, "Invalid input: the access key may not use the bucket of s3://images-"),
    ],
)  # fmt: skip
def test_a_job_that_can_not_be_done(
    change: dict[str, Any], message: str, lab: Lab, service: Service, storage: Storage, account: str
) -> None:
    # A job keeps the rights of the key that asked for it, whatever the service itself may do.
    with paused(service, storage):
        lab.create(manifest(line()), ClientToken="t")
        with storage.database.write() as connection:
            connection.execute(table.update().where(table.c.account_id == account).values(change))
    described = lab.settled()
    assert described["Status"] == "CREATE_FAILED"
    assert described["StatusMessage"].startswith(message)
    assert lab.created(manifest(line()), ClientToken="t")["Status"] == "CREATE_COMPLETE"


@dataclass
class Shelf:
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
        def __init__(self, shelf: Shelf) -> None:
            super().__init__(b"".join(shelf.lines))
            self._left, self._shelf = shelf.after, shelf

        def readline(self, size: int | None = -1, /) -> bytes:
            self._left -= 1
            if self._left == 0:
                self._shelf.meanwhile()
            return super().readline(size)


@pytest.fixture
def claimed(lab: Lab, service: Service, storage: Storage, account: str) -> Iterator[Callable[[], queue.Job]]:
    """A function that claims the job of a dataset that has been created; no other worker is awake."""
    with paused(service, storage):
        lab.create(manifest(line()), ClientToken="t")

        def claim() -> queue.Job:
            fifteen_seconds_later(storage)
            job = queue.claim(storage.database, f"test-{secrets.token_hex(4)}", KINDS)
            assert job
            assert job.account_id == account
            return job

        yield claim
        fifteen_seconds_later(storage)
    lab.settled()


def importer(
    service: Service, storage: Storage, store: Any, stopping: Callable[[], bool] = lambda: False
) -> Importer:
    return Importer(storage.database, store, Settings(data_dir=service.data_dir), stopping)


SHELF = [manifest(line(f"{n}.png")) for n in range(2500)]


def test_a_worker_that_was_thought_dead_writes_nothing_more(
    claimed: Callable[[], queue.Job], lab: Lab, service: Service, storage: Storage
) -> None:
    others: list[queue.Job] = []
    late = claimed()
    with pytest.raises(queue.LeaseLost):
        importer(service, storage, Shelf(SHELF, lambda: others.append(claimed()))).run(late)
    assert stored(storage, late.subject_id) == 1000  # what it wrote before
    for ending in ("no JSON\n", ""):
        # Neither a good end nor a bad one is its to tell.
        with pytest.raises(queue.LeaseLost):
            importer(service, storage, Shelf([ending.encode()])).run(late)
        with pytest.raises(queue.LeaseLost):
            importer(service, storage, Shelf(SHELF)).give_up(late)
    assert (lab.describe()["Status"], stored(storage, late.subject_id)) == ("CREATE_IN_PROGRESS", 1000)
    queue.Lease(storage.database, late).release()
    queue.Lease(storage.database, late).retry_later()
    [job] = queued(storage)
    assert (job.owner, job.attempts) == (others[0].owner, 2)
    importer(service, storage, Shelf(SHELF[:1200])).run(others[0])
    assert (lab.describe()["Status"], statistics(lab.describe())[0]) == ("CREATE_COMPLETE", 1200)
    with pytest.raises(queue.LeaseLost):
        importer(service, storage, Shelf(SHELF)).run(late)
    assert stored(storage, late.subject_id) == statistics(lab.describe())[0] == 1200


def test_a_worker_that_comes_back_under_its_own_name_writes_nothing_either(
    claimed: Callable[[], queue.Job], service: Service, storage: Storage
) -> None:
    late = claimed()
    fifteen_seconds_later(storage)
    again = queue.claim(storage.database, late.owner, KINDS)
    assert again
    with pytest.raises(queue.LeaseLost):
        importer(service, storage, Shelf(SHELF)).run(late)
    assert stored(storage, late.subject_id) == 0


def test_a_lease_is_kept_for_as_long_as_the_work_takes(
    claimed: Callable[[], queue.Job], service: Service, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "LEASE_MILLISECONDS", 1500)
    job = claimed()

    def wait_until_it_is_renewed() -> None:
        fifteen_seconds_later(storage)
        until(lambda: queued(storage)[0].leased_until, bool, seconds=30)

    importer(service, storage, Shelf(SHELF, wait_until_it_is_renewed)).run(job)
    assert stored(storage, job.subject_id) == 2500


@pytest.mark.parametrize("nothing", [b"\n", b"{}\n", b"x" * 40_000])
def test_a_worker_stops_where_no_line_becomes_an_entry(
    nothing: bytes, claimed: Callable[[], queue.Job], service: Service, storage: Storage
) -> None:
    class Endless(Shelf):
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

    job = claimed()
    with pytest.raises(Stopped):
        importer(service, storage, Endless([]), stopping).run(job)
    queue.Lease(storage.database, job).release()
    [left] = queued(storage)
    assert (left.attempts, left.owner, left.leased_until) == (0, None, 0)


def test_a_fault_of_the_machine_is_tried_three_times(
    claimed: Callable[[], queue.Job], lab: Lab, service: Service, storage: Storage
) -> None:
    class Unreachable(Shelf):
        def open(self, location: Location, most: int) -> BinaryIO:
            super().open(location, most)
            raise BucketError(f"{location} can't be reached: no route", input=False)

    shelf = Unreachable([])
    for attempt in (1, 2):
        importer(service, storage, shelf).run(claimed())
        assert lab.describe()["Status"] == "CREATE_IN_PROGRESS"
        # It isn't tried again at once, but when the lease has run out.
        assert queue.claim(storage.database, "another", KINDS) is None
        assert shelf.opened == attempt
    importer(service, storage, shelf).run(claimed())
    described = lab.describe()
    assert described["Status"] == "CREATE_FAILED"
    assert (
        described["StatusMessage"]
        == f"Service fault: s3://{lab.bucket}/x.manifest can't be reached: no route"
    )


def test_a_fault_that_passes_is_never_seen(
    claimed: Callable[[], queue.Job], lab: Lab, service: Service, storage: Storage
) -> None:
    def fail() -> None:
        raise OSError("the network share has gone")

    importer(service, storage, Shelf(SHELF, fail)).run(claimed())
    assert lab.describe()["Status"] == "CREATE_IN_PROGRESS"
    importer(service, storage, Shelf(SHELF)).run(claimed())
    assert (lab.describe()["Status"], statistics(lab.describe())[0]) == ("CREATE_COMPLETE", 2500)


def test_datasets_from_s3() -> None:
    with running_s3("factory") as s3, running_service_on(s3) as service:
        s3.put_bucket_versioning(Bucket="factory", VersioningConfiguration={"Status": "Enabled"})
        first = s3.put_object(Bucket="factory", Key="a/x.manifest", Body=manifest({"source-ref": "1.png"}))[
            "VersionId"
        ]
        s3.put_object(Bucket="factory", Key="a/x.manifest", Body=manifest(line("1.png"), line("2.png")))
        with lab_of(service) as (lab, _):
            for version, total in ((None, 2), (first, 1)):
                described = _from_s3(lab, "factory", "a/x.manifest", version)
                assert (described["Status"], statistics(described)[0]) == ("CREATE_COMPLETE", total)
            assert '"s3://factory/a/1.png"' in lab.entries()[0]
            for bucket, key in (("factory", "nothing"), ("nobucket", "x")):
                described = _from_s3(lab, bucket, key, None)
                assert described["StatusMessage"] == f"Invalid input: s3://{bucket}/{key} does not exist"


def _from_s3(lab: Lab, bucket: str, key: str, version: str | None) -> dict[str, Any]:
    found = {"Bucket": bucket, "Key": key} | ({"VersionId": version} if version else {})
    if lab.client.describe_project(ProjectName="p")["ProjectDescription"]["Datasets"]:
        lab.delete()
    return lab.created(DatasetSource={"GroundTruthManifest": {"S3Object": found}})


def test_no_job_outlives_its_dataset(lab: Lab, storage: Storage, account: str) -> None:
    lab.created(manifest(line()))
    lab.update(manifest(line("2.png")))
    lab.delete()
    refusal(lab.client.describe_dataset, ProjectName="p", DatasetType="train")
    assert queued(storage, account) == []
    with storage.database.read() as connection:
        lost = sa.select(dataset_entries.c.id).where(
            dataset_entries.c.dataset_id.not_in(sa.select(datasets.c.id))
        )
        assert connection.execute(lost).all() == []
