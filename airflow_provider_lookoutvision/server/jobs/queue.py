"""The queue of long work: a row that is claimed under a lease, kept while the work goes on, and then gone.

A claim is one guarded UPDATE on the database's clock, so two workers never get one job. Whoever works
renews the lease; when a worker dies the lease runs out and another claims the job. Each transaction in which
a job writes begins with ``Lease.hold``: a worker that was thought dead and comes back finds its job taken and
writes nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from airflow_provider_lookoutvision.server.calls.call import Call
from airflow_provider_lookoutvision.server.storage.database import Database
from airflow_provider_lookoutvision.server.storage.schema import jobs, now

LEASE_MILLISECONDS = 15_000
MOST_ATTEMPTS = 3


class LeaseLost(Exception):
    """The job is no longer this worker's: stop, and write nothing more."""


class Stopped(Exception):
    """The worker stops; the job is to be given back."""


@dataclass(frozen=True)
class Job:
    """A claimed job, and whose rights it works with."""

    id: int
    kind: str
    subject_id: int
    details: Mapping[str, Any]
    content: bytes | None
    account_id: str
    region: str
    allowed_buckets: Sequence[str]
    operation: str
    token: str | None
    attempts: int
    owner: str

    @property
    def is_last_attempt(self) -> bool:
        """Whether the job has been begun so often that it isn't tried again."""
        return self.attempts >= MOST_ATTEMPTS


def enqueue(
    call: Call, kind: str, subject_id: int, details: Mapping[str, Any], content: bytes | None = None
) -> None:
    """Queue a job with the caller's rights, in the call's transaction."""
    call.connection.execute(
        jobs.insert().values(
            kind=kind,
            subject_id=subject_id,
            details=dict(details),
            content=content,
            account_id=call.caller.account_id,
            region=call.caller.region,
            allowed_buckets=list(call.caller.key.allowed_buckets),
            operation=call.operation,
            token=call.token,
            leased_until=0,
            attempts=0,
        )
    )
    call.effect.queued_work = True


def claim(database: Database, owner: str, kinds: Sequence[str]) -> Job | None:
    """Take the oldest job of these kinds that waits, or whose worker has gone."""
    free = (
        sa.select(jobs.c.id)
        .where(jobs.c.kind.in_(kinds), jobs.c.leased_until < now())
        .order_by(jobs.c.id)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    taking = (
        jobs.update()
        .where(jobs.c.id == free)
        .values(owner=owner, leased_until=now() + LEASE_MILLISECONDS, attempts=jobs.c.attempts + 1)
        .returning(jobs)
    )
    with database.write() as connection:
        row = connection.execute(taking).one_or_none()
    if row is None:
        return None
    values = {name: value for name, value in row._mapping.items() if name != "leased_until"}
    return Job(**values)


class Lease:
    """The right to work on a job, for as long as it is renewed."""

    def __init__(self, database: Database, job: Job) -> None:
        self._database = database
        self._job = job

    @property
    def _mine(self) -> sa.ColumnElement[bool]:
        # A job that was lost and claimed again has another count of attempts, even by the same owner.
        job = self._job
        return sa.and_(jobs.c.id == job.id, jobs.c.owner == job.owner, jobs.c.attempts == job.attempts)

    @contextmanager
    def hold(self) -> Iterator[sa.Connection]:
        """A transaction that only this job's owner gets.

        :raises LeaseLost: when the job is another's by now.
        """
        with self._database.write() as connection:
            renewal = jobs.update().where(self._mine).values(leased_until=now() + LEASE_MILLISECONDS)
            if connection.execute(renewal).rowcount == 0:
                raise LeaseLost(f"job {self._job.id}")
            yield connection

    @contextmanager
    def finish(self) -> Iterator[sa.Connection]:
        """The transaction that ends the job: its last writes, and its row gone."""
        with self.hold() as connection:
            yield connection
            connection.execute(jobs.delete().where(self._mine))

    def release(self) -> None:
        """Give the job back, unfinished and not counted as tried: the worker stops."""
        with self._database.write() as connection:
            connection.execute(
                jobs.update()
                .where(self._mine)
                .values(leased_until=0, owner=None, attempts=jobs.c.attempts - 1)
            )

    def retry_later(self) -> None:
        """Give the job back after a fault that may pass; it is claimed again when its lease has run out."""
        with self._database.write() as connection:
            connection.execute(jobs.update().where(self._mine).values(owner=None))

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Renew the lease from a thread while the block runs."""
        done = threading.Event()

        def renew() -> None:
            while not done.wait(LEASE_MILLISECONDS / 3000):
                try:
                    with self.hold():
                        pass
                except LeaseLost:
                    return
                except sa.exc.SQLAlchemyError:
                    continue  # the next renewal may succeed; if none does, the lease runs out as it should

        thread = threading.Thread(target=renew, name=f"lease-{self._job.id}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def abandon(database: Database, owner: str) -> int:
    """Free the jobs of a worker that is known to be dead, so that nobody waits for its leases; how many."""
    with database.write() as connection:
        freed = jobs.update().where(jobs.c.owner == owner).values(leased_until=0)
        return connection.execute(freed).rowcount
