"""Doing jobs, of whatever kind: how they end, and what their subjects are told.

What goes wrong is told in the subject's StatusMessage, which begins with whose fault it was: ``Invalid
input:`` when the same request would fail again, ``Service fault:`` when it may succeed later.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from airflow_provider_lookoutvision.server.jobs.queue import Job, Lease
from airflow_provider_lookoutvision.server.settings import Settings
from airflow_provider_lookoutvision.server.storage.buckets import BucketError, Store
from airflow_provider_lookoutvision.server.storage.database import Database

INVALID_INPUT = "Invalid input: "
SERVICE_FAULT = "Service fault: "


class InvalidInput(Exception):
    """What the job was given can't be used; the message tells its author what to change."""


class ServiceFault(Exception):
    """The job can't be done, and its input isn't at fault."""


@dataclass(frozen=True)
class JobHandler(ABC):
    """Does jobs of some kinds.

    :param stopping: asked now and then whether the worker is about to stop.
    """

    kinds: ClassVar[tuple[str, ...]]
    noun: ClassVar[str]

    database: Database
    store: Store
    settings: Settings
    stopping: Callable[[], bool]

    def run(self, job: Job) -> None:
        """Do a claimed job to its end, good or bad.

        :raises LeaseLost: when the job is another's by now.
        :raises Stopped: when the worker stops first.
        """
        lease = Lease(self.database, job)
        with lease.kept():
            try:
                self.do(job, lease)
            except InvalidInput as error:
                self.fail(job, f"{INVALID_INPUT}{error}")
            except ServiceFault as error:
                self.fail(job, f"{SERVICE_FAULT}{error}")
            except BucketError as error:
                if error.input or job.is_last_attempt:
                    self.fail(job, f"{INVALID_INPUT if error.input else SERVICE_FAULT}{error}")
                else:
                    lease.retry_later()

    def fail_unexpectedly(self, job: Job) -> None:
        """End a job that met an error of the service itself; trying again would meet it again."""
        self.fail(job, f"{SERVICE_FAULT}the {self.noun} met an error; the log tells which")

    def give_up(self, job: Job) -> None:
        """End a job whose workers, or whose database, failed each time."""
        self.fail(
            job,
            f"{SERVICE_FAULT}the {self.noun} was begun {job.attempts - 1} times, and never came to its end. "
            "The service's log may tell why; trying again is safe",
        )

    @abstractmethod
    def do(self, job: Job, lease: Lease) -> None:
        """Do it.

        :raises InvalidInput: when it was given what can't be used.
        :raises ServiceFault: when it can't be done.
        :raises BucketError: when an object can't be had; where that may pass, the job is tried again.
        """

    @abstractmethod
    def fail(self, job: Job, message: str) -> None:
        """End it, and tell its subject why."""
