"""How a job is run, whatever its kind, and how it ends.

A failure is written to the StatusMessage of the job's resource. The message begins with the cause: ``Invalid
input:`` when the same request would fail again, ``Service fault:`` when it may succeed later.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from airflow_provider_lookoutvision.server.jobs.errors import InvalidInput, ServiceFault
from airflow_provider_lookoutvision.server.jobs.queue import Job, Lease
from airflow_provider_lookoutvision.server.settings import Settings
from airflow_provider_lookoutvision.server.storage.buckets import BucketError, Store
from airflow_provider_lookoutvision.server.storage.database import Database

INVALID_INPUT = "Invalid input: "
SERVICE_FAULT = "Service fault: "


@dataclass(frozen=True)
class JobHandler(ABC):
    """Runs jobs of some kinds.

    :param stopping: whether the worker is about to stop; to be called now and then.
    """

    kinds: ClassVar[tuple[str, ...]]
    noun: ClassVar[str]

    database: Database
    store: Store
    settings: Settings
    stopping: Callable[[], bool]

    def run(self, job: Job) -> None:
        """Run a claimed job until it succeeds or fails.

        :raises LeaseLost: when another worker has the job by now.
        :raises WorkerStopping: when the worker stops first.
        """
        lease = Lease(self.database, job)
        with lease.renewing():
            try:
                self.handle(job, lease)
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
        """End a job that failed by an error in the service itself: another attempt would fail too."""
        self.fail(job, f"{SERVICE_FAULT}the {self.noun} failed with an error; see the service's log")

    def give_up(self, job: Job) -> None:
        """End a job whose workers, or whose database, failed at each attempt."""
        self.fail(
            job,
            f"{SERVICE_FAULT}the {self.noun} was started {job.attempts - 1} times and never finished. "
            "The service's log may say why; it is safe to try again",
        )

    @abstractmethod
    def handle(self, job: Job, lease: Lease) -> None:
        """Do the job's work.

        :raises InvalidInput: when its input can't be used.
        :raises ServiceFault: when it can't be done for another reason.
        :raises BucketError: when an object can't be read or written; the job is retried if that may pass.
        """

    @abstractmethod
    def fail(self, job: Job, message: str) -> None:
        """End the job, and write the message to its resource."""
