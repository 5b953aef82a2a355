"""A service's worker, held so that what it would do stays in progress; and the jobs that wait for it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from polling import until
from service_processes import thread_states, workers
from services import Storage

from airflow_provider_lookoutvision.server.storage.schema import jobs
from airflow_provider_lookoutvision.testing.service import Service


def worker_of(service: Service) -> int:
    """The worker of a service, once it has one."""
    return until(lambda: workers(service), lambda found: len(found) == 1)[0]


def queued_jobs(storage: Storage, account: str | None = None) -> list[sa.Row]:
    """The jobs that wait or are under way, of all accounts or of one."""
    query = jobs.select().order_by(jobs.c.id)
    with storage.database.read() as connection:
        return list(connection.execute(query.where(jobs.c.account_id == account) if account else query))


@contextmanager
def paused_worker(service: Service, storage: Storage) -> Iterator[int]:
    """The service's worker has done all there was, and does nothing inside the block."""
    worker = worker_of(service)
    until(lambda: queued_jobs(storage), lambda left: not left)
    try:
        with storage.database.write():  # at a moment when it isn't writing: SQLite would lock the others out
            os.kill(worker, signal.SIGSTOP)
            # A thread goes on until the process has taken note of the signal.
            until(lambda: thread_states(worker), {"T"}.__eq__)
        yield worker
    finally:
        os.kill(worker, signal.SIGCONT)
