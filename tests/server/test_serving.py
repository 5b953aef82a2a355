"""A service that starts: where it listens, and what it refuses."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path

import pytest
import sqlalchemy as sa
from command_line import error_message, run_command, start_command, wait_for_end, wait_until_listening
from polling import until
from postgres_server import PostgresServer
from project_calls import names
from sdk_errors import error_response
from services import NewDatabase, client_of, first_key_of, leave_bodies_unsigned
from signed_http import SignedHttpClient

from airflow_provider_lookoutvision.testing.service import Service, running_service

# Where it listens ----------------------------------------------------------------------------------------


def own_address() -> str:
    """An address of this machine that isn't loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as route:
        try:
            route.connect(("192.0.2.1", 9))  # which sends nothing
        except OSError:
            pytest.skip("this machine has no network")
        return str(route.getsockname()[0])


def answers_to_an_unsigned_image(endpoint_url: str, service: Service) -> str:
    """The code of the error, since there is no model: of the signature, or of that."""
    client = client_of(endpoint_url, first_key_of(service), verify=False)
    leave_bodies_unsigned(client)
    error = error_response(
        client.detect_anomalies, ProjectName="none", ModelVersion="1", Body=b"x", ContentType="image/png"
    )
    return str(error["Error"]["Code"])


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com", ""])
def test_it_does_not_listen_to_the_world_in_the_clear(host: str, tmp_path: Path) -> None:
    said = error_message(run_command("serve", "--host", host, "--port", "0", "--data-dir", tmp_path / "data"))
    assert f"refusing to listen on {host} without TLS" in said
    assert "--tls-certificate" in said
    assert "--allow-plaintext" in said
    assert not (tmp_path / "data").exists()


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_it_listens_to_the_world_with_tls(certificate: tuple[Path, Path]) -> None:
    flags = ["--host", "0.0.0.0", "--no-worker", "--shutdown-seconds", "20"]
    flags += ["--tls-certificate", str(certificate[0]), "--tls-key", str(certificate[1])]
    with running_service(flags=flags) as service:
        endpoint_url = service.endpoint_url.replace("http:", "https:")
        client = client_of(endpoint_url, first_key_of(service), verify=str(certificate[0]))
        client.create_project(ProjectName="p")
        assert names(client) == ["p"]
        # On the way to another address of this machine, what isn't signed is safe by TLS alone.
        assert answers_to_an_unsigned_image(f"https://{own_address()}:{service.port}", service) == (
            "ResourceNotFoundException"
        )
        with pytest.raises((OSError, HTTPException)):
            SignedHttpClient(service.endpoint_url, first_key_of(service)).send("GET", "/healthz")
        # The client's connection is idle and still open, and no reason to wait.
        service.stop()
        assert service.process.returncode == 0
        assert "exceeded" not in service.log_file.read_text()


def test_it_listens_without_tls_and_serves_some_regions_if_set() -> None:
    flags = ["--host", "0.0.0.0", "--allow-plaintext", "--no-worker", "--regions", "eu-central-1, us-east-1"]
    with running_service(flags=flags) as service:
        for region in ("eu-central-1", "us-east-1"):
            assert names(client_of(service.endpoint_url, first_key_of(service), region=region)) == []
        assert answers_to_an_unsigned_image(f"http://{own_address()}:{service.port}", service) == (
            "InvalidSignatureException"
        )
        assert answers_to_an_unsigned_image(service.endpoint_url, service) == "ResourceNotFoundException"
        elsewhere = client_of(service.endpoint_url, first_key_of(service), region="us-west-2")
        error = error_response(elsewhere.list_projects)
        assert error["Error"]["Code"] == "AuthorizationHeaderMalformed"
        assert error["ResponseMetadata"]["HTTPStatusCode"] == 403


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_it_says_where_it_listens(host: str, tmp_path: Path) -> None:
    process = start_command("serve", "--host", host, "--port", "0", "--data-dir", tmp_path, "--no-worker")
    said, endpoint_url = wait_until_listening(process)
    assert re.search(r"listening on http://(127\.0\.0\.1|\[::1\]):[0-9]{4,5}\n$", said)
    process.terminate()
    assert wait_for_end(process).status == 0
    assert endpoint_url


@pytest.mark.one_database
def test_a_port_that_is_taken(service: Service, tmp_path: Path) -> None:
    said = error_message(
        wait_for_end(start_command("serve", "--port", service.port, "--data-dir", tmp_path / "data"))
    )
    assert f"can't listen on 127.0.0.1:{service.port}: Address already in use" in said
    assert not (tmp_path / "data").exists()


# What it refuses -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--port", "x"], "--port is 'x': "),
        (["--port", "-1"], "port is -1; it must be at least 0"),
        (["--port", "70000"], "port is 70000; it must be at most 65535"),
        (["--threads", "0"], "threads is 0; it must be at least 1"),
        (["--max-projects", "-1"], "max_projects is -1"),
        (["--requests-per-second", "0"], "requests_per_second is 0.0; it must be more than 0"),
        (["--requests-per-second", "nan"], "requests_per_second is nan"),
        (["--requests-per-second", "inf"], "requests_per_second is inf"),
        (["--log-level", "loud"], "log_level is 'loud'; it must be debug"),
        (["--tls-key", "key.pem"], "TLS needs both files"),
    ],
)
def test_settings_that_can_not_be(flags: list[str], said: str, tmp_path: Path) -> None:
    assert said in error_message(run_command("serve", "--data-dir", tmp_path / "data", *flags))
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--host", "no-such-host.invalid", "--allow-plaintext"], "can't listen on no-such-host.invalid:0"),
        (["--tls-certificate", "/none.pem", "--tls-key", "/none.pem"], "the TLS files can't be used"),
    ],
)
def test_what_only_the_attempt_can_show(flags: list[str], said: str, tmp_path: Path) -> None:
    outcome = wait_for_end(start_command("serve", "--data-dir", tmp_path, "--port", "0", *flags))
    assert outcome.status == 2
    assert said in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://x", "database_url names mysql; it must be sqlite or postgresql"),
        ("no url s3cret", "database_url is not a database URL"),
        ("sqlite://", "a database in memory"),
        ("sqlite:///:memory:", "a database in memory"),
        ("sqlite:////no/such/folder/file.db", "the database can't be used: unable to open"),
        ("postgresql://u:s3cret@127.0.0.1:1/x", "the database can't be used: "),
    ],
)
def test_databases_that_can_not_be(url: str, said: str, tmp_path: Path) -> None:
    text = error_message(run_command("keys", "create", "--data-dir", tmp_path, "--database-url", url))
    assert said in text
    assert "s3cret" not in text


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("PORT", "x", "LOOKOUTVISION_PORT is 'x': "),
        (
            "ALLOW_PLAINTEXT",
            "perhaps",
            "LOOKOUTVISION_ALLOW_PLAINTEXT is 'perhaps': it must be true or false",
        ),
        ("REQUESTS_PER_SECOND", "-1", "requests_per_second is -1.0"),
        ("LOG_LEVEL", "loud", "log_level is 'loud'"),
    ],
)
def test_variables_that_can_not_be(
    variable: str, value: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOKOUTVISION_" + variable, value)
    assert said in error_message(run_command("keys", "list", "--data-dir", tmp_path))


def test_a_data_directory_that_can_not_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = error_message(run_command("keys", "create", "--data-dir", tmp_path / "file"))
    assert f"the data directory {tmp_path / 'file'} can't be used" in said


def test_what_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "lookoutvision.db").write_bytes(b"something else entirely" * 100)
    assert "file is not a database" in error_message(run_command("keys", "create", "--data-dir", tmp_path))


def test_a_secret_key_that_is_none(tmp_path: Path) -> None:
    assert run_command("keys", "create", "--data-dir", tmp_path).status == 0
    (tmp_path / "secret.key").write_text("something else")
    for command in ("list", "create"):
        said = error_message(run_command("keys", command, "--data-dir", tmp_path))
        assert "the secret key must be 32 bytes" in said


@pytest.mark.one_database
def test_a_database_of_a_newer_version(new_database: NewDatabase, tmp_path: Path) -> None:
    flags = ["--data-dir", tmp_path, *new_database()]
    assert run_command("keys", "create", *flags).status == 0
    url = flags[3] if len(flags) > 2 else f"sqlite:///{tmp_path / 'lookoutvision.db'}"
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    serving = wait_for_end(start_command("serve", "--port", "0", *flags))
    assert "another version" in error_message(run_command("keys", "list", *flags))
    for outcome in (serving, run_command("keys", "create", "--json", *flags)):
        said = error_message(outcome)
        assert "a newer version of this package wrote the database" in said
        assert "install that version" in said
    with engine.begin() as connection:
        assert connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar() == "9999"
    engine.dispose()


def test_when_the_database_goes_away_and_comes_back(
    postgres_server: Callable[[], PostgresServer],
) -> None:
    url = postgres_server().new_database()
    name = url.partition("@/")[2].partition("?")[0]
    with running_service(flags=["--database-url", url, "--no-worker"]) as service:
        signed_http = SignedHttpClient(service.endpoint_url, first_key_of(service))
        assert signed_http.send("GET", "/healthz").status == 200
        postgres_server().execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        postgres_server().execute(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        )
        answer = until(
            lambda: signed_http.send("GET", "/healthz", signed=False), lambda answer: answer.status == 503
        )
        assert answer.json["checks"]["database"] == "it can't be read or written"
        answer = signed_http.send("GET", "/2020-11-20/projects")
        assert (answer.status, answer.code) == (503, "ServiceUnavailableException")
        assert answer.headers["retry-after"] == "2"
        postgres_server().execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        until(lambda: signed_http.send("GET", "/healthz").status, lambda status: status == 200)
        assert signed_http.send("GET", "/2020-11-20/projects").json == {"Projects": []}


def test_the_other_commands(tmp_path: Path) -> None:
    outcome = wait_for_end(start_command("model-path"))
    assert (outcome.status, outcome.err) == (0, "")
    model = Path(outcome.out.strip()) / "lookoutvision" / "2020-11-20" / "service-2.json"
    assert json.loads(model.read_text())["metadata"]["serviceId"] == "LookoutVision"
    assert re.fullmatch(r"[0-9]+\.[0-9]+\.[0-9]+\S*\n", run_command("--version").out)
    usage = run_command("serve", "--help")
    assert usage.status == 0
    for flag in ("--host", "--port", "--data-dir", "--database-url", "--max-projects", "--allow-plaintext"):
        assert flag in usage.out
    assert run_command().status == 2
