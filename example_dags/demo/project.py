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

from airflow_provider_lookoutvision.testing.lossy_proxy import Exchange, LossyProxy
from example_dags.demo.backends import SENDS_PER_TRY, Backends
from example_dags.demo.local_airflow import LocalAirflow, TaskRecord
from example_dags.demo.report import NotAsPromised, facts, heading, say, table

DAG_ID = "example_lookoutvision_project"
TASKS = {"POST": "create_project", "DELETE": "delete_project"}


@dataclass(frozen=True)
class Observed:
    """A request on its way: which try of which task sent it, and the projects that there were after it."""

    task_id: str
    try_number: int
    projects: int


class FirstTriesLost:
    """Loses every answer of a task's first try, and notes what each request left behind."""

    def __init__(self, backends: Backends) -> None:
        self.observed: list[Observed] = []
        self._sent: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._client = backends.client

    def __call__(self, exchange: Exchange) -> bool:
        """Whether to lose the answer of this exchange."""
        with self._lock:
            task_id = TASKS.get(exchange.method, exchange.method)
            self._sent[task_id] += 1
            first = self._sent[task_id] <= SENDS_PER_TRY
            projects = len(self._client.list_projects()["Projects"])
            self.observed.append(Observed(task_id, 1 if first else 2, projects))
            return first


def run(backends: Backends, airflow: LocalAirflow) -> None:
    """Run the DAG, and print what happened.

    :raises NotAsPromised: when it wasn't one project, by two tries with one token.
    """
    heading("1. A DAG creates a project, exactly once")
    facts(
        [
            ("service", f"{backends.service.endpoint_url}, a fresh `lookoutvision serve`"),
            ("Airflow", f"{version('apache-airflow')}, `airflow dags test {DAG_ID}`, retries=1"),
            ("between", "a proxy that loses every answer of each task's first try"),
        ]
    )
    say()
    lost = FirstTriesLost(backends)
    with LossyProxy(backends.service.endpoint_url, lost) as proxy:
        airflow.test_dag(DAG_ID, backends.connection(proxy.endpoint_url))
    tasks = airflow.tasks(DAG_ID)
    project = airflow.result(DAG_ID, "create_project")
    _print_requests(proxy.exchanges, lost.observed)
    _print_tasks(tasks, proxy.exchanges)
    _check(tasks, proxy.exchanges, lost.observed)
    facts(
        [
            ("project", project["ProjectArn"]),
            ("made", f"once, at {project['CreationTimestamp']}"),
        ]
    )


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
