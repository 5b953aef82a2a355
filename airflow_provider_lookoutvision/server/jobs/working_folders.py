"""Jobs that work with files, in child processes.

Each attempt has a folder, deleted after it, or later if its worker dies. A process that dies is replaced
once.
"""

from __future__ import annotations

import logging
import shutil
from abc import ABC
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, TypeVar

import sqlalchemy as sa

from airflow_provider_lookoutvision.server.jobs.child_process import ProcessDied
from airflow_provider_lookoutvision.server.jobs.errors import ServiceFault
from airflow_provider_lookoutvision.server.jobs.handler import JobHandler
from airflow_provider_lookoutvision.server.jobs.queue import Job
from airflow_provider_lookoutvision.server.storage.schema import jobs

_MAX_PROCESSES = 2

log = logging.getLogger("lookoutvision")

Result = TypeVar("Result")


class WorkingFolderHandler(JobHandler, ABC):
    """Handles jobs of which each attempt has a folder, below ``noun`` in the data directory."""

    noun: ClassVar[str]

    def give_up(self, job: Job) -> None:
        """End a job that was started too often, and delete what its workers have left."""
        self.delete_leftovers()
        super().give_up(job)

    def delete_leftovers(self) -> None:
        """Delete the folders that dead workers have left."""
        folders = list(self._root.iterdir()) if self._root.is_dir() else []
        with self.database.read() as connection:
            rows = connection.execute(sa.select(jobs.c.id, jobs.c.attempts))
            active = {f"{row.id}-{row.attempts}" for row in rows}
        for path in folders:
            if path.name not in active:
                shutil.rmtree(path, ignore_errors=True)

    @contextmanager
    def working_folder(self, job: Job) -> Iterator[Path]:
        """A folder for this attempt, deleted after it."""
        folder = self._root / f"{job.id}-{job.attempts}"
        folder.mkdir(mode=0o700, parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def with_restart(self, job: Job, folder: Path, attempt: Callable[[Path], Result]) -> Result:
        """What a process comes to, or another one if it dies.

        :param folder: the attempt's; each process gets an empty folder in it.
        :param attempt: runs a process in its folder, and returns its result.
        :raises ServiceFault: when the second one dies too.
        """
        for number in range(1, _MAX_PROCESSES + 1):
            work = folder / str(number)
            work.mkdir()
            try:
                return attempt(work)
            except ProcessDied as death:
                details = {"job": job.id, "process_number": number, "reason": str(death)}
                log.error(f"a {self.noun} process died", extra=details)
                shutil.rmtree(work)
                last = death
        raise ServiceFault(f"the {self.noun} process ended {_MAX_PROCESSES} times, the last time by {last}")

    @property
    def _root(self) -> Path:
        return self.settings.data_dir / self.noun
