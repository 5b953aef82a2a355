"""A project with its bucket, for tests of datasets; and the worker beside a service."""

from __future__ import annotations

import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
import sqlalchemy as sa
from botocore.exceptions import ClientError
from services import Storage

from airflow_provider_lookoutvision.server.storage.schema import jobs
from airflow_provider_lookoutvision.testing.service import Service

SECONDS = 60
T = TypeVar("T")


@dataclass(frozen=True)
class Lab:
    """A project named ``p`` and an empty bucket, both of one test only."""

    client: Any
    folder: Path

    @classmethod
    def make(cls, service: Service, client: Any) -> Lab:
        client.create_project(ProjectName="p")
        folder = service.data_dir / "buckets" / f"images-{secrets.token_hex(6)}"
        folder.mkdir(parents=True)
        return cls(client, folder)

    @property
    def bucket(self) -> str:
        return self.folder.name

    def source(self, content: bytes | None = None, key: str = "x.manifest", **more: str) -> dict[str, Any]:
        """``DatasetSource`` of an object, written first if there is content."""
        if content is not None:
            path = self.folder / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return {"GroundTruthManifest": {"S3Object": {"Bucket": self.bucket, "Key": key, **more}}}

    def create(self, content: bytes | None = None, dataset: str = "train", **more: Any) -> dict[str, Any]:
        """CreateDataset, from a manifest if there is content; what it answered."""
        if content is not None:
            more["DatasetSource"] = self.source(content)
        answer = self.client.create_dataset(ProjectName="p", DatasetType=dataset, **more)
        return dict(answer["DatasetMetadata"])

    def created(self, content: bytes | None = None, dataset: str = "train", **more: Any) -> dict[str, Any]:
        """The same, and its description once that has come to its end."""
        self.create(content, dataset, **more)
        return self.settled(dataset)

    def describe(self, dataset: str = "train") -> dict[str, Any]:
        answer = self.client.describe_dataset(ProjectName="p", DatasetType=dataset)
        return dict(answer["DatasetDescription"])

    def settled(self, dataset: str = "train") -> dict[str, Any]:
        """The dataset's description, once nothing is in progress."""
        return until(lambda: self.describe(dataset), lambda found: "IN_PROGRESS" not in found["Status"])

    def update(self, changes: bytes, dataset: str = "train", **more: Any) -> dict[str, Any]:
        """UpdateDatasetEntries, and the dataset's description once that has come to its end."""
        self.client.update_dataset_entries(ProjectName="p", DatasetType=dataset, Changes=changes, **more)
        return self.settled(dataset)

    def delete(self, dataset: str = "train", **more: Any) -> None:
        self.client.delete_dataset(ProjectName="p", DatasetType=dataset, **more)

    def entries(self, dataset: str = "train", **filters: Any) -> list[str]:
        """The entries of all pages."""
        pages = self.client.get_paginator("list_dataset_entries").paginate(
            ProjectName="p", DatasetType=dataset, **filters
        )
        return [entry for page in pages for entry in page["DatasetEntries"]]


def until(ask: Callable[[], T], enough: Callable[[T], bool], seconds: float = SECONDS) -> T:
    """Ask until the answer is enough; fails when it isn't in time."""
    deadline = time.monotonic() + seconds
    while not enough(answer := ask()):
        assert time.monotonic() < deadline, f"still {answer}"
        time.sleep(0.02)
    return answer


def statistics(described: dict[str, Any]) -> tuple[int, int, int, int]:
    """Total, Labeled, Normal, Anomaly."""
    found = described["ImageStats"]
    return found["Total"], found["Labeled"], found["Normal"], found["Anomaly"]


def refusal(call: Callable[..., Any], **members: Any) -> dict[str, Any]:
    """The error that a call ends in, as the SDK parsed it."""
    with pytest.raises(ClientError) as caught:
        call(**members)
    return dict(caught.value.response)


def workers_of(service: Service) -> list[int]:
    """The processes that a service has started and that are no worse than asleep."""
    pid = service.process.pid
    children: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        children += map(int, (task / "children").read_text().split())
    return [child for child in children if is_alive(child)]


def is_alive(pid: int) -> bool:
    return _state(Path(f"/proc/{pid}")) not in "ZX"


def _state(task: Path) -> str:
    try:
        return (task / "stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


def worker_of(service: Service) -> int:
    """The worker of a service, once it has one."""
    return until(lambda: workers_of(service), lambda found: len(found) == 1)[0]


def queued(storage: Storage, account: str | None = None) -> list[sa.Row[Any]]:
    """The jobs that wait or are under way, of all accounts or of one."""
    query = jobs.select().order_by(jobs.c.id)
    with storage.database.read() as connection:
        return list(connection.execute(query.where(jobs.c.account_id == account) if account else query))


@contextmanager
def paused(service: Service, storage: Storage) -> Iterator[int]:
    """The service's worker does nothing inside the block, so that what it would do stays in progress."""
    worker = worker_of(service)
    until(lambda: queued(storage), lambda left: not left)
    try:
        with storage.database.write():  # at a moment when it isn't writing: SQLite would lock the others out
            os.kill(worker, signal.SIGSTOP)
            # A thread goes on until the process has taken note of the signal.
            until(lambda: {_state(task) for task in Path(f"/proc/{worker}/task").iterdir()}, {"T"}.__eq__)
        yield worker
    finally:
        os.kill(worker, signal.SIGCONT)
