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
from airflow_provider_lookoutvision.server.models.training_entries import TRAIN_JOB
from airflow_provider_lookoutvision.server.storage.schema import client_tokens, models

pytest_plugins = ["model_fixtures"]


@pytest.fixture
def untrainable_project(project: ModelProject) -> ModelProject:
    """A project with a dataset that is too small: each training fails at once."""
    project.dataset([line("nothing.jpg", bucket=project.bucket)])
    return project


def starts_of(project: ModelProject, version: int = 1) -> int:
    with project.training_service.storage.database.read() as connection:
        query = sa.select(models.c.hosting).where(models.c.id == project.model_id(version))
        return int(connection.execute(query).scalar_one())


def message_of(error: dict[str, Any]) -> str:
    assert error["Error"]["Code"] == "ConflictException"
    return str(error["Error"]["Message"])


def test_a_repeated_request_trains_once(
    untrainable_project: ModelProject, training_service: TrainingService
) -> None:
    with training_service.paused_worker():
        first = untrainable_project.create(ClientToken="t", Description="first")
        assert untrainable_project.create(ClientToken="t", Description="first") == first
        assert len(queued_jobs(training_service.storage, untrainable_project.account)) == 1
        error = error_response(
            untrainable_project.client.create_model,
            **untrainable_project.of,
            OutputConfig=untrainable_project.output,
            ClientToken="t",
            Description="second",
        )
        assert "with other parameters" in message_of(error)
        assert (error["ResourceId"], error["ResourceType"]) == ("p/1", "MODEL")
    assert untrainable_project.versions() == ["1"]


def test_the_token_of_a_failed_training_trains_again(untrainable_project: ModelProject) -> None:
    assert untrainable_project.train(ClientToken="t")["Status"] == "TRAINING_FAILED"
    again = untrainable_project.create(ClientToken="t")
    # A version of its own in the place of the failed one: no version is used twice.
    assert (again["ModelVersion"], again["Status"]) == ("2", "TRAINING")
    assert untrainable_project.versions() == ["2"]
    assert untrainable_project.ended("2")["Status"] == "TRAINING_FAILED"
    # What failed and was deleted is no hindrance either, and another's failure is not touched.
    assert untrainable_project.train(ClientToken="other")["ModelVersion"] == "3"
    untrainable_project.client.delete_model(**untrainable_project.of, ModelVersion="2")
    assert untrainable_project.train(ClientToken="t", Description="better")["ModelVersion"] == "4"
    assert untrainable_project.versions() == ["3", "4"]


def test_a_token_used_for_another_project_leaves_that_ones_models_alone(
    untrainable_project: ModelProject, training_service: TrainingService
) -> None:
    other = training_service.new_project(untrainable_project.account, name="q")
    other.dataset([line("nothing.jpg", bucket=other.bucket)])
    assert untrainable_project.train(ClientToken="RunOnce")["Status"] == "TRAINING_FAILED"
    assert other.train(ClientToken="mine")["Status"] == "TRAINING_FAILED"
    assert other.train(ClientToken="RunOnce")["ModelVersion"] == "2"
    assert (untrainable_project.versions(), other.versions()) == (["1"], ["1", "2"])


def test_a_refused_training_spends_no_token(
    untrainable_project: ModelProject, training_service: TrainingService
) -> None:
    with training_service.paused_worker():
        untrainable_project.create(ClientToken="1")
        untrainable_project.create(ClientToken="2")
        members = {**untrainable_project.of, "OutputConfig": untrainable_project.output, "ClientToken": "t"}
        error = error_response(untrainable_project.client.create_model, **members)
        assert error["Error"]["Code"] == "ServiceQuotaExceededException"
        untrainable_project.client.delete_model(**untrainable_project.of, ModelVersion="2")
        assert untrainable_project.create(ClientToken="t")["ModelVersion"] == "3"


def test_a_repetition_brings_no_deleted_model_back(
    untrainable_project: ModelProject, training_service: TrainingService
) -> None:
    with training_service.paused_worker():
        untrainable_project.create(ClientToken="t")
        for _ in range(2):
            untrainable_project.client.delete_model(
                **untrainable_project.of, ModelVersion="1", ClientToken="d"
            )
        error = error_response(
            untrainable_project.client.create_model,
            **untrainable_project.of,
            OutputConfig=untrainable_project.output,
            ClientToken="t",
        )
        assert "has been deleted since" in message_of(error)
        assert queued_jobs(training_service.storage, untrainable_project.account) == []
    assert untrainable_project.versions() == []


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


@pytest.mark.parametrize("other", ["2", "q"], ids=["of the same project", "of another project"])
def test_one_token_for_two_models_at_a_time(
    other: str, project: ModelProject, classifier: ModelProject, training_service: TrainingService
) -> None:
    first, second = (project, "1"), (project, "2")
    if other == "q":
        second = training_service.new_project(project.account, name="q"), "1"
    for where, version in (first, second):
        where.put(int(version), artifact=classifier.artifact())
    for _ in range(2):
        for where, version in (first, second):
            assert where.start(version, ClientToken="RunOnce") == "STARTING_HOSTING"
    for _ in range(2):
        assert project.stop("1", ClientToken="RunOnce") == "STOPPING_HOSTING"
        assert project.ended("1", "STOPPING_HOSTING")["Status"] == "TRAINED"
    # Neither what is done to the one nor its repetition touches the other.
    assert second[0].describe(second[1])["Status"] in {"STARTING_HOSTING", "HOSTED"}
    assert second[0].start(second[1], ClientToken="RunOnce") == "STARTING_HOSTING"
    assert (starts_of(project), starts_of(second[0], int(second[1]))) == (1, 1)
    second[0].stopped(second[1], ClientToken="RunOnce")


def test_a_repetition_is_known_after_its_token_was_used_for_another_model(
    project: ModelProject, classifier: ModelProject
) -> None:
    for version in (1, 2):
        project.put(version, artifact=classifier.artifact())
    for version in ("1", "2"):
        project.start(version, ClientToken="t")
        project.stopped(version, ClientToken="t")
    # Both have been stopped: were the tokens forgotten, this would be a conflict with the state.
    for version in ("1", "2"):
        assert project.stop(version, ClientToken="t") == "STOPPING_HOSTING"
        assert project.describe(version)["Status"] == "TRAINED"
        assert starts_of(project, int(version)) == 1


def test_the_token_of_the_latest_model_is_known_when_there_is_a_newer_one(
    project: ModelProject, classifier: ModelProject
) -> None:
    project.put(1, artifact=classifier.artifact())
    project.start("latest", ClientToken="t")
    project.put(2, artifact=classifier.artifact())
    assert project.start("latest", ClientToken="t") == "STARTING_HOSTING"
    assert (project.describe("2")["Status"], starts_of(project, 1)) == ("TRAINED", 1)
    project.stopped("1")


def test_a_start_with_other_units_is_another_request(project: ModelProject, classifier: ModelProject) -> None:
    project.put(1, artifact=classifier.artifact())
    project.start(ClientToken="t")
    error = error_response(
        project.client.start_model, **project.of, ModelVersion="1", MinInferenceUnits=2, ClientToken="t"
    )
    assert "with other parameters" in message_of(error)
    project.stopped()


def test_the_token_of_a_failed_start_starts_again(project: ModelProject) -> None:
    project.put(1)  # there is nothing to host
    for number in (1, 2):
        assert project.start(ClientToken="t") == "STARTING_HOSTING"
        described = project.ended("1", "STARTING_HOSTING")
        assert described["Status"] == "HOSTING_FAILED"
        assert described["StatusMessage"].startswith("Service fault: ")
        assert starts_of(project) == number


def test_tokens_of_a_model_end_with_it(
    untrainable_project: ModelProject, training_service: TrainingService
) -> None:
    untrainable_project.put(1)
    untrainable_project.start(ClientToken="s")
    assert untrainable_project.ended("1", "STARTING_HOSTING")["Status"] == "HOSTING_FAILED"
    untrainable_project.client.delete_model(**untrainable_project.of, ModelVersion="1", ClientToken="d")
    error = error_response(
        untrainable_project.client.start_model,
        **untrainable_project.of,
        ModelVersion="1",
        MinInferenceUnits=1,
        ClientToken="s",
    )
    assert (error["Error"]["Code"], error["ResourceType"]) == ("ResourceNotFoundException", "MODEL")
    with training_service.storage.database.read() as connection:
        tokens = client_tokens.select().where(client_tokens.c.account_id == untrainable_project.account)
        tokens = tokens.where(client_tokens.c.resource_type == "MODEL")
        assert [(row.operation, row.token) for row in connection.execute(tokens)] == [("DeleteModel", "d")]


def test_a_training_that_always_loses_its_workers_is_given_up(
    untrainable_project: ModelProject, training_service: TrainingService
) -> None:
    with training_service.paused_worker():
        untrainable_project.create(ClientToken="t")
        for _ in range(queue.MAX_ATTEMPTS):
            job = queue.claim(training_service.storage.database, "dead", [TRAIN_JOB])
            assert job
            # What a worker that is killed leaves.
            left = training_service.service.data_dir / "training" / f"{job.id}-{job.attempts}"
            left.mkdir(parents=True)
            queue.requeue(training_service.storage.database, "dead")
    described = untrainable_project.ended()
    assert described["Status"] == "TRAINING_FAILED"
    assert described["StatusMessage"].startswith(
        "Service fault: the training was started 3 times and never finished"
    )
    assert queued_jobs(training_service.storage, untrainable_project.account) == []
    assert list((training_service.service.data_dir / "training").glob(f"{job.id}-*")) == []
    assert untrainable_project.create(ClientToken="t")["ModelVersion"] == "2"
