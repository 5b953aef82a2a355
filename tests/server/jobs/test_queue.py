"""The queue: a job is claimed once, and given up when its workers always die."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from dataset_projects import DatasetProject, statistics
from held_worker import paused_worker, queued_jobs
from import_jobs import (
    KINDS,
    expire_leases,
)
from manifest_lines import line, manifest
from polling import until
from sdk_errors import error_response
from services import MakeClient, NewKey, Storage

from airflow_provider_lookoutvision.server.jobs import queue
from airflow_provider_lookoutvision.server.jobs.queue import Lease
from airflow_provider_lookoutvision.server.storage.schema import dataset_entries, datasets
from airflow_provider_lookoutvision.server.storage.schema import jobs as table
from airflow_provider_lookoutvision.testing.service import Service


def queue_imports(project: DatasetProject, count: int) -> None:
    """Imports of as many datasets, each in a project of its own."""
    source = project.source(manifest(line()))
    for number in range(count):
        project.client.create_project(ProjectName=f"p{number}")
        project.client.create_dataset(ProjectName=f"p{number}", DatasetType="test", DatasetSource=source)


def test_a_job_is_claimed_once(
    project: DatasetProject, service: Service, storage: Storage, account: str
) -> None:
    with paused_worker(service, storage):
        queue_imports(project, 12)
        waiting = [job.id for job in queued_jobs(storage, account)]
        with ThreadPoolExecutor(6) as threads:
            claimed = list(
                threads.map(lambda n: queue.claim(storage.database, f"worker-{n}", KINDS), range(15))
            )
        found = [job.id for job in claimed if job]
        assert sorted(found) == waiting
        assert claimed.count(None) == 3
        # One after another, in the order in which they were queued.
        for number in range(15):
            queue.requeue(storage.database, f"worker-{number}")
        one_by_one = [queue.claim(storage.database, "one", KINDS) for _ in range(13)]
        assert [job.id for job in one_by_one if job] == waiting
        assert queue.requeue(storage.database, "one") == 12
    for number in range(12):
        until(
            lambda: project.client.describe_dataset(ProjectName=f"p{number}", DatasetType="test"),  # noqa: B023
            lambda found: found["DatasetDescription"]["Status"] == "CREATE_COMPLETE",
        )


def test_accounts_take_turns(
    service: Service, storage: Storage, new_key: NewKey, make_client: MakeClient
) -> None:
    accounts = ("000000000101", "000000000102", "000000000103")
    with paused_worker(service, storage):
        for account, count in zip(accounts, (4, 2, 2), strict=True):
            project = DatasetProject.make(service, make_client(key=new_key(account=account)))
            queue_imports(project, count)
        # Two that work at a time: nobody's second job begins before everybody's first.
        served, after = [], ""
        for number in range(8):
            job = queue.claim(storage.database, f"worker-{number}", KINDS, after)
            assert job
            served.append(job.account_id)
            after = job.account_id
            if number >= 1:
                with Lease(storage.database, _claimed(storage, f"worker-{number - 1}")).finish():
                    pass
        with Lease(storage.database, _claimed(storage, "worker-7")).finish():
            pass
    first, second, third = accounts
    assert served == [first, second, third, first, second, third, first, first]


def test_an_account_that_has_a_job_under_way_waits_for_one_that_has_none(
    service: Service, storage: Storage, new_key: NewKey, make_client: MakeClient
) -> None:
    with paused_worker(service, storage):
        for account, count in (("000000000101", 3), ("000000000102", 1)):
            project = DatasetProject.make(
                service, make_client(key=new_key(account=account), region="us-east-1")
            )
            queue_imports(project, count)
        # Another machine's worker, which doesn't know whom this one served last.
        claimed = [queue.claim(storage.database, "one", KINDS) for _ in range(3)]
        assert [job.account_id for job in claimed if job] == ["000000000101", "000000000102", "000000000101"]
        queue.requeue(storage.database, "one")


def _claimed(storage: Storage, owner: str) -> queue.Job:
    """The job that an owner has, as it claimed it."""
    with storage.database.read() as connection:
        row = connection.execute(table.select().where(table.c.owner == owner)).one()
    return queue.Job(
        **{name: value for name, value in row._mapping.items() if name not in {"leased_until", "created_at"}}
    )


def test_a_job_whose_workers_always_die_is_given_up(
    project: DatasetProject, service: Service, storage: Storage, account: str
) -> None:
    with paused_worker(service, storage):
        project.create(manifest(line()), ClientToken="t")
        for attempt in (1, 2, 3):
            job = queue.claim(storage.database, f"dead-{attempt}", KINDS)
            assert job
            assert job.attempts == attempt
            assert queue.claim(storage.database, "another", KINDS) is None
            expire_leases(storage)
    described = project.settled()
    assert described["Status"] == "CREATE_FAILED"
    assert described["StatusMessage"].startswith(
        "Service fault: the import was started 3 times and never finished"
    )
    assert queued_jobs(storage, account) == []
    # Trying again is safe, and the same token does it.
    assert project.created(manifest(line()), ClientToken="t")["Status"] == "CREATE_COMPLETE"


def test_an_update_whose_workers_always_die_changes_nothing(
    project: DatasetProject, service: Service, storage: Storage
) -> None:
    project.created(manifest(line()))
    with paused_worker(service, storage):
        project.client.update_dataset_entries(
            ProjectName="p", DatasetType="train", Changes=manifest(line("2.png"))
        )
        for _ in range(3):
            assert queue.claim(storage.database, "dead", KINDS)
            queue.requeue(storage.database, "dead")
    described = project.settled()
    assert (described["Status"], statistics(described)[0]) == ("UPDATE_FAILED_ROLLBACK_COMPLETE", 1)
    assert described["StatusMessage"].startswith("Service fault: ")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"details": {}}, "Service fault: the import failed with an error; see the service's log"),
        ({"allowed_buckets": ["other-*"]}, "Invalid input: the access key may not use the bucket of s3://images-"),
        ({"allowed_buckets": []}, "Invalid input: the access key may not use the bucket of s3://images-"),
    ],
)  # fmt: skip
def test_a_job_that_can_not_be_done(
    change: dict[str, Any],
    message: str,
    project: DatasetProject,
    service: Service,
    storage: Storage,
    account: str,
) -> None:
    # A job keeps the rights of the key that asked for it, whatever the service itself may do.
    with paused_worker(service, storage):
        project.create(manifest(line()), ClientToken="t")
        with storage.database.write() as connection:
            connection.execute(table.update().where(table.c.account_id == account).values(change))
    described = project.settled()
    assert described["Status"] == "CREATE_FAILED"
    assert described["StatusMessage"].startswith(message)
    assert project.created(manifest(line()), ClientToken="t")["Status"] == "CREATE_COMPLETE"


def test_no_job_outlives_its_dataset(project: DatasetProject, storage: Storage, account: str) -> None:
    project.created(manifest(line()))
    project.update(manifest(line("2.png")))
    project.delete()
    error_response(project.client.describe_dataset, ProjectName="p", DatasetType="train")
    assert queued_jobs(storage, account) == []
    with storage.database.read() as connection:
        lost = sa.select(dataset_entries.c.id).where(
            dataset_entries.c.dataset_id.not_in(sa.select(datasets.c.id))
        )
        assert connection.execute(lost).all() == []
