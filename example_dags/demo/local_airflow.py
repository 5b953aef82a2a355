"""An Airflow of the demo's own: a home folder, a database in it, and DAG runs by ``airflow dags test``.

Airflow's output goes into ``airflow.log`` in that folder. The message of an ``AirflowFailed`` has the reason,
or else the end of the output.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_COMMAND_SECONDS = 3600
_LOOK_SECONDS = 0.5
_SHOWN_LINES = 40
_REASON = re.compile(r"\bAirflow(?:Fail)?Exception: .+")


class AirflowFailed(RuntimeError):
    """An Airflow command failed; the message holds the reason, or the end of what it said."""


@dataclass(frozen=True)
class TaskRecord:
    """What Airflow's database says of a task instance; ``seconds`` is None until it has ended."""

    task_id: str
    map_index: int
    state: str
    tries: int
    seconds: float | None


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
        self._run(["db", "migrate"])

    def reserialize(self) -> None:
        """Make the DAGs known: Airflow 2 fails a task with an alias of a DAG that it does not know."""
        self._run(["dags", "reserialize"])

    def test_dag(
        self,
        dag_id: str,
        connection: Mapping[str, Any],
        *,
        watch: Callable[[], None] = lambda: None,
        **params: Any,
    ) -> None:
        """Run a DAG to its end.

        :param connection: the Airflow connection ``aws_default``, in Airflow's JSON form.
        :param watch: called now and then while it runs.
        :param params: the DAG's, where they differ from its defaults.
        :raises AirflowFailed: when the run fails.
        """
        command = ["dags", "test", dag_id, "--conf", json.dumps(params)]
        self._run(command, watch, AIRFLOW_CONN_AWS_DEFAULT=json.dumps(connection))

    def tasks(self, dag_id: str) -> list[TaskRecord]:
        """What has become of the task instances of a DAG's last run, in the order in which they began."""
        query = (
            "SELECT task_id, map_index, state, try_number, "
            "(julianday(end_date) - julianday(start_date)) * 86400 FROM task_instance "
            f"WHERE start_date IS NOT NULL AND run_id = ({_LAST_RUN}) AND dag_id = ? ORDER BY start_date"
        )
        return [TaskRecord(*row) for row in self._select(query, dag_id, dag_id)]

    def result(self, dag_id: str, task_id: str) -> Any:
        """What a task of a DAG's last run returned, from its XCom; of a mapped task the first."""
        query = (
            f"SELECT value FROM xcom WHERE run_id = ({_LAST_RUN}) AND dag_id = ? AND task_id = ? "
            "AND key = 'return_value' ORDER BY map_index"
        )
        rows = self._select(query, dag_id, dag_id, task_id)
        return json.loads(rows[0][0]) if rows else None

    def _select(self, query: str, *parameters: str) -> list[Any]:
        with closing(sqlite3.connect(self._database)) as connection:
            return connection.execute(query, parameters).fetchall()

    def _run(self, command: list[str], watch: Callable[[], None] = lambda: None, **environ: str) -> None:
        begin = self.log_file.stat().st_size if self.log_file.exists() else 0
        deadline = time.monotonic() + _COMMAND_SECONDS
        with self.log_file.open("a") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "airflow", *command],
                env={**self._environ, **environ},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            try:
                while process.poll() is None and time.monotonic() < deadline:
                    watch()
                    time.sleep(_LOOK_SECONDS)
                watch()
            finally:
                status = process.poll()
                process.kill()
                process.wait()
        if status is None:
            raise AirflowFailed(self._told(f"took more than {_COMMAND_SECONDS} seconds", command, begin))
        if status:
            raise AirflowFailed(self._told(f"ended with {status}", command, begin))

    def _told(self, what: str, command: list[str], begin: int) -> str:
        with self.log_file.open(errors="replace") as log:
            log.seek(begin)
            text = log.read()
        message = f"`airflow {' '.join(command[:3])}` {what}."
        if reasons := dict.fromkeys(_REASON.findall(text)):
            return "\n  ".join([message, *reasons])
        end = "\n".join(f"  | {line}" for line in text.splitlines()[-_SHOWN_LINES:])
        return f"{message} The end of what it said:\n{end}"


_LAST_RUN = "SELECT run_id FROM dag_run WHERE dag_id = ? ORDER BY id DESC LIMIT 1"
