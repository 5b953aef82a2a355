"""A database, a secret key and a data directory belong together, and nothing is made anew silently."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import (
    COMMAND,
    error_message,
    run_command,
    start_command,
    wait_for_end,
    wait_until_listening,
)
from cryptography.fernet import Fernet
from project_calls import names
from services import NewDatabase, NewService, client_of, first_key_of

from airflow_provider_lookoutvision.server.storage.encryption import write_private
from airflow_provider_lookoutvision.testing.service import Service


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def serve(*flags: str | Path) -> str:
    """How a start ends that must not be."""
    return error_message(wait_for_end(start_command("serve", "--port", "0", "--no-worker", *flags)))


@pytest.fixture
def kept(new_database: NewDatabase, tmp_path: Path) -> list[str | Path]:
    """The flags of a service with one key."""
    flags = ["--data-dir", tmp_path / "data", *new_database()]
    assert run_command("keys", "create", *flags).status == 0
    return flags


def test_a_secret_key_that_is_lost_or_another_one_is_not_replaced(
    kept: list[str | Path], tmp_path: Path
) -> None:
    key = tmp_path / "data" / "secret.key"
    content = key.read_bytes()
    key.unlink()
    for said in (serve(*kept), error_message(run_command("keys", "create", *kept))):
        assert f"the secret key of the database is missing: restore {key}" in said
    assert not key.exists()
    write_private(key, Fernet.generate_key())
    for said in (
        serve(*kept),
        error_message(run_command("keys", "create", *kept)),
    ):
        assert "the secret key is not that of the database: restore" in said
    write_private(key, content)
    assert run_command("keys", "list", *kept).out.count("AKIA") == 1


def test_a_secret_key_that_is_lost_for_good(kept: list[str | Path], tmp_path: Path) -> None:
    (tmp_path / "data" / "secret.key").unlink()
    assert "1 access keys are deleted" in run_command("keys", "reset", *kept).out
    assert run_command("keys", "list", *kept).out == ""
    assert run_command("keys", "create", *kept).status == 0
    assert run_command("keys", "list", *kept).out.count("AKIA") == 1


def test_a_database_that_is_lost_is_not_begun_anew(
    kept: list[str | Path], new_database: NewDatabase, tmp_path: Path
) -> None:
    data_dir = tmp_path / "data"
    if len(kept) == 2:
        for path in data_dir.glob("lookoutvision.db*"):
            path.unlink()
        flags = kept
    else:
        flags = ["--data-dir", data_dir, *new_database()]
    before = files(data_dir)
    for said in (serve(*flags), error_message(run_command("keys", "create", *flags))):
        assert f"{data_dir} has secret.key of a database that isn't there" in said
        assert "move secret.key to another place" in said
    assert files(data_dir) - {"serve.lock"} == before
    (data_dir / "secret.key").rename(tmp_path / "secret.key")
    assert run_command("keys", "create", *flags).status == 0


@pytest.mark.one_database
@pytest.mark.parametrize("command", [["list"], ["delete", "AKIAX"], ["reset"]])
def test_commands_that_make_nothing(command: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "mistyped"
    assert "no " in error_message(run_command("keys", *command, "--data-dir", folder))
    assert not folder.exists()
    url = f"sqlite:///{tmp_path / 'mistyped.db'}"
    assert "no " in error_message(run_command("keys", *command, "--data-dir", folder, "--database-url", url))
    assert files(tmp_path) == set()


@pytest.mark.one_database
def test_a_worker_makes_no_database(tmp_path: Path) -> None:
    said = error_message(wait_for_end(start_command("worker", "--data-dir", tmp_path / "mistyped")))
    assert "there is no database" in said
    assert files(tmp_path) == set()


@pytest.mark.one_database
@pytest.mark.parametrize("name", ["100%", "a b", "what?x=1#y", "ü&=;'\"", "%2F%zz"])
def test_a_path_is_a_path(name: str, tmp_path: Path) -> None:
    process = start_command("serve", "--port", "0", "--no-worker", "--data-dir", tmp_path / name)
    _, endpoint_url = wait_until_listening(process)
    listed = run_command("keys", "list", "--data-dir", tmp_path / name)
    process.terminate()
    assert wait_for_end(process).status == 0
    assert listed.out.count("AKIA") == 1
    assert files(tmp_path) == {name}
    assert {"lookoutvision.db", "secret.key", "credentials"} <= files(tmp_path / name)
    assert endpoint_url


@pytest.mark.one_database
def test_without_a_home(tmp_path: Path) -> None:
    nobody = 54321  # who has no entry in passwd
    if os.geteuid():
        pytest.skip("only root can be somebody else")
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)}
    tmp_path.chmod(0o755)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        code = (
            "import os, sys; from airflow_provider_lookoutvision.server.cli import main;"
            "import airflow_provider_lookoutvision.server.maintenance.opening;"
            "import airflow_provider_lookoutvision.server.calls.access;"
            f"os.setgid({nobody}); os.setuid({nobody}); sys.exit(main())"
        )
        return subprocess.run(
            [sys.executable, "-c", code, *arguments], env=environ, capture_output=True, text=True, cwd="/"
        )

    done = run("keys", "list")
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no home directory" in done.stderr
    assert "set --data-dir" in done.stderr
    assert run("serve", "--help").returncode == 0
    done = run("keys", "list", "--data-dir", str(tmp_path / "data"))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.one_database
def test_a_damaged_database_and_a_full_disk(tmp_path: Path) -> None:
    flags = ["--data-dir", tmp_path / "data"]
    assert run_command("keys", "create", *flags).status == 0
    # A limit on the size of files is what a full disk is to SQLite.
    script = "ulimit -f 0; trap '' XFSZ; exec \"$@\""
    done = subprocess.run(
        ["bash", "-c", script, "-", *COMMAND, "keys", "create", *map(str, flags)],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("lookoutvision: the ")
    assert "Traceback" not in done.stderr
    database = tmp_path / "data" / "lookoutvision.db"
    content = bytearray(database.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    database.write_bytes(content)
    for command in (("keys", "list"), ("keys", "create")):
        assert "the database can't be used: " in error_message(run_command(*command, *flags))
    assert "the database can't be used: " in serve(*flags)


def test_a_second_server_on_one_data_directory_is_refused(new_service: NewService) -> None:
    service: Service = new_service("--no-worker")
    said = serve("--data-dir", service.data_dir, *service.flags)
    assert f"(process {service.process.pid}) uses the data directory {service.data_dir}" in said
    assert names(client_of(service.endpoint_url, first_key_of(service))) == []
    service.kill()
    service.start()
    assert names(client_of(service.endpoint_url, first_key_of(service))) == []
