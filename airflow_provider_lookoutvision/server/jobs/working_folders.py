"""Jobs that work with files: a folder for each attempt, deleted after it, or later if its worker dies."""

from __future__ import annotations

import shutil
from abc import ABC
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import sqlalchemy as sa

from airflow_provider_lookoutvision.server.jobs.handler import JobHandler
from airflow_provider_lookoutvision.server.jobs.queue import Job
from airflow_provider_lookoutvision.server.storage.schema import jobs


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

    @property
    def _root(self) -> Path:
        return self.settings.data_dir / self.noun
