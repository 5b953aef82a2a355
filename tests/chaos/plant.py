"""What a schedule breaks: an Airflow, a service on PostgreSQL behind a proxy, the processes of both."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import sqlalchemy as sa
from airflow_instance import AirflowInstance
from postgres_server import PostgresServer
from schedules import Kind
from service_processes import parent, replicas, training_processes, workers
from services import Storage
from silent_proxy import SilentProxy

from airflow_provider_lookoutvision.testing.service import Service

RUNNING = ("running", "restarting")


@dataclass
class Plant:
    """Airflow, the service, and what each kind of fault does to them.

    ``done`` counts the faults that have happened, by kind, and ``killed_tasks`` the tasks among them. One of
    those that hit everybody happens at a time.
    """

    airflow: AirflowInstance
    service: Service
    storage: Storage
    postgres: PostgresServer
    database: SilentProxy
    done: Counter[Kind] = field(default_factory=Counter)
    killed_tasks: int = 0
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def inflict(self, kind: Kind, instances: Callable[[], Sequence[SimpleNamespace]], seconds: float) -> None:
        """Do what a kind of fault does.

        :param instances: a function: the task instances of the run that it happens to.
        :param seconds: for how long, where it lasts.
        """
        if kind in {Kind.KILL_TASK, Kind.KILL_SUPERVISOR, Kind.KILL_BOTH}:
            for instance in instances():
                if instance.state in RUNNING and instance.pid:
                    self._kill_task(kind, instance.pid)
            return
        with self._turn:
            self._inflict_on_all(kind, seconds)

    def _inflict_on_all(self, kind: Kind, seconds: float) -> None:
        match kind:
            case Kind.KILL_TRIGGERER:
                self.airflow.restart("triggerer", {})
            case Kind.KILL_SCHEDULER:
                self.airflow.restart("scheduler", {})
            case Kind.KILL_SERVICE:
                self.service.kill()
                self.service.start()
            case Kind.KILL_WORKER:
                _kill(workers(self.service))
            case Kind.KILL_TRAINING:
                _kill(training_processes(self.service))
            case Kind.KILL_REPLICA:
                _kill(replicas(self.service))
            case Kind.CUT_DATABASE:
                name = sa.make_url(self.database.url).database
                self.postgres.execute(
                    f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
                )
            case Kind.SILENCE_DATABASE:
                self.database.fall_silent()
                threading.Event().wait(seconds)
                self.database.speak()

    def _kill_task(self, kind: Kind, pid: int) -> None:
        """Kill a task's process, its supervisor, or both, unless the process ID is another's by now."""
        supervisor = parent(pid)
        if b"LocalExecutor" not in _command(supervisor):
            return
        # The supervisor first: it would report that the task has ended.
        if kind != Kind.KILL_TASK:
            _kill([supervisor])
        if kind != Kind.KILL_SUPERVISOR:
            _kill([pid])
        self.killed_tasks += 1

    @property
    def training_interruptions(self) -> int:
        """How many faults may have let a training begin anew."""
        kinds = (Kind.KILL_SERVICE, Kind.KILL_WORKER, Kind.CUT_DATABASE, Kind.SILENCE_DATABASE)
        return sum(self.done[kind] for kind in kinds)

    def rows(self, query: sa.Select[Any]) -> list[Any]:
        """Rows of the service's own tables."""
        with self.storage.database.read() as connection:
            return list(connection.execute(query))


def _kill(pids: Sequence[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
