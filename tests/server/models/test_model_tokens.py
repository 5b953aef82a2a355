"""Client tokens of models: repeated, failed, deleted, and one constant token for every start and stop."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from held_worker import queued_jobs
from manifest_lines import line
from model_fixtures import ModelProject, TrainingService
from sdk_errors import error_response

from airflow_provider_lookoutvision.server.jobs import queue
from airflow_provider_lookoutvision.server.models.operations import TRAIN_JOB
from airflow_provider_lookoutvision.server.storage.schema import client_tokens, models

pytest_plugins = ["model_fixtures"]


@pytest.fixture
def poor(project: ModelProject) -> ModelProject:
    """A project whose dataset nothing can be learnt from: each training fails at once."""
    project.dataset([line("nothing.jpg", bucket=project.bucket)])
    return project


def starts_of(project: ModelProject, version: int = 1) -> int:
    with project.training_service.storage.database.read() as connection:
        query = sa.select(models.c.hosting).where(models.c.id == project.model_id(version))
        return int(connection.execute(query).scalar_one())


def message_of(error: dict[str, Any]) -> str:
    assert error["Error"]["Code"] == "ConflictException"
    return str(error["Error"]["Message"])


def test_a_repeated_request_trains_once(poor: ModelProject, training_service: TrainingService) -> None:
    with training_service.paused_worker():
        first = poor.create(ClientToken="t", Description="first")
        assert poor.create(ClientToken="t", Description="first") == first
        assert len(queued_jobs(training_service.storage, poor.account)) == 1
        error = error_response(
            poor.client.create_model,
            **poor.of,
            OutputConfig=poor.output,
            ClientToken="t",
            Description="second",
        )
        assert "with other parameters" in message_of(error)
        assert (error["ResourceId"], error["ResourceType"]) == ("p/1", "MODEL")
    assert poor.versions() == ["1"]


def test_the_token_of_a_failed_training_trains_anew(poor: ModelProject) -> None:
    assert poor.train(ClientToken="t")["Status"] == "TRAINING_FAILED"
    again = poor.create(ClientToken="t")
    # A version of its own in the place of the failed one: no version is used twice.
    assert (again["ModelVersion"], again["Status"]) == ("2", "TRAINING")
    assert poor.versions() == ["2"]
    assert poor.ended("2")["Status"] == "TRAINING_FAILED"
    # What failed and was deleted is no hindrance either, and another's failure is not touched.
    assert poor.train(ClientToken="other")["ModelVersion"] == "3"
    poor.client.delete_model(**poor.of, ModelVersion="2")
    assert poor.train(ClientToken="t", Description="better")["ModelVersion"] == "4"
    assert poor.versions() == ["3", "4"]


def test_a_token_used_for_another_project_leaves_that_ones_models_alone(
    poor: ModelProject, training_service: TrainingService
) -> None:
    other = training_service.new_project(poor.account, name="q")
    other.dataset([line("nothing.jpg", bucket=other.bucket)])
    assert poor.train(ClientToken="RunOnce")["Status"] == "TRAINING_FAILED"
    assert other.train(ClientToken="mine")["Status"] == "TRAINING_FAILED"
    assert other.train(ClientToken="RunOnce")["ModelVersion"] == "2"
    assert (poor.versions(), other.versions()) == (["1"], ["1", "2"])


def test_a_refused_training_spends_no_token(poor: ModelProject, training_service: TrainingService) -> None:
    with training_service.paused_worker():
        poor.create(ClientToken="1")
        poor.create(ClientToken="2")
        members = {**poor.of, "OutputConfig": poor.output, "ClientToken": "t"}
        error = error_response(poor.client.create_model, **members)
        assert error["Error"]["Code"] == "ServiceQuotaExceededException"
        poor.client.delete_model(**poor.of, ModelVersion="2")
        assert poor.create(ClientToken="t")["ModelVersion"] == "3"


def test_a_repetition_brings_no_deleted_model_back(
    poor: ModelProject, training_service: TrainingService
) -> None:
    with training_service.paused_worker():
        poor.create(ClientToken="t")
        for _ in range(2):
            poor.client.delete_model(**poor.of, ModelVersion="1", ClientToken="d")
        error = error_response(poor.client.create_model, **poor.of, OutputConfig=poor.output, ClientToken="t")
        assert "has been deleted since" in message_of(error)
        assert queued_jobs(training_service.storage, poor.account) == []
    assert poor.versions() == []


def test_one_token_for_every_start_and_stop(project: ModelProject, classifier: ModelProject) -> None:
    # As AWS's batch sample has it: hour after hour, one model after another, the latest each time.
    for version in (1, 2):
        project.put(version, artifact=classifier.artifact())
        for number in (1, 2):
            assert project.start("latest", ClientToken="RunOnce") == "STARTING_HOSTING"
            assert project.start("latest", ClientToken="RunOnce") == "STARTING_HOSTING"
            assert starts_of(project, version) == number
            assert project.stop("latest", ClientToken="RunOnce") == "STOPPING_HOSTING"
            assert project.stop("latest", ClientToken="RunOnce") == "STOPPING_HOSTING"
            assert project.ended("latest", "STOPPING_HOSTING")["Status"] == "TRAINED"
            # A repeated stop is no stop of something else.
            assert project.stop("latest", ClientToken="RunOnce") == "STOPPING_HOSTING"
            assert project.describe("latest")["Status"] == "TRAINED"


def test_a_start_with_other_units_is_another_request(project: ModelProject, classifier: ModelProject) -> None:
    project.put(1, artifact=classifier.artifact())
    project.start(ClientToken="t")
    error = error_response(
        project.client.start_model, **project.of, ModelVersion="1", MinInferenceUnits=2, ClientToken="t"
    )
    assert "with other parameters" in message_of(error)
    project.stopped()


def test_the_token_of_a_failed_start_starts_anew(project: ModelProject) -> None:
    project.put(1)  # there is nothing to host
    for number in (1, 2):
        assert project.start(ClientToken="t") == "STARTING_HOSTING"
        described = project.ended("1", "STARTING_HOSTING")
        assert described["Status"] == "HOSTING_FAILED"
        assert described["StatusMessage"].startswith("Service fault: ")
        assert starts_of(project) == number


def test_tokens_of_a_model_end_with_it(poor: ModelProject, training_service: TrainingService) -> None:
    poor.put(1)
    poor.start(ClientToken="s")
    assert poor.ended("1", "STARTING_HOSTING")["Status"] == "HOSTING_FAILED"
    poor.client.delete_model(**poor.of, ModelVersion="1", ClientToken="d")
    error = error_response(
        poor.client.start_model, **poor.of, ModelVersion="1", MinInferenceUnits=1, ClientToken="s"
    )
    assert (error["Error"]["Code"], error["ResourceType"]) == ("ResourceNotFoundException", "MODEL")
    with training_service.storage.database.read() as connection:
        tokens = client_tokens.select().where(client_tokens.c.account_id == poor.account)
        tokens = tokens.where(client_tokens.c.resource_type == "MODEL")
        assert [(row.operation, row.token) for row in connection.execute(tokens)] == [("DeleteModel", "d")]


def test_a_training_that_always_loses_its_workers_is_given_up(
    poor: ModelProject, training_service: TrainingService
) -> None:
    with training_service.paused_worker():
        poor.create(ClientToken="t")
        for _ in range(queue.MAX_ATTEMPTS):
            job = queue.claim(training_service.storage.database, "dead", [TRAIN_JOB])
            assert job
            # What a worker that is killed leaves.
            left = training_service.service.data_dir / "training" / f"{job.id}-{job.attempts}"
            left.mkdir(parents=True)
            queue.requeue(training_service.storage.database, "dead")
    described = poor.ended()
    assert described["Status"] == "TRAINING_FAILED"
    assert described["StatusMessage"].startswith(
        "Service fault: the training was started 3 times and never finished"
    )
    assert queued_jobs(training_service.storage, poor.account) == []
    assert list((training_service.service.data_dir / "training").glob(f"{job.id}-*")) == []
    assert poor.create(ClientToken="t")["ModelVersion"] == "2"
