"""A service to train and host in, small drawn images, and models: trained once, or put into the database.

A plugin of the test modules that name it in ``pytest_plugins`` (and import from it: PYTEST_DONT_REWRITE).
Trainings and hosted models are kept away from the shared ``service``, since other tests count its processes.

=========================== ======== ====================================================================
``training_service``        session  a running service of its own on each database, and what it keeps
``sqlite_training_service`` session  the one on SQLite, for what is the same on every database
``project``                 test     a project named ``p`` in an account of the test's own, an empty
                                     bucket, a client
``sqlite_project``          test     such a project in ``sqlite_training_service``; so are those below
``classifier``              session  the project of a model that was trained without masks, in two datasets
``segmenter``               session  the project of one that was trained with masks, in one dataset
``hosted``                  session  a project with both, hosted as model 1 and 2
=========================== ======== ====================================================================
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from drawn_parts import SIDE, drawn
from held_worker import paused_worker
from manifest_lines import line, manifest, masked
from polling import until
from services import NewDatabase, Storage, client_of, storage_of

from airflow_provider_lookoutvision.server.calls import access
from airflow_provider_lookoutvision.server.storage.schema import model_artifacts, models, projects
from airflow_provider_lookoutvision.testing.service import Key, Service, running_service

OWNER = "123456789012"


@dataclass(frozen=True)
class TrainingService:
    """A service that trains and hosts."""

    service: Service
    storage: Storage

    def new_key(self, account: str = OWNER, *, buckets: Sequence[str] = ("*",), **permissions: Any) -> Key:
        """A key, as ``Storage.new_key`` makes it, that may use these buckets."""
        key = self.storage.new_key(account, **permissions)
        table = access.access_keys
        with self.storage.database.write() as connection:
            mine = table.c.access_key_id == key.access_key_id
            connection.execute(table.update().where(mine).values(allowed_buckets=list(buckets)))
        return key

    def paused_worker(self) -> AbstractContextManager[int]:
        """Its worker has done all there was, and does nothing inside the block."""
        return paused_worker(self.service, self.storage)

    def client(self, account: str = OWNER, *, attempts: int = 1, **permissions: Any) -> Any:
        key = self.new_key(account, **permissions)
        return client_of(self.service.endpoint_url, key, attempts=attempts)

    def new_project(self, account: str = OWNER, name: str = "p", **permissions: Any) -> ModelProject:
        client = self.client(account, **permissions)
        client.create_project(ProjectName=name)
        folder = self.service.data_dir / "buckets" / f"parts-{secrets.token_hex(6)}"
        folder.mkdir(parents=True)
        return ModelProject(self, account, client, folder, name)


@dataclass(frozen=True)
class ModelProject:
    """A project of one test, and a bucket."""

    training_service: TrainingService
    account: str
    client: Any
    folder: Path
    name: str = "p"
    of: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "of", {"ProjectName": self.name})

    @property
    def bucket(self) -> str:
        return self.folder.name

    @property
    def output(self) -> dict[str, Any]:
        return {"S3Location": {"Bucket": self.bucket, "Prefix": "out/"}}

    def lines(
        self, *, normal: int = 0, scratched: int = 0, masks: bool = False, first: int = 0
    ) -> list[dict[str, Any]]:
        """Draw images into the bucket; their manifest lines."""
        found = [
            line(self.put_image(f"normal-{number}.jpg", number), bucket=self.bucket)
            for number in range(first, first + normal)
        ]
        for number in range(first, first + scratched):
            key = self.put_image(f"scratched-{number}.jpg", number, scratched=True)
            make = masked if masks else lambda key, **more: line(key, "anomaly", **more)
            found.append(make(key, bucket=self.bucket))
            if masks:
                self.write(f"masks/{key}", drawn(number, scratched=True)[1])
        return found

    def put_image(self, key: str, number: int, *, scratched: bool = False, side: int = SIDE) -> str:
        self.write(key, drawn(number, scratched=scratched, side=side)[0])
        return key

    def write(self, key: str, content: bytes) -> None:
        path = self.folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def dataset(self, lines: Sequence[dict[str, Any]], kind: str = "train", *, wait: bool = True) -> None:
        """A dataset of these lines, complete."""
        key = f"{kind}.manifest"
        self.write(key, manifest(*lines))
        source = {"GroundTruthManifest": {"S3Object": {"Bucket": self.bucket, "Key": key}}}
        self.client.create_dataset(**self.of, DatasetType=kind, DatasetSource=source)
        until(
            lambda: self.client.describe_dataset(**self.of, DatasetType=kind)["DatasetDescription"]["Status"],
            lambda status: not wait or status == "CREATE_COMPLETE",
        )

    def small_datasets(self, **more: int) -> None:
        """The least that a model can be trained on: 10 normal images; and 10 + 10 to try it on."""
        self.dataset(self.lines(normal=10, **more))
        self.dataset(self.lines(normal=10, scratched=10, first=100), "test")

    def create(self, **more: Any) -> dict[str, Any]:
        """CreateModel's answer."""
        members = {**self.of, "OutputConfig": self.output, **more}
        return dict(self.client.create_model(**members)["ModelMetadata"])

    def train(self, **more: Any) -> dict[str, Any]:
        """CreateModel, and the model's description once that has come to its end."""
        return self.ended(self.create(**more)["ModelVersion"])

    def describe(self, version: str = "latest") -> dict[str, Any]:
        return dict(self.client.describe_model(**self.of, ModelVersion=version)["ModelDescription"])

    def ended(self, version: str = "latest", busy: str = "TRAINING") -> dict[str, Any]:
        """The model's description, once it isn't ``busy`` any more."""
        return until(lambda: self.describe(version), lambda found: found["Status"] != busy)

    def start(self, version: str = "1", units: int = 1, **more: Any) -> str:
        answer = self.client.start_model(**self.of, ModelVersion=version, MinInferenceUnits=units, **more)
        return str(answer["Status"])

    def stop(self, version: str = "1", **more: Any) -> str:
        return str(self.client.stop_model(**self.of, ModelVersion=version, **more)["Status"])

    def host(self, version: str = "1", units: int = 1, **more: Any) -> None:
        """Start a model, and wait until it is hosted."""
        self.start(version, units, **more)
        described = self.ended(version, "STARTING_HOSTING")
        assert described["Status"] == "HOSTED", described["StatusMessage"]

    def stopped(self, version: str = "1", **more: Any) -> None:
        self.stop(version, **more)
        assert self.ended(version, "STOPPING_HOSTING")["Status"] == "TRAINED"

    def detect(self, image: bytes, version: str = "1", content_type: str = "image/jpeg") -> dict[str, Any]:
        answer = self.client.detect_anomalies(
            **self.of, ModelVersion=version, Body=image, ContentType=content_type
        )
        return dict(answer["DetectAnomalyResult"])

    def versions(self) -> list[str]:
        pages = self.client.get_paginator("list_models").paginate(**self.of)
        return [model["ModelVersion"] for page in pages for model in page["Models"]]

    def put(
        self, version: int = 1, status: str = "TRAINED", artifact: bytes | None = None, **values: Any
    ) -> int:
        """A model of the project's project, put into this state; its ID.

        :param artifact: of a model that was trained, to be this one's too.
        """
        with self.training_service.storage.database.write() as connection:
            mine = sa.and_(projects.c.account_id == self.account, projects.c.name == self.name)
            row_of_project = connection.execute(projects.select().where(mine)).one()
            trained = {} if status in {"TRAINING", "TRAINING_FAILED"} else _METRICS
            units = {"min_units": 1} if "HOST" in status else {}
            row = {**_ROW, **trained, **units, "output_bucket": self.bucket, **values}
            this = sa.and_(models.c.project_id == row_of_project.id, models.c.version == version)
            found = connection.execute(sa.select(models.c.id).where(this)).scalar_one_or_none()
            if found is not None:
                connection.execute(models.update().where(this).values(status=status, **values))
                return int(found)
            row |= {"project_id": row_of_project.id, "version": version, "status": status}
            made = connection.execute(models.insert().values(row).returning(models.c.id)).scalar_one()
            last = max(version, row_of_project.last_model_version)
            connection.execute(
                projects.update().where(projects.c.id == row_of_project.id).values(last_model_version=last)
            )
            if artifact is not None:
                connection.execute(model_artifacts.insert().values(model_id=made, content=artifact))
        return int(made)

    def model_id(self, version: int = 1) -> int:
        query = (
            sa.select(models.c.id)
            .join(projects, projects.c.id == models.c.project_id)
            .where(projects.c.account_id == self.account, projects.c.name == self.name)
            .where(models.c.version == version)
        )
        with self.training_service.storage.database.read() as connection:
            return int(connection.execute(query).scalar_one())

    def artifact(self, version: int = 1) -> bytes:
        """A trained model as it is stored."""
        query = sa.select(model_artifacts.c.content).where(
            model_artifacts.c.model_id == self.model_id(version)
        )
        with self.training_service.storage.database.read() as connection:
            return bytes(connection.execute(query).scalar_one())


_ROW: dict[str, Any] = {
    "status_message": "as a test has put it",
    "output_prefix": "",
    "created_at": 1_600_000_000_000,
    "hosting": 0,
}
_METRICS = {"evaluated_at": 1_600_000_060_000, "f1": 0.75, "recall": 0.6, "precision": 1.0}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The first test of a trained model waits for the training, which takes minutes on a busy machine.
    for item in items:
        if {"classifier", "segmenter"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def _training_service_on(_session_stack: ExitStack) -> Callable[[str, NewDatabase], TrainingService]:
    # A session's parameters may alternate between tests, and a service lasts longer than one turn.
    started: dict[str, TrainingService] = {}

    def training_service_on(database: str, new_database: NewDatabase) -> TrainingService:
        if database not in started:
            service = _session_stack.enter_context(running_service(flags=new_database()))
            storage = _session_stack.enter_context(storage_of(service))
            started[database] = TrainingService(service, storage)
        return started[database]

    return training_service_on


@pytest.fixture(scope="session")
def training_service(
    database: str,
    new_database: NewDatabase,
    _training_service_on: Callable[[str, NewDatabase], TrainingService],
) -> TrainingService:
    return _training_service_on(database, new_database)


@pytest.fixture(scope="session")
def sqlite_training_service(
    _training_service_on: Callable[[str, NewDatabase], TrainingService],
) -> TrainingService:
    return _training_service_on("sqlite", list)


@pytest.fixture
def project(training_service: TrainingService, account: str) -> ModelProject:
    return training_service.new_project(account)


@pytest.fixture
def sqlite_project(sqlite_training_service: TrainingService, account: str) -> ModelProject:
    return sqlite_training_service.new_project(account)


@pytest.fixture(scope="session")
def classifier(sqlite_training_service: TrainingService) -> ModelProject:
    project = sqlite_training_service.new_project("000000000001")
    project.small_datasets(scratched=3)  # too few to learn from by cross-validation, which takes its time
    assert project.train()["Status"] == "TRAINED", project.describe()
    return project


@pytest.fixture(scope="session")
def segmenter(sqlite_training_service: TrainingService) -> ModelProject:
    project = sqlite_training_service.new_project("000000000002")
    project.dataset(project.lines(normal=20, scratched=20, masks=True))
    output = {"S3Location": {"Bucket": project.bucket, "Prefix": ""}}
    assert project.train(OutputConfig=output)["Status"] == "TRAINED", project.describe()
    return project


@pytest.fixture(scope="session")
def hosted(
    sqlite_training_service: TrainingService, classifier: ModelProject, segmenter: ModelProject
) -> ModelProject:
    project = sqlite_training_service.new_project("000000000003")
    for version, trained in enumerate((classifier, segmenter), start=1):
        project.put(version, artifact=trained.artifact())
        project.start(str(version))
    for version in ("1", "2"):
        assert project.ended(version, "STARTING_HOSTING")["Status"] == "HOSTED"
    return project
