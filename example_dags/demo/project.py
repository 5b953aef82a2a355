"""A DAG creates a project, exactly once, though every answer of each task's first try is lost.

The faults outlast botocore's own resending, so that Airflow itself has to retry. The tables show what went
over the wire, what the service had after each request, and what Airflow recorded; ``NotAsPromised`` is raised
where they don't show one project and one client token a task.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import boto3

from airflow_provider_lookoutvision.model import teach
from airflow_provider_lookoutvision.testing.lossy_proxy import Exchange, LossyProxy
from airflow_provider_lookoutvision.testing.service import Service
from example_dags.demo.local_airflow import LocalAirflow, TaskRecord
from example_dags.demo.report import facts, say, table

DAG_ID = "example_lookoutvision_project"
REGION = "us-east-1"
SENDS_PER_TRY = 2
TASKS = {"POST": "create_project", "DELETE": "delete_project"}


class NotAsPromised(RuntimeError):
    """The run ended well, but it doesn't show what the demo is to show."""


@dataclass(frozen=True)
class Observed:
    """A request on its way: which try of which task sent it, and the projects that there were after it."""

    task_id: str
    try_number: int
    projects: int


class FirstTriesLost:
    """Loses every answer of a task's first try, and notes what each request left behind."""

    def __init__(self, service: Service) -> None:
        self.observed: list[Observed] = []
        self._sent: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._client: Any = teach(boto3.Session()).client(
            "lookoutvision",
            endpoint_url=service.endpoint_url,
            region_name=REGION,
            aws_access_key_id=service.access_key_id,
            aws_secret_access_key=service.secret_access_key,
        )

    def __call__(self, exchange: Exchange) -> bool:
        """Whether to lose the answer of this exchange."""
        with self._lock:
            task_id = TASKS.get(exchange.method, exchange.method)
            self._sent[task_id] += 1
            first = self._sent[task_id] <= SENDS_PER_TRY
            projects = len(self._client.list_projects()["Projects"])
            self.observed.append(Observed(task_id, 1 if first else 2, projects))
            return first


def run(service: Service, airflow: LocalAirflow) -> None:
    """Run the DAG, and print what happened.

    :raises NotAsPromised: when it wasn't one project, by two tries with one token.
    """
    say()
    say("A DAG creates a project, exactly once")
    say()
    facts(
        [
            ("service", f"{service.endpoint_url}, a fresh `lookoutvision serve`"),
            ("Airflow", f"{version('apache-airflow')}, `airflow dags test {DAG_ID}`, retries=1"),
            ("between", "a proxy that loses every answer of each task's first try"),
        ]
    )
    say()
    lost = FirstTriesLost(service)
    with LossyProxy(service.endpoint_url, lost) as proxy:
        airflow.test_dag(DAG_ID, {"aws_default": connection(service, proxy.endpoint_url)})
    tasks = airflow.tasks()
    project = airflow.result("create_project")
    _print_requests(proxy.exchanges, lost.observed)
    _print_tasks(tasks, proxy.exchanges)
    _check(tasks, proxy.exchanges, lost.observed)
    facts(
        [
            ("project", project["ProjectArn"]),
            ("made", f"once, at {project['CreationTimestamp']}"),
        ]
    )
    say()


def connection(service: Service, endpoint_url: str) -> dict[str, Any]:
    """The Amazon connection, as Airflow's JSON form has it."""
    return {
        "conn_type": "aws",
        "login": service.access_key_id,
        "password": service.secret_access_key,
        "extra": {
            "region_name": REGION,
            "service_config": {"lookoutvision": {"endpoint_url": endpoint_url}},
            "config_kwargs": {"retries": {"mode": "standard", "total_max_attempts": SENDS_PER_TRY}},
        },
    }


def _print_requests(exchanges: list[Exchange], observed: list[Observed]) -> None:
    rows = [
        (
            seen.task_id,
            seen.try_number,
            f"{exchange.method} {exchange.path}",
            exchange.status or "none",
            "lost" if exchange.dropped else "arrived",
            seen.projects,
        )
        for exchange, seen in zip(exchanges, observed, strict=True)
    ]
    table(("task", "try", "request", "service", "answer", "projects"), rows)
    say("  (what the service answered, whether that arrived, and how many projects there were then)")
    say()


def _print_tasks(tasks: list[TaskRecord], exchanges: list[Exchange]) -> None:
    rows = [
        (task.task_id, task.tries, task.state, ", ".join(sorted(_tokens(exchanges, task.task_id))) or "-")
        for task in tasks
    ]
    table(("task", "tries", "ended", "client token"), rows)
    say()


def _tokens(exchanges: list[Exchange], task_id: str) -> set[str]:
    return {e.client_token or "no token" for e in exchanges if TASKS.get(e.method) == task_id}


def _check(tasks: list[TaskRecord], exchanges: list[Exchange], observed: list[Observed]) -> None:
    calling = TASKS.values()
    tries = {task.task_id: task.tries for task in tasks}
    answers = {exchange.answer for exchange in exchanges if exchange.method == "POST"}
    promises = {
        "each task that calls the service takes two tries": all(tries[task] == 2 for task in calling),
        "both tries of a task carry one client token": all(
            len(_tokens(exchanges, task)) == 1 for task in calling
        ),
        "there is one project after each request to create it": all(
            seen.projects == 1 for seen in observed if seen.task_id == "create_project"
        ),
        "every request to create it is answered with the same bytes": len(answers) == 1,
        "there is no project after each request to delete it": all(
            seen.projects == 0 for seen in observed if seen.task_id == "delete_project"
        ),
    }
    if broken := [promise for promise, kept in promises.items() if not kept]:
        raise NotAsPromised(f"it is not so that {'; nor that '.join(broken)}")
