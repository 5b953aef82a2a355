"""An Airflow of the demo's own: a home folder, a database in it, and DAG runs by ``airflow dags test``.

What Airflow says goes into ``airflow.log`` in that folder, since it says a lot; whoever meets an
``AirflowFailed`` gets the end of it.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_COMMAND_SECONDS = 300
_SHOWN_LINES = 40


class AirflowFailed(RuntimeError):
    """An Airflow command failed; the message holds the end of what it said."""


@dataclass(frozen=True)
class TaskRecord:
    """What Airflow's database says of a task instance."""

    task_id: str
    state: str
    tries: int


class LocalAirflow:
    """An Airflow with an empty database.

    :param home: its folder, made here.
    :param dags: the folder of its DAG files.
    """

    def __init__(self, home: Path, dags: Path) -> None:
        self.log_file = home / "airflow.log"
        self._database = home / "airflow.db"
        self._environ = {
            **os.environ,
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self._database}",
        }
        home.mkdir(parents=True)
        self._run("db", "migrate")

    def test_dag(self, dag_id: str, connections: Mapping[str, Mapping[str, Any]]) -> None:
        """Run a DAG to its end.

        :param connections: Airflow connections, in Airflow's JSON form, by their IDs.
        :raises AirflowFailed: when the run fails.
        """
        variables = {f"AIRFLOW_CONN_{name.upper()}": json.dumps(value) for name, value in connections.items()}
        self._run("dags", "test", dag_id, **variables)

    def tasks(self) -> list[TaskRecord]:
        """What became of the task instances, in the order in which they began."""
        query = "SELECT task_id, state, try_number FROM task_instance ORDER BY start_date"
        return [TaskRecord(*row) for row in self._select(query)]

    def result(self, task_id: str) -> Any:
        """What a task returned, from its XCom."""
        query = "SELECT value FROM xcom WHERE task_id = ? AND key = 'return_value'"
        rows = self._select(query, task_id)
        return json.loads(rows[0][0]) if rows else None

    def _select(self, query: str, *parameters: str) -> list[Any]:
        with closing(sqlite3.connect(self._database)) as connection:
            return connection.execute(query, parameters).fetchall()

    def _run(self, *arguments: str, **environ: str) -> None:
        with self.log_file.open("a") as log:
            try:
                status = subprocess.run(
                    [sys.executable, "-m", "airflow", *arguments],
                    env={**self._environ, **environ},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    timeout=_COMMAND_SECONDS,
                    check=False,
                ).returncode
            except subprocess.TimeoutExpired:
                status = None
        if status:
            raise AirflowFailed(self._told(f"ended with {status}", arguments))
        if status is None:
            raise AirflowFailed(self._told(f"took more than {_COMMAND_SECONDS} seconds", arguments))

    def _told(self, what: str, arguments: tuple[str, ...]) -> str:
        lines = self.log_file.read_text(errors="replace").splitlines()
        end = "\n".join(f"  | {line}" for line in lines[-_SHOWN_LINES:])
        return f"`airflow {' '.join(arguments)}` {what}. The end of what it said:\n{end}"
