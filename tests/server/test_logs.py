"""The log: one JSON object a line whoever writes it, the request in each, a storm of faults, no values."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from command_line import start_command, wait_for_end
from dataset_projects import DatasetProject
from manifest_lines import line, manifest
from polling import until
from services import Storage
from signed_http import SignedHttpClient

from airflow_provider_lookoutvision.server import logs
from airflow_provider_lookoutvision.server.hosting import replica_process
from airflow_provider_lookoutvision.server.hosting.pool import Pool, PoolConfig
from airflow_provider_lookoutvision.server.jobs.child_process import ChildProcess
from airflow_provider_lookoutvision.server.protocol.errors import InternalServerException
from airflow_provider_lookoutvision.server.settings import Settings
from airflow_provider_lookoutvision.server.storage.schema import access_keys
from airflow_provider_lookoutvision.testing.service import Service


def entries_of(text: str) -> list[dict[str, Any]]:
    """The lines of a log, each of which must be an object."""
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What this process logs, as the service does it."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.JsonFormatter())
    monkeypatch.setattr(logs.log, "handlers", [handler])
    return stream


@pytest.mark.one_database
@pytest.mark.parametrize("path", ["/healthz", "/", "/2020-11-20/projects", "/nothing"])
def test_every_answer_has_an_id(path: str, signed_http: SignedHttpClient) -> None:
    answers = [signed_http.send("GET", path, signed=False) for _ in range(2)]
    assert len({answer.request_id for answer in answers}) == 2


def test_a_worker_that_the_service_cannot_start_says_why_in_its_log(tmp_path: Path) -> None:
    outcomes = [
        wait_for_end(start_command("worker", "--data-dir", tmp_path / "none", environ=environ))
        for environ in ({"LOOKOUTVISION_WORKER_OWNER": "the service"}, {})
    ]
    assert [outcome.status for outcome in outcomes] == [2, 2]
    (entry,) = entries_of(outcomes[0].err)
    assert (entry["level"], entry["message"]) == ("error", "the worker can't start")
    assert outcomes[1].err == f"lookoutvision: {entry['reason']}\n"  # a person reads a line of text


@pytest.mark.one_database
def test_what_is_no_http_has_one_too(service: Service) -> None:
    with socket.create_connection(("127.0.0.1", service.port)) as connection:
        connection.sendall(b"\x16\x03\x01 no HTTP\r\n\r\n")
        answer = b""
        while block := connection.recv(4096):
            answer += block
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    headers = dict(line.split(": ") for line in answer.decode().partition("\r\n\r\n")[0].splitlines()[1:])
    request_id = headers["x-amzn-requestid"]
    until(service.log_file.read_text, lambda text: request_id in text)


def test_a_job_is_logged_with_its_request(client: Any, service: Service) -> None:
    project = DatasetProject.make(service, client)
    answer = project.client.create_dataset(
        ProjectName="p", DatasetType="train", DatasetSource=project.source(manifest(line()))
    )
    request_id = answer["ResponseMetadata"]["RequestId"]
    until(service.log_file.read_text, lambda text: f'"job finished", "request_id": "{request_id}"' in text)
    about = [entry for entry in entries_of(service.log_file.read_text()) if request_id in entry.values()]
    messages = [entry["message"] for entry in about]
    assert sorted(messages) == ["job finished", "job started", "request"]
    assert messages.index("job started") < messages.index("job finished")


def test_a_child_process_that_dies_is_logged_with_its_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "task.json").write_text("no JSON")
    module = "airflow_provider_lookoutvision.server.models.training_process"
    with (
        logs.about_request("the-request"),
        ChildProcess(module, tmp_path / "work", Settings(data_dir=tmp_path)) as child,
    ):
        assert child.messages(60) == ([], True)
        assert child.exit_reason() == "exit status 1"
    [entry] = entries_of(capsys.readouterr().err)
    assert (entry["request_id"], entry["process"]) == ("the-request", "training_process")
    assert entry["message"] == "the process ends by an error"
    assert "JSONDecodeError" in entry["exception"]


def test_what_a_dying_replica_says_is_logged_with_its_requests(
    tmp_path: Path, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica_process, "_MODULE", "scripted_replica")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))

    async def detect() -> None:
        pool = Pool(PoolConfig("p/1", (1, 1), b"{}", tmp_path, 1, 1, 1, 4), lambda: None)
        try:
            with logs.about_request("the-request"), pytest.raises(InternalServerException):
                await pool.detect(b'{"say": "terminate called after throwing", "die": 1}')
        finally:
            await pool.close()

    asyncio.run(detect())
    entries = entries_of(log.getvalue())
    said = [entry for entry in entries if entry.get("text") == "terminate called after throwing"]
    assert [(entry["model"], entry["requests"]) for entry in said] == [("p/1", ["the-request"])] * 2
    ended = [entry for entry in entries if entry["message"] == "an inference unit ended"]
    assert [entry["requests"] for entry in ended] == [["the-request"]] * 2


def test_a_replica_that_can_not_begin_says_so_in_one_line() -> None:
    command = [
        sys.executable,
        "-m",
        "airflow_provider_lookoutvision.server.hosting.replica",
        ".",
        "no number",
    ]
    done = subprocess.run(command, input=b"", capture_output=True, check=False)
    [entry] = entries_of(done.stderr.decode())
    assert (done.returncode, entry["level"]) == (1, "critical")
    assert "ValueError" in entry["exception"]


def test_a_storm_has_one_traceback_and_a_count(log: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(logs.time, "monotonic", lambda: now)

    def fail(message: str = "internal error") -> None:
        try:
            raise LookupError("it")
        except LookupError:
            logs.log.exception(message)

    for _ in range(3):
        fail()
    fail("another error")
    now += 61
    fail()
    entries = entries_of(log.getvalue())
    assert ["exception" in entry for entry in entries] == [True, False, False, True, True]
    assert [entry.get("repetitions") for entry in entries] == [None, 1, 2, None, 3]
    assert "LookupError" in entries[1]["fault"]


def test_no_value_of_a_statement_is_logged(storage: Storage, log: io.StringIO) -> None:
    row = {"access_key_id": "A", "account_id": None, "sealed_secret": "the-sealed-secret", "created_at": 0}
    row |= {"allowed_actions": ["*"], "allowed_projects": ["*"]}
    try:
        with storage.database.write() as connection:
            connection.execute(access_keys.insert().values(row))
    except sa.exc.IntegrityError:
        logs.log.exception("a statement failed")
    assert "IntegrityError" in log.getvalue()
    assert "sealed-secret" not in log.getvalue()
