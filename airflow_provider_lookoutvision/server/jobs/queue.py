"""The queue of long work: a row is claimed under a lease, renewed while the job runs, and deleted at its end.

A claim is one guarded UPDATE by the clock of the database, so two workers never get the same job. Accounts
take turns: the next job is of one that has the fewest under way, so that nobody waits behind all jobs of
another. The worker renews the lease; if it dies, the lease expires and another worker claims the job. Each
transaction in which a job writes begins with ``Lease.hold``: a worker that lost its lease, and doesn't know
it yet, writes nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import sqlalchemy as sa

from airflow_provider_lookoutvision.server import logs
from airflow_provider_lookoutvision.server.calls.call import Call
from airflow_provider_lookoutvision.server.jobs import process_identity
from airflow_provider_lookoutvision.server.storage.database import Database
from airflow_provider_lookoutvision.server.storage.schema import jobs, now

LEASE_MILLISECONDS = 15_000
MAX_ATTEMPTS = 3
# By how much a clock may be set back beside a living worker, which renews its lease by the clock that is.
_CLOCK_MILLISECONDS = 10_000


class LeaseLost(Exception):
    """Another worker has the job, or it was deleted: stop, and write nothing more."""


class WorkerStopping(Exception):
    """The worker is about to stop: the job goes back into the queue."""


@dataclass(frozen=True)
class Job:
    """A claimed job, with the permissions of the key that requested it."""

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
    request_id: str | None = None

    @property
    def is_last_attempt(self) -> bool:
        """Whether the job isn't retried if this attempt fails."""
        return self.attempts >= MAX_ATTEMPTS


def enqueue(
    call: Call, kind: str, subject_id: int, details: Mapping[str, Any], content: bytes | None = None
) -> None:
    """Queue a job with the caller's permissions, in the call's transaction."""
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
            request_id=logs.request_id.get(),
            created_at=now(),
        )
    )
    call.effect.queued_work = True


def claim(database: Database, owner: str, kinds: Sequence[str], after: str = "") -> Job | None:
    """Claim a job of these kinds that waits, or whose lease has expired: an account's oldest.

    :param after: the account of the job that was claimed last. Of the accounts that have the fewest jobs of
        these kinds under way, the next one by its number is served, as in a circle.
    """
    with database.read() as connection:  # mostly nothing waits, and no writer has to be held up to see that
        if connection.execute(_claimable(tuple(kinds))).first() is None:
            return None
    others = jobs.alias()
    under_way = (
        sa.select(sa.func.count())
        .where(others.c.kind.in_(kinds), ~_is_free(others), others.c.owner.is_not(None))
        .where(others.c.account_id == jobs.c.account_id)
        .scalar_subquery()
    )
    free = (
        _claimable(tuple(kinds))
        .order_by(under_way, sa.case((jobs.c.account_id > after, 0), else_=1), jobs.c.account_id, jobs.c.id)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    claiming = (
        jobs.update()
        .where(jobs.c.id == free)
        .values(owner=owner, leased_until=now() + LEASE_MILLISECONDS, attempts=jobs.c.attempts + 1)
        .returning(jobs)
    )
    with database.write() as connection:
        row = connection.execute(claiming).one_or_none()
    if row is None:
        return None
    values = {
        name: value for name, value in row._mapping.items() if name not in {"leased_until", "created_at"}
    }
    return Job(**values)


@cache
def _claimable(kinds: tuple[str, ...]) -> sa.Select[Any]:
    """The ID of a job that can be claimed; built once, since each thread of a worker polls every second."""
    return sa.select(jobs.c.id).where(jobs.c.kind.in_(kinds), _is_free(jobs)).limit(1)


def _is_free(table: Any) -> sa.ColumnElement[bool]:
    """Whether no lease of a job is in force. One that lasts too long is from a clock that was ahead."""
    until = table.c.leased_until
    return sa.or_(until < now(), until > now() + LEASE_MILLISECONDS + _CLOCK_MILLISECONDS)


class Lease:
    """The right to run a job, as long as it is renewed."""

    def __init__(self, database: Database, job: Job) -> None:
        self._database = database
        self._job = job

    @property
    def _owned(self) -> sa.ColumnElement[bool]:
        # A job that was claimed again, even by the same owner, has another count of attempts.
        job = self._job
        return sa.and_(jobs.c.id == job.id, jobs.c.owner == job.owner, jobs.c.attempts == job.attempts)

    @contextmanager
    def hold(self) -> Iterator[sa.Connection]:
        """A transaction that renews the lease first.

        :raises LeaseLost: when another worker has the job by now.
        """
        with self._database.write() as connection:
            renewal = jobs.update().where(self._owned).values(leased_until=now() + LEASE_MILLISECONDS)
            if connection.execute(renewal).rowcount == 0:
                raise LeaseLost(f"job {self._job.id}")
            yield connection

    @contextmanager
    def finish(self) -> Iterator[sa.Connection]:
        """The transaction that ends the job: its last writes, and the deletion of its row."""
        with self.hold() as connection:
            yield connection
            connection.execute(jobs.delete().where(self._owned))

    def release(self) -> None:
        """Put the job back into the queue, without counting this attempt: the worker stops."""
        with self._database.write() as connection:
            connection.execute(
                jobs.update()
                .where(self._owned)
                .values(leased_until=0, owner=None, attempts=jobs.c.attempts - 1)
            )

    def retry_later(self) -> None:
        """Put the job back after a fault that may pass; it can be claimed when its lease has expired."""
        with self._database.write() as connection:
            connection.execute(jobs.update().where(self._owned).values(owner=None))

    @contextmanager
    def renewing(self) -> Iterator[None]:
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
                    continue  # the next renewal may succeed; if none does, the lease expires as it should

        thread = threading.Thread(target=renew, name=f"lease-{self._job.id}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def requeue_of_the_gone(database: Database) -> int:
    """Put the jobs back whose workers ran on this machine and are not there any more; how many."""
    with database.read() as connection:
        owners = connection.execute(sa.select(jobs.c.owner).where(jobs.c.owner.is_not(None)).distinct())
        gone = [owner for owner in owners.scalars() if process_identity.is_gone(owner)]
    return sum(requeue(database, owner) for owner in gone)


def requeue(database: Database, owner: str) -> int:
    """Put the jobs of a dead worker back at once, without waiting for its leases; how many."""
    with database.write() as connection:
        expired = jobs.update().where(jobs.c.owner == owner).values(leased_until=0)
        return connection.execute(expired).rowcount
