"""A session that knows the service, in an environment of its own, and a tiny service with set answers."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import boto3
import pytest
from botocore.config import Config

from airflow_provider_lookoutvision.model import (
    API_VERSION,
    MODEL_PATH,
    SERVICE_NAME,
    register_service_model,
)

REGION = "eu-central-1"


@pytest.fixture(autouse=True)
def _aws_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def session() -> boto3.Session:
    return register_service_model(boto3.Session())


@pytest.fixture(scope="session")
def model_data() -> dict[str, Any]:
    """All four files as they are on disk, by their name without ``.json``."""
    folder = Path(MODEL_PATH, SERVICE_NAME, API_VERSION)
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")}


@dataclass
class Request:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Service:
    """Answers with the queued responses, and with the last of them for ever; keeps the requests."""

    url: str = ""
    requests: list[Request] = field(default_factory=list)
    _answers: list[tuple[int, dict[str, str], bytes]] = field(default_factory=list)

    def answer(self, body: dict[str, Any], status: int = 200, **headers: str) -> None:
        self._answers.append((status, headers, json.dumps(body).encode()))

    def fail(self, code: str, status: int, body: dict[str, Any] | None = None, **headers: str) -> None:
        self.answer({"Message": "refused", **(body or {})}, status, **{"x-amzn-errortype": code, **headers})

    def reset(self) -> None:
        self.requests.clear()
        self._answers.clear()

    def next_answer(self) -> tuple[int, dict[str, str], bytes]:
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()

    class Handler(BaseHTTPRequestHandler):
        def respond(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            service.requests.append(Request(self.command, self.path, dict(self.headers), body))
            status, headers, answer = service.next_answer()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST = do_PATCH = do_DELETE = respond  # noqa: N815

        def log_message(self, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        service.url = f"http://127.0.0.1:{server.server_address[1]}"
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield service
        server.shutdown()


@pytest.fixture
def client(session: boto3.Session, service: Service) -> Iterator[Any]:
    """A client of the tiny service that sends each request once."""
    config = Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=20)
    client = session.client(SERVICE_NAME, endpoint_url=service.url, config=config)
    yield client
    client.close()
