"""A whole Airflow for tests, triggerer included, driven by its REST API."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
from airflow_rest import REST

AIRFLOW = (sys.executable, "-m", "airflow")
# A busy machine takes long; these end a test that would never end otherwise.
START_SECONDS = 900
RUN_SECONDS = 900
REPETITIONS = 20
ENDED = {"success", "failed"}
WAITING = {"awaiting_input", "deferred"}


@dataclass(frozen=True)
class Run:
    """One DAG run."""

    airflow: AirflowInstance
    dag_id: str
    run_id: str

    def wait(self) -> str:
        """Wait until the run has ended, and return its state."""

        def ended() -> str | None:
            state: str = self._get("")["state"]
            return state if state in ENDED else None

        return str(wait_for(ended, RUN_SECONDS, f"{self.dag_id} to end"))

    def wait_for_success(self) -> None:
        """Wait until the run has ended; fail with the logs of what failed in it, unless it has succeeded."""
        if self.wait() != "success":
            raise AssertionError(f"{self.dag_id} has failed\n" + "\n".join(self._failures()))

    def _failures(self) -> Iterator[str]:
        for instance in self._get("/taskInstances")["task_instances"]:
            name, index, tries = (instance[key] for key in ("task_id", "map_index", "try_number"))
            yield f"{name}[{index}]: {instance['state']}, try {tries}"
            if instance["state"] == "failed":
                yield from (self.log(name, number, index)[-8000:] for number in range(1, tries + 1))

    def task(self, task_id: str, map_index: int = -1) -> SimpleNamespace:
        """Return a task instance as it is now: state, try_number, max_tries and so on."""
        for instance in self._get("/taskInstances")["task_instances"]:
            if (instance["task_id"], instance["map_index"]) == (task_id, map_index):
                return SimpleNamespace(**instance)
        raise LookupError((task_id, map_index))

    def context(self, task_id: str, map_index: int = -1) -> Any:
        """Return what of a task instance's context its client token is made of."""
        instance = self.task(task_id, map_index)
        instance.run_id = instance.dag_run_id
        task = self.airflow.request("GET", f"/dags/{self.dag_id}/tasks/{task_id}")
        instance.task = SimpleNamespace(retries=int(task["retries"]))
        return {"ti": instance} | REST.task_state_store(partial(self._state, task_id, map_index))

    def _state(self, task_id: str, map_index: int, key: str) -> Any:
        path = f"/taskInstances/{task_id}/state-store/{key}?map_index={map_index}"
        return self._get(path)["value"]

    def xcom(self, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        """Return an XCom's value."""
        path = f"/taskInstances/{task_id}/xcomEntries/{key}?{REST.plain_xcom}&map_index={map_index}"
        return self._get(path)["value"]

    def links(self, task_id: str) -> dict[str, str]:
        """Return the addresses of a task's extra links, without those that have none."""
        found = REST.links(self._get(f"/taskInstances/{task_id}/links"))
        return {name: url for name, url in found.items() if url}

    def log(self, task_id: str, try_number: int, map_index: int = -1) -> str:
        """Return the log of one try, as text."""
        path = f"/taskInstances/{task_id}/logs/{try_number}?full_content=true&map_index={map_index}"
        return REST.log(self._get(path)["content"])

    def logs(self, task_id: str) -> str:
        """Return the logs of all tries, as one text."""
        tries = range(1, self.task(task_id).try_number + 1)
        return "\n".join(self.log(task_id, number) for number in tries)

    def asset_events(self) -> list[tuple[str, Any]]:
        """Return the URI of the asset and the extra, for each event of an asset."""
        place, events, uri = REST.asset_events
        query = f"?source_dag_id={self.dag_id}&source_run_id={self.run_id}"
        return [(event[uri], event["extra"]) for event in self.airflow.request("GET", place + query)[events]]

    def answer(self, task_id: str, choice: str, map_index: int = -1) -> str:
        """Choose an option when a task waits for somebody, until it has ended; return the text that it shows.

        A busy Airflow takes a task that is answered at once for one that was lost, and tries it again.
        """
        path = f"/taskInstances/{task_id}/{map_index}/hitlDetails"
        place = f"/dags/{self.dag_id}/dagRuns/{self.run_id}{path}"
        shown = ""

        def ended() -> bool:
            nonlocal shown
            try:
                state = self.task(task_id, map_index).state
            except LookupError:
                return False
            if state in WAITING and not (detail := self._get(path))["response_received"]:
                shown = str(detail["body"])
                self.airflow.request("PATCH", place, json={"chosen_options": [choice]})
            return state in ENDED

        wait_for(ended, RUN_SECONDS, f"{task_id} to be answered")
        return shown

    def clear(self, *task_ids: str) -> None:
        """Clear the tasks, as a user does in the UI; without any, those that have failed."""
        body = {
            "dry_run": False,
            "dag_run_id": self.run_id,
            "only_failed": not task_ids,
            "reset_dag_runs": True,
            **({"task_ids": list(task_ids)} if task_ids else {}),
        }
        self.airflow.request("POST", f"/dags/{self.dag_id}/clearTaskInstances", json=body)

    def delete(self) -> None:
        """Make Airflow forget the run."""
        self.airflow.request("DELETE", f"/dags/{self.dag_id}/dagRuns/{self.run_id}")

    def _get(self, path: str) -> Any:
        return self.airflow.request("GET", f"/dags/{self.dag_id}/dagRuns/{self.run_id}{path}")


class AirflowInstance:
    """The running Airflow."""

    def __init__(self, url: str, restart: Callable[[str, Mapping[str, str]], None]) -> None:
        self.restart = restart
        self._client = httpx.Client(base_url=url, timeout=60)
        self._connections = 0
        self._runs = 0

    def request(self, method: str, path: str, **arguments: Any) -> Any:
        """Call the REST API."""
        repeated = False
        for _ in range(REPETITIONS):
            try:
                response = self._client.request(method, f"{REST.api}{path}", **arguments)
            except httpx.TimeoutException:
                repeated = True  # a busy machine: it may have been done, or not
                continue
            if response.status_code == httpx.codes.INTERNAL_SERVER_ERROR:
                time.sleep(0.5)
                continue
            if repeated and response.status_code == httpx.codes.CONFLICT:
                return None
            assert response.is_success, f"{method} {path}: {response.status_code} {response.text}"
            return response.json() if response.content else None
        raise TimeoutError(f"{method} {path}: no answer {REPETITIONS} times")

    def open(self, path: str, **headers: str) -> httpx.Response:
        """Open a page of its UI, without being led on."""
        return self._client.get(path, headers=headers)

    def connection(self, endpoint_url: str, key: Any, conn_id: str = "", **extra: Any) -> str:
        """Make an Amazon connection to a service, and return its ID."""
        self._connections += 1
        conn_id = conn_id or f"service_{self._connections}"
        extra = {
            "region_name": "eu-central-1",
            "service_config": {"lookoutvision": {"endpoint_url": endpoint_url}},
            # Each try sends a dropped request twice, so that a fault must outlast botocore's own retries.
            "config_kwargs": {"retries": {"mode": "standard", "total_max_attempts": 2}},
            **extra,
        }
        body = {
            "connection_id": conn_id,
            "conn_type": "aws",
            "login": key.access_key_id,
            "password": key.secret_access_key,
            "extra": json.dumps(extra),
        }
        self.remove_connection(conn_id)
        self.request("POST", "/connections", json=body)
        return conn_id

    def remove_connection(self, conn_id: str) -> None:
        """See to it that there is no such connection."""
        response = self._client.delete(f"{REST.api}/connections/{conn_id}")
        assert response.is_success or response.status_code == httpx.codes.NOT_FOUND, response.text

    def connection_forms(self) -> list[dict[str, Any]]:
        """What the UI makes the forms of connections of."""
        response = self._client.get(REST.connection_forms)
        assert response.is_success, response.text
        forms: list[dict[str, Any]] = response.json()
        return forms

    def run(self, dag_id: str, run_id: str | None = None, **conf: Any) -> Run:
        """Trigger a DAG."""
        self._runs += 1
        run_id = run_id or f"{dag_id}__{self._runs}"
        body = {"dag_run_id": run_id, "conf": conf, **REST.new_run}
        self.request("POST", f"/dags/{dag_id}/dagRuns", json=body)
        return Run(self, dag_id, run_id)

    def unpause(self, dag_id: str) -> None:
        """Let a DAG run when it is to."""
        self.request("PATCH", f"/dags/{dag_id}", json={"is_paused": False})

    def next_run(self, dag_id: str) -> Run:
        """Wait for the first run of a DAG that nobody triggers."""
        runs = wait_for(
            lambda: self.request("GET", f"/dags/{dag_id}/dagRuns")["dag_runs"],
            RUN_SECONDS,
            f"{dag_id} to run",
        )
        return Run(self, dag_id, runs[0]["dag_run_id"])

    def wait_until_ready(self, dag_ids: set[str]) -> None:
        """Wait until it answers, works and knows the DAGs."""

        def ready() -> bool:
            try:
                REST.log_in(self._client)
                health = self.request("GET", REST.health)
                known = {dag["dag_id"] for dag in self.request("GET", "/dags")["dags"]}
            except (httpx.HTTPError, AssertionError, TimeoutError, ValueError):
                return False
            return known >= dag_ids and health["scheduler"]["status"] == "healthy"

        wait_for(ready, START_SECONDS, "Airflow to be ready")


def wait_for(get: Callable[[], Any], seconds: float, what: str, pause: float = 0.3) -> Any:
    """Poll until ``get`` returns something true, with a pause between two polls, and return that."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if result := get():
            return result
        time.sleep(pause)
    raise TimeoutError(f"waited {seconds} s for {what}")


@contextmanager
def running_airflow(
    home: Path, database_url: str, dag_folders: Mapping[str, Path], dag_ids: set[str], **environment: str
) -> Iterator[AirflowInstance]:
    """An Airflow that runs inside the block, with an empty database and its own ports.

    :param home: an empty folder.
    :param database_url: an empty database, not of SQLite: there, four components that write lock each other
        out for a minute at a time.
    :param dag_folders: folders with DAG files, by a name.
    :param dag_ids: the DAGs to wait for.
    :param environment: variables to add.
    """
    dags = home / "dags"
    dags.mkdir()
    for name, folder in dag_folders.items():
        (dags / name).symlink_to(folder)
    port, *log_ports = free_ports(3)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "AIRFLOW_"))}
    env = {
        **kept,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": "2",
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(log_ports[0]),
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(log_ports[1]),
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.3",
        # No DAG file changes meanwhile.
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",
        "AIRFLOW__SCHEDULER__MIN_FILE_PROCESS_INTERVAL": "600",
        "AWS_EC2_METADATA_DISABLED": "true",
        **REST.environment(home, port, database_url),
        **environment,
    }
    subprocess.run([*AIRFLOW, "db", "migrate"], env=env, check=True, capture_output=True)
    started = {name: _start(name, home, env) for name in REST.components}

    def restart(component: str, environment: Mapping[str, str]) -> None:
        _kill(started[component])
        started[component] = _start(component, home, {**env, **environment})

    try:
        airflow = AirflowInstance(f"http://127.0.0.1:{port}", restart)
        airflow.wait_until_ready(dag_ids)
        yield airflow
    finally:
        _end(started.values(), home)


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens at."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _start(name: str, home: Path, env: dict[str, str]) -> subprocess.Popen[bytes]:
    command = [*AIRFLOW, *REST.components[name]]
    with (home / f"{name}.log").open("ab") as log:
        return subprocess.Popen(
            command, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )


def _kill(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _end(started: Iterable[subprocess.Popen[bytes]], home: Path) -> None:
    # Nothing of it is kept, so nobody is asked to finish.
    for process in started:
        _kill(process)
    # What a component left behind, its task processes for example, has our home in its environment.
    marker = f"AIRFLOW_HOME={home}\0".encode()
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if marker in environ.read_bytes():
                os.kill(int(environ.parent.name), signal.SIGKILL)
        except OSError:
            continue  # ended meanwhile, or somebody else's
