"""The processes of a studio: its worker, which can be held, its trainings and its inference units."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dataset_fixtures import queued, until
from service_processes import processes

if TYPE_CHECKING:
    from model_fixtures import Studio


def trainers(studio: Studio) -> list[int]:
    """The training processes of a studio."""
    return processes("server.models.training_process", str(studio.service.data_dir))


def worker_of(studio: Studio) -> int:
    """The studio's worker; it has inference units beside it."""
    parent = studio.service.process.pid

    def workers() -> list[int]:
        return [pid for pid in processes("server.cli", "\0worker") if _parent(pid) == parent]

    return until(workers, lambda found: len(found) == 1)[0]


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


@contextmanager
def paused(studio: Studio) -> Iterator[int]:
    """The studio's worker has done all there was, and does nothing inside the block."""
    until(lambda: queued(studio.storage), lambda left: not left)
    worker = worker_of(studio)
    try:
        with studio.storage.database.write():  # at a moment when it isn't writing: SQLite would lock us out
            os.kill(worker, signal.SIGSTOP)
            # A thread goes on until the process has taken note of the signal.
            until(lambda: _states(worker), {"T"}.__eq__)
        yield worker
    finally:
        os.kill(worker, signal.SIGCONT)


def _states(pid: int) -> set[str]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return {(task / "stat").read_text().rpartition(")")[2].split()[0] for task in tasks}
