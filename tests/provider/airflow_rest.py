"""How the two Airflows differ for those who start one and call its REST API: version 2, and version 3.

``REST`` is that of the Airflow that is installed.
"""

from __future__ import annotations

import ast
import json
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx


class Rest(ABC):
    """What differs.

    ``components`` are the commands that make an Airflow, by name; ``api`` and ``health`` are places;
    ``plain_xcom`` is the query that asks for an XCom as plain data; ``asset_events`` are the place of these,
    and the names of them and of their URIs in the answer; ``new_run`` are further members of a new run;
    ``connection_forms`` is where the UI finds what forms of connections have, or empty;
    ``has_task_state_store`` says whether a task instance can keep something as long as its run lives, and
    ``has_hitl`` whether a task can wait for people.
    """

    api: str
    health: str
    components: dict[str, tuple[str, ...]]
    plain_xcom: str
    asset_events: tuple[str, str, str]
    new_run: dict[str, Any] = {}
    connection_forms = ""
    has_task_state_store = False
    has_hitl = False

    @abstractmethod
    def environment(self, home: Path, port: int, database_url: str) -> dict[str, str]:
        """The variables of an Airflow that lets everybody do everything."""

    @abstractmethod
    def log_in(self, client: httpx.Client) -> None:
        """Let the client in."""

    def task_state_store(self, get: Callable[[str], Any]) -> dict[str, Any]:
        """The member of a context for what a task instance keeps, read by this function; none before 3.3."""
        return {}

    @abstractmethod
    def links(self, answer: dict[str, Any]) -> dict[str, Any]:
        """The addresses of a task's extra links, by their names."""

    @abstractmethod
    def log(self, content: Any) -> str:
        """The text of a log's content."""


class _Rest2(Rest):
    api = "/api/v1"
    health = "/health"
    components = {
        "webserver": ("webserver", "--workers", "1"),
        "scheduler": ("scheduler",),
        "triggerer": ("triggerer",),
    }
    plain_xcom = "stringify=false"
    asset_events = ("/datasets/events", "dataset_events", "dataset_uri")

    def environment(self, home: Path, port: int, database_url: str) -> dict[str, str]:
        (home / "webserver_config.py").write_text("AUTH_ROLE_PUBLIC = 'Admin'\n")
        return {
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database_url.replace("+psycopg:", "+psycopg2:"),
            "AIRFLOW__API__AUTH_BACKENDS": "airflow.api.auth.backend.default",
            "AIRFLOW__WEBSERVER__WEB_SERVER_HOST": "127.0.0.1",
            "AIRFLOW__WEBSERVER__WEB_SERVER_PORT": str(port),
            "AIRFLOW__WEBSERVER__SECRET_KEY": secrets.token_hex(32),
            "AIRFLOW__SCHEDULER__DAG_DIR_LIST_INTERVAL": "5",
        }

    def log_in(self, client: httpx.Client) -> None:
        client.headers["Accept"] = "application/json"

    def links(self, answer: dict[str, Any]) -> dict[str, Any]:
        return answer

    def log(self, content: Any) -> str:
        # The representation of a list of pairs, of a host and its text.
        return "\n".join(text for _, text in ast.literal_eval(content))


class _Rest3(Rest):
    api = "/api/v2"
    health = "/monitor/health"
    components = {
        "api-server": ("api-server", "--workers", "1"),
        "scheduler": ("scheduler",),
        "dag-processor": ("dag-processor",),
        "triggerer": ("triggerer",),
    }
    plain_xcom = "deserialize=true"
    asset_events = ("/assets/events", "asset_events", "uri")
    new_run = {"logical_date": None}
    connection_forms = "/ui/connections/hook_meta"
    has_task_state_store = True
    has_hitl = True

    def environment(self, home: Path, port: int, database_url: str) -> dict[str, str]:
        return {
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database_url,
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": database_url,
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(port),
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
        }

    def task_state_store(self, get: Callable[[str], Any]) -> dict[str, Any]:
        return {"task_state_store": SimpleNamespace(get=get)}

    def log_in(self, client: httpx.Client) -> None:
        token = client.get("/auth/token").json()["access_token"]
        client.headers["Authorization"] = f"Bearer {token}"

    def links(self, answer: dict[str, Any]) -> dict[str, Any]:
        return dict(answer["extra_links"])

    def log(self, content: Any) -> str:
        return json.dumps(content)


REST: Rest = _Rest2() if version("apache-airflow").startswith("2.") else _Rest3()
