"""A backup of a running service, and the same service made again of it, on either database."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import error_message, run_command
from drawn_parts import drawn
from model_fixtures import ModelProject
from postgres_server import PostgresServer
from project_calls import ProjectClient, names
from s3_clients import s3_client
from services import NewDatabase, NewService, client_of, first_key_of
from signed_http import SignedHttpClient

from airflow_provider_lookoutvision.testing.service import Service, running_service

pytest_plugins = ["model_fixtures"]


def back_up(service: Service, folder: Path, *flags: str) -> dict[str, Any]:
    url = service.flags[:2] if "--database-url" in service.flags else ()
    outcome = run_command("backup", folder, "--data-dir", service.data_dir, *url, *flags)
    assert outcome.status == 0, outcome
    return dict(json.loads((folder / "backup.json").read_text()))


def restore(folder: Path, data_dir: Path, database: list[str]) -> None:
    outcome = run_command("restore", folder, "--data-dir", data_dir, *database)
    assert outcome.status == 0, outcome


def test_the_restored_service_serves_the_same_models_and_answers_the_same_tokens(
    project: ModelProject, classifier: ModelProject, new_database: NewDatabase, tmp_path: Path
) -> None:
    service = project.training_service.service
    project.put(1, artifact=classifier.artifact())
    project.host()
    image = drawn(7, scratched=True)[0]
    found = project.detect(image)
    key = project.training_service.new_key(project.account)
    made = ProjectClient(SignedHttpClient(service.endpoint_url, key)).create("q", "the-token")
    s3_client(service.endpoint_url, key).put_object(
        Bucket=project.bucket, Key="a/b.txt", Body=b"content", Metadata={"line": "1"}
    )
    described = back_up(service, tmp_path / "backup")
    assert (described["secret_key"], described["buckets"]) == (True, True)
    assert {path.name for path in (tmp_path / "backup").iterdir()} >= {
        "backup.json",
        "database.db",
        "secret.key",
    }

    restore(tmp_path / "backup", tmp_path / "data", flags := new_database())
    with running_service(tmp_path / "data", [*flags, "--no-worker"]) as restored:
        client = client_of(restored.endpoint_url, key)
        again = ModelProject(project.training_service, project.account, client, project.folder)
        again.ended("1", "STARTING_HOSTING")
        assert again.detect(image) == found
        projects = ProjectClient(SignedHttpClient(restored.endpoint_url, key))
        assert projects.create("q", "the-token").body == made.body
        assert projects.create("r", "another").status == 200, "rows are numbered on"
        copy = s3_client(restored.endpoint_url, key).get_object(Bucket=project.bucket, Key="a/b.txt")
        assert (copy["Body"].read(), copy["Metadata"]) == (b"content", {"line": "1"})
    project.stopped()


@pytest.mark.one_database
@pytest.mark.parametrize("source", ["sqlite", "postgresql"])
def test_from_one_kind_of_database_to_the_other_while_others_write(
    source: str, postgres_server: Callable[[], PostgresServer], new_service: NewService, tmp_path: Path
) -> None:
    databases = {"sqlite": [], "postgresql": ["--database-url", postgres_server().new_database()]}
    service = new_service("--no-worker", database=databases.pop(source))
    [target] = databases.values()
    client = client_of(service.endpoint_url, first_key_of(service))
    stopping = threading.Event()
    made: list[str] = []

    def write() -> None:
        while not stopping.is_set():
            client.create_project(ProjectName=f"p{len(made)}", ClientToken=f"t{len(made)}")
            made.append(f"p{len(made)}")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        back_up(service, tmp_path / "backup")
    finally:
        stopping.set()
        writer.join()
    restore(tmp_path / "backup", tmp_path / "data", target)
    with running_service(tmp_path / "data", [*target, "--no-worker"]) as restored:
        there = client_of(restored.endpoint_url, first_key_of(service))
        count = len(names(there))
        assert sorted(names(there)) == sorted(made[:count]), "it is one moment"
        # What came later is made by the same request.
        for number in range(count + 1):
            there.create_project(ProjectName=f"p{number}", ClientToken=f"t{number}")
        assert len(names(there)) == count + 1


@pytest.mark.one_database
def test_what_can_not_be(new_service: NewService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = new_service("--no-worker")
    back_up(service, tmp_path / "backup", "--without-buckets")
    assert not (tmp_path / "backup" / "buckets").exists()
    assert (tmp_path / "backup").stat().st_mode & 0o777 == 0o700
    again = run_command("backup", tmp_path / "backup", "--data-dir", service.data_dir)
    assert "is there already" in error_message(again)
    nowhere = run_command("backup", "/proc/none/backup", "--data-dir", service.data_dir)
    assert "can't be written" in error_message(nowhere)

    def refusal(source: Path, data_dir: Path) -> str:
        return error_message(run_command("restore", source, "--data-dir", data_dir))

    assert "isn't empty" in refusal(tmp_path / "backup", service.data_dir)
    assert "is no backup" in refusal(tmp_path, tmp_path / "new")
    description = json.loads((tmp_path / "backup" / "backup.json").read_text())
    (tmp_path / "backup" / "backup.json").write_text(json.dumps({**description, "format": 99}))
    assert "install that version" in refusal(tmp_path / "backup", tmp_path / "new")
    (tmp_path / "backup" / "backup.json").write_text(json.dumps({**description, "secret_key": False}))
    assert "LOOKOUTVISION_SECRET_KEY" in refusal(tmp_path / "backup", tmp_path / "new")
    (tmp_path / "backup" / "backup.json").write_text(json.dumps(description))
    (tmp_path / "backup" / "database.db").write_bytes(b"something else")
    assert "database" in refusal(tmp_path / "backup", tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.one_database
def test_a_backup_is_one_file_of_tables(new_service: NewService, tmp_path: Path) -> None:
    back_up(new_service("--no-worker"), tmp_path / "backup")
    with sqlite3.connect(f"file:{tmp_path / 'backup' / 'database.db'}?mode=ro", uri=True) as connection:
        assert connection.execute("SELECT count(*) FROM access_keys").fetchone() == (1,)
    connection.close()
    assert not list((tmp_path / "backup").glob("database.db-*"))
