"""Workers that are killed or stopped, alone or several: an import comes to its end, once."""

from __future__ import annotations

import json
import os
import secrets
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dataset_projects import DatasetProject, statistics
from held_worker import queued_jobs, worker_of
from import_jobs import (
    LARGE,
    LINES,
    SMALL,
    assert_job_was_given_back,
    assert_small_import_is_complete,
    count_stored_entries,
    expire_leases,
    held_import,
    project_of,
)
from manifest_lines import line, manifest
from polling import until
from service_processes import is_alive
from services import MakeClient, NewKey, NewService, Storage, beside

from airflow_provider_lookoutvision.testing.service import Service


def test_a_worker_that_is_killed_is_replaced_and_its_import_completed(
    project: DatasetProject, service: Service, storage: Storage, account: str
) -> None:
    worker = worker_of(service)
    project.create(LARGE)
    with held_import(storage, account) as dataset:
        os.kill(worker, signal.SIGKILL)
        assert project.describe()["Status"] == "CREATE_IN_PROGRESS"
        assert project.entries() == []  # half an import is nobody's to see
    described = project.settled()
    assert (described["Status"], statistics(described)) == ("CREATE_COMPLETE", (LINES, 10_667, 5334, 5333))
    assert count_stored_entries(storage, dataset) == LINES
    some = project.entries(SourceRefContains="99.png")
    assert len(set(some)) == len(some) == 160
    assert worker_of(service) != worker
    project.delete()


def test_whatever_is_killed_the_import_goes_on_when_it_is_back(new_service: NewService) -> None:
    service = new_service()
    with project_of(service) as (project, storage):
        # Both at once: nobody gives anything back, and the lease must run out.
        worker = worker_of(service)
        project.create(LARGE)
        with held_import(storage):
            os.kill(worker, signal.SIGKILL)
            service.kill()
        [left] = queued_jobs(storage)
        assert (left.attempts, left.owner is not None) == (1, True)
        project.source(SMALL)
        service.start()
        expire_leases(storage)
        assert_small_import_is_complete(project)
        project.delete()

        # The service alone: its worker notices, gives back what it has, and is gone too.
        worker = worker_of(service)
        project.create(LARGE)
        with held_import(storage):
            service.kill()
        until(lambda: is_alive(worker), lambda alive: not alive)
        assert_job_was_given_back(storage)
        project.source(SMALL)
        service.start()
        assert_small_import_is_complete(project)
        project.delete()


def test_two_services_do_nothing_twice(
    service: Service,
    storage: Storage,
    new_service: NewService,
    make_client: MakeClient,
    new_key: NewKey,
    tmp_path: Path,
) -> None:
    data_dir, flags = beside(service, tmp_path / "second")
    second_process = new_service(data_dir=data_dir, database=flags)
    key = new_key()
    clients = [make_client(key=key), make_client(key=key, endpoint_url=second_process.endpoint_url)]
    assert worker_of(service) != worker_of(second_process)
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
        for log in (service.log_file.read_bytes()[skipped:], second_process.log_file.read_bytes())
        for found in map(json.loads, log.splitlines())
        if found["message"] == "job started"
    ]
    assert len(begun) == len(set(begun)) == 12
    assert {attempt for _, attempt in begun} == {1}
