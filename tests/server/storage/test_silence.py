"""A PostgreSQL that falls silent: requests are answered, a start ends, and later everything works again."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa
from command_line import error_message, run_command
from polling import until
from postgres_server import PostgresServer
from services import first_key_of
from signed_http import SignedHttpClient
from silent_proxy import SilentProxy

from airflow_provider_lookoutvision.server.storage import silence
from airflow_provider_lookoutvision.server.storage.database import Database, unavailability
from airflow_provider_lookoutvision.testing.service import running_service

PROJECTS = "/2020-11-20/projects"


@pytest.fixture
def proxy(postgres_server: Callable[[], PostgresServer]) -> Iterator[SilentProxy]:
    with SilentProxy(postgres_server().new_database()) as proxy:
        yield proxy


def test_requests_are_answered_while_the_database_is_silent(proxy: SilentProxy) -> None:
    with running_service(flags=["--database-url", proxy.url, "--no-worker"]) as service:
        signed_http = SignedHttpClient(service.endpoint_url, first_key_of(service))
        assert signed_http.send("GET", PROJECTS).status == 200
        proxy.fall_silent()
        answer = signed_http.send("GET", PROJECTS)
        assert (answer.status, answer.code) == (503, "ServiceUnavailableException")
        assert int(answer.headers["retry-after"]) >= 1
        assert signed_http.send("GET", "/healthz", signed=False).status == 503
        proxy.speak()
        for path in (PROJECTS, "/healthz"):
            until(partial(signed_http.send, "GET", path), lambda answer: answer.status == 200)


def test_a_statement_without_an_answer_ends(proxy: SilentProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database(proxy.url, 2)
    with database.read() as connection:
        assert connection.execute(sa.text("SELECT 1")).scalar() == 1
    monkeypatch.setattr(silence, "ANSWER_SECONDS", 0.5)

    def read() -> None:
        with database.read() as connection:
            proxy.fall_silent()
            connection.execute(sa.text("SELECT 1"))

    with pytest.raises(sa.exc.DBAPIError, match="the server does not answer") as caught:
        read()
    assert unavailability(caught.value) == "the server does not answer"
    database.close()


def test_a_start_on_a_silent_database_says_so(proxy: SilentProxy, tmp_path: Path) -> None:
    proxy.fall_silent()
    said = error_message(run_command("keys", "create", "--data-dir", tmp_path, "--database-url", proxy.url))
    assert "the database can't be used: " in said
    assert "timeout" in said


def test_statements_and_connections_have_limits(proxy: SilentProxy) -> None:
    database = Database(proxy.url)
    with database.write() as connection:
        for name in ("lock_timeout", "statement_timeout"):
            assert connection.execute(sa.text(f"SHOW {name}")).scalar() == "20s"
        with pytest.raises(sa.exc.DBAPIError) as caught:
            connection.execute(sa.text("SET LOCAL statement_timeout = 50; SELECT pg_sleep(60)"))
    assert unavailability(caught.value) == "canceling statement due to statement timeout"
    database.close()


def test_what_is_no_silence_is_no_unavailability(proxy: SilentProxy) -> None:
    database = Database(proxy.url)
    with pytest.raises(sa.exc.DBAPIError) as caught, database.write() as connection:
        connection.execute(sa.text("SELECT no_such_column"))
    assert unavailability(caught.value) is None
    assert unavailability(subprocess.TimeoutExpired("x", 1)) is None
    database.close()
