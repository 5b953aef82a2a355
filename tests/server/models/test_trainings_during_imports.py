"""CreateModel while datasets are imported or updated: accepted, and trained on what these come to."""

from __future__ import annotations

from typing import Any

import pytest
from held_worker import queued_jobs
from manifest_lines import line, manifest
from model_fixtures import ModelProject, TrainingService
from polling import until

from airflow_provider_lookoutvision.server.datasets.importer import Importer
from airflow_provider_lookoutvision.server.datasets.operations import IMPORT_JOB
from airflow_provider_lookoutvision.server.jobs import queue
from airflow_provider_lookoutvision.server.models.training_entries import import_ended
from airflow_provider_lookoutvision.server.settings import Settings
from airflow_provider_lookoutvision.server.storage import stores

pytest_plugins = ["model_fixtures"]

NEEDED = {
    "train": "the training dataset needs at least 10 images labelled normal, and has",
    "test": "the test dataset needs at least 10 images labelled normal, and has",
}


def lines(project: ModelProject, count: int, first: int = 0) -> list[dict[str, Any]]:
    return [line(f"{number}.jpg", bucket=project.bucket) for number in range(first, first + count)]


def failure(project: ModelProject) -> str:
    """Why the training has failed."""
    described = project.ended()
    assert described["Status"] == "TRAINING_FAILED"
    return str(described["StatusMessage"])


def run_next_import(training_service: TrainingService) -> None:
    """Import the oldest manifest in this process, in the place of the worker."""
    settings = Settings(data_dir=training_service.service.data_dir)
    database = training_service.storage.database
    job = queue.claim(database, "test", [IMPORT_JOB])
    assert job
    Importer(database, stores.store(settings), settings, lambda: False, import_ended).run(job)


def test_datasets_and_a_model_with_nothing_between(
    project: ModelProject, training_service: TrainingService
) -> None:
    # As AWS's lab notebook does it.
    with training_service.paused_worker():
        project.dataset(lines(project, 3), wait=False)
        project.dataset(lines(project, 2, first=3), "test", wait=False)
        made = project.create(ClientToken="t")
        assert (made["Status"], made["ModelVersion"]) == ("TRAINING", "1")
        assert made["StatusMessage"] == (
            "The model is being trained. 0%, waiting until the import of the train dataset and the test "
            "dataset has ended"
        )
        assert project.create(ClientToken="t") == made
        assert len(queued_jobs(training_service.storage, project.account)) == 3
    message = failure(project)
    assert f"{NEEDED['train']} 3" in message
    assert f"{NEEDED['test']} 2" in message
    assert project.train(ClientToken="t")["ModelVersion"] == "2"


def test_entries_are_those_of_the_moment_when_their_import_ended(
    project: ModelProject, training_service: TrainingService
) -> None:
    with training_service.paused_worker():
        project.dataset(lines(project, 3), wait=False)
        project.dataset(lines(project, 2, first=3), "test", wait=False)
        project.create()
        run_next_import(training_service)
        assert "waiting" in project.describe()["StatusMessage"]
        project.client.delete_dataset(**project.of, DatasetType="train")
    message = failure(project)
    assert f"{NEEDED['train']} 3" in message
    assert f"{NEEDED['test']} 2" in message


def test_an_import_that_fails_fails_the_training(
    project: ModelProject, training_service: TrainingService
) -> None:
    with training_service.paused_worker():
        project.dataset(lines(project, 3), wait=False)
        project.write("x", b"no JSON\n")
        source = {"GroundTruthManifest": {"S3Object": {"Bucket": project.bucket, "Key": "x"}}}
        project.client.create_dataset(**project.of, DatasetType="test", DatasetSource=source)
        project.create(ClientToken="t")
    message = failure(project)
    assert message.startswith("Invalid input: the import of the test dataset failed: the manifest s3://")
    assert "line 1: it is not JSON" in message
    # The other import may still be under way.
    until(lambda: queued_jobs(training_service.storage, project.account), lambda left: not left)
    # The token begins the training anew.
    project.client.delete_dataset(**project.of, DatasetType="test")
    assert project.create(ClientToken="t")["ModelVersion"] == "2"
    assert f"{NEEDED['train']}" not in failure(project)  # that is of a test dataset; there is none now


@pytest.mark.parametrize("fails", [False, True])
def test_an_update_is_waited_for(
    fails: bool, project: ModelProject, training_service: TrainingService
) -> None:
    project.dataset(lines(project, 3))
    with training_service.paused_worker():
        changes = b"no JSON\n" if fails else manifest(*lines(project, 2, first=3))
        project.client.update_dataset_entries(**project.of, DatasetType="train", Changes=changes)
        assert "waiting until the import of the train dataset" in project.create()["StatusMessage"]
    message = failure(project)
    if fails:
        assert message.startswith("Invalid input: the import of the train dataset failed: the update has")
    else:
        assert message.startswith(
            "Invalid input: a training dataset without a test dataset needs at least 20"
        )
        assert "labelled normal, and has 5" in message


def test_a_training_that_waits_is_deleted(project: ModelProject, training_service: TrainingService) -> None:
    with training_service.paused_worker():
        project.dataset(lines(project, 3), wait=False)
        project.create()
        project.client.delete_model(**project.of, ModelVersion="1")
        assert [job.kind for job in queued_jobs(training_service.storage, project.account)] == [IMPORT_JOB]
    assert project.train()["ModelVersion"] == "2"
    assert project.versions() == ["2"]


def test_an_import_that_ends_at_the_same_time_is_not_missed(project: ModelProject) -> None:
    for number in range(1, 7):
        project.dataset(lines(project, number), wait=False)
        project.create()
        assert f"labelled normal, and has {number}" in failure(project)
        project.client.delete_dataset(**project.of, DatasetType="train")
