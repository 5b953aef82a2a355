"""``lookoutvision check``: nothing in a service that is well; what is wrong, mended where a rule can."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from command_line import Outcome, error_message, run_command
from cryptography.fernet import Fernet
from services import NewService, Storage, client_of, first_key_of, storage_of

from airflow_provider_lookoutvision.server.storage import schema
from airflow_provider_lookoutvision.testing.service import Service


@dataclass(frozen=True)
class Broken:
    """A service without a worker, so that what is queued stays so, and its storage."""

    service: Service
    storage: Storage
    client: Any

    def check(self, *flags: str) -> Outcome:
        # The flags of its database come first, if it has any.
        url = self.service.flags[:2] if "--database-url" in self.service.flags else ()
        return run_command("check", "--data-dir", self.service.data_dir, *url, *flags)

    def findings(self, *flags: str) -> list[dict[str, Any]]:
        return list(json.loads(self.check("--json", *flags).out)["findings"])

    def execute(self, statement: sa.Executable) -> None:
        with self.storage.database.write() as connection:
            connection.execute(statement)

    def create_model(self, token: str) -> str:
        output = {"S3Location": {"Bucket": "results", "Prefix": ""}}
        answer = self.client.create_model(ProjectName="p", OutputConfig=output, ClientToken=token)
        return str(answer["ModelMetadata"]["ModelVersion"])

    def model(self, version: str = "1") -> dict[str, Any]:
        answer = self.client.describe_model(ProjectName="p", ModelVersion=version)
        return dict(answer["ModelDescription"])


@pytest.fixture
def broken(new_service: NewService) -> Iterator[Broken]:
    service = new_service("--no-worker")
    client = client_of(service.endpoint_url, first_key_of(service))
    client.create_project(ProjectName="p", ClientToken="t")
    client.create_dataset(ProjectName="p", DatasetType="train")
    with storage_of(service) as storage:
        yield Broken(service, storage, client)


def test_a_service_that_is_well(broken: Broken) -> None:
    broken.create_model("t")
    outcome = broken.check()
    assert (outcome.status, outcome.out) == (0, "0 found, 0 mended\n")


def test_what_lost_its_job(broken: Broken) -> None:
    broken.create_model("t")
    source = {"GroundTruthManifest": {"S3Object": {"Bucket": "images", "Key": "k"}}}
    broken.client.create_dataset(ProjectName="p", DatasetType="test", DatasetSource=source, ClientToken="d")
    broken.execute(schema.jobs.delete())
    found = broken.findings()
    assert sorted((each["where"].partition(" (")[0], each["mendable"]) for each in found) == [
        ("the model 1 of the project p", True),
        ("the test dataset of the project p", True),
    ]
    assert broken.model()["Status"] == "TRAINING", "it only looks"
    assert broken.check().status == 1
    assert broken.check("--mend").status == 0
    assert broken.check().out == "0 found, 0 mended\n"
    model = broken.model()
    assert (model["Status"], model["StatusMessage"][:15]) == ("TRAINING_FAILED", "Service fault: ")
    described = broken.client.describe_dataset(ProjectName="p", DatasetType="test")["DatasetDescription"]
    assert described["Status"] == "CREATE_FAILED"
    # The same tokens begin the work anew.
    broken.client.create_dataset(ProjectName="p", DatasetType="test", DatasetSource=source, ClientToken="d")
    assert broken.create_model("t") == "2"


def test_a_model_without_its_network(broken: Broken) -> None:
    project = sa.select(schema.projects.c.id).scalar_subquery()
    row = {"project_id": project, "status": "TRAINED", "status_message": "", "created_at": 0, "hosting": 0}
    row |= {"output_bucket": "b", "output_prefix": ""}
    for version in (1, 2, 3):
        broken.execute(schema.models.insert().values(**row, version=version))
    ids = sa.select(schema.models.c.id).where(schema.models.c.version == 2).scalar_subquery()
    broken.execute(schema.model_artifacts.insert().values(model_id=ids, content=b"no archive"))
    broken.execute(schema.projects.update().values(last_model_version=3))
    assert [each["what"].rpartition("network ")[2] for each in broken.findings()] == [
        "is missing",
        "is damaged",
        "is missing",
    ]
    assert broken.check("--mend").status == 0
    assert [broken.model(version)["Status"] for version in "123"] == ["TRAINING_FAILED"] * 3
    assert broken.findings() == []


def test_counts_jobs_and_tokens_that_do_not_fit(broken: Broken) -> None:
    broken.create_model("t")
    broken.execute(schema.datasets.update().values(total=5, normal=5))
    broken.execute(schema.jobs.update().values(subject_id=99))
    broken.execute(schema.client_tokens.update().where(schema.client_tokens.c.token == "t").values(token="u"))
    lost = schema.client_tokens.c.resource_id == "p"
    broken.execute(schema.client_tokens.update().where(lost).values(resource_id="other"))
    what = {each["what"] for each in broken.findings()}
    assert what == {
        "its ImageStats aren't those of its entries",
        "what it is for, models 99, isn't there",
        "it is TRAINING, but nothing is queued that trains it",
        "what it created, other, isn't there",
    }
    assert broken.check("--mend").status == 0
    assert broken.findings() == []
    described = broken.client.describe_dataset(ProjectName="p", DatasetType="train")["DatasetDescription"]
    assert described["ImageStats"]["Total"] == 0


def test_what_only_a_person_can_put_right(broken: Broken) -> None:
    key = broken.service.data_dir / "secret.key"
    key.chmod(0o644)
    assert [(each["where"], each["mendable"]) for each in broken.findings()] == [(str(key), True)]
    assert key.stat().st_mode & 0o777 == 0o644, "it only looks"
    assert broken.check("--mend").status == 0
    assert key.stat().st_mode & 0o777 == 0o600
    row = {"access_key_id": "AKIAFOREIGN", "account_id": "123456789012", "created_at": 0}
    lists = {"allowed_actions": ["*"], "allowed_projects": ["*"]}
    foreign = Fernet(Fernet.generate_key()).encrypt(b"secret").decode()
    broken.execute(schema.access_keys.insert().values(**row, **lists, sealed_secret=foreign))
    outcome = broken.check("--mend")
    assert outcome.status == 1
    assert (
        "the access key AKIAFOREIGN: its secret was encrypted with another secret key. To do:" in outcome.out
    )


def test_a_database_of_an_earlier_version_is_left_alone(broken: Broken) -> None:
    broken.execute(sa.text("UPDATE alembic_version SET version_num = '0003'"))
    assert "the schema of another version" in error_message(broken.check())


def test_where_there_is_no_service(tmp_path: Path) -> None:
    for command in (["check"], ["backup", tmp_path / "backup"]):
        said = error_message(run_command(*command, "--data-dir", tmp_path / "data"))
        assert "there is no service in" in said
    assert list(tmp_path.iterdir()) == []
