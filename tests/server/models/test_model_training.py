"""Trainings that succeed: what they learn from, what they tell, what they write and what they leave."""

from __future__ import annotations

import json
from typing import Any

import pytest
from held_worker import queued_jobs
from manifest_lines import line, manifest
from model_fixtures import ModelProject, TrainingService
from polling import until
from service_processes import training_processes

from airflow_provider_lookoutvision.server.storage.schema import training_entries

pytest_plugins = ["model_fixtures"]


def result_of(project: ModelProject, described: dict[str, Any]) -> dict[str, Any]:
    return json.loads(_object(project, described["EvaluationResult"]))  # type: ignore[no-any-return]


def manifest_of(project: ModelProject, described: dict[str, Any]) -> list[dict[str, Any]]:
    return [json.loads(text) for text in _object(project, described["EvaluationManifest"]).splitlines()]


def _object(project: ModelProject, found: dict[str, str]) -> bytes:
    assert found["Bucket"] == project.bucket
    return (project.folder / found["Key"]).read_bytes()


def test_a_classifier_of_two_datasets(classifier: ModelProject) -> None:
    described = classifier.describe("1")
    # Three anomalies are too few to calibrate with, and the message says so.
    message = "Training completed successfully. There were too few labelled anomalies to learn from: "
    assert described["StatusMessage"] == f"{message}Confidence is no probability."
    assert described["EvaluationManifest"]["Key"] == "out/EvaluationManifest-p-1.json"
    assert described["EvaluationResult"]["Key"] == "out/EvaluationResult-p-1.json"
    assert described["EvaluationEndTimestamp"] > described["CreationTimestamp"]
    result = result_of(classifier, described)
    details = result["EvaluationDetails"]
    assert (details["NumberOfTrainingImages"], details["NumberOfTestingImages"]) == (13, 20)
    assert details["ModelArn"] == described["ModelArn"]
    metrics = result["AggregatedEvaluationResults"]["Metrics"]
    # Without masks there is nothing of pixels: published clients make a table row of the metrics.
    assert list(metrics) == ["ROCAUC", "AveragePrecision", "Precision", "Recall", "F1Score"]
    assert described["Performance"] == {name: metrics[name] for name in ("F1Score", "Recall", "Precision")}
    # A scratch as wide as these is seen.
    assert metrics["F1Score"] > 0.9
    lines = manifest_of(classifier, described)
    assert [text["source-ref"].rpartition("/")[2] for text in lines] == [
        f"{kind}-{number}.jpg" for kind in ("normal", "scratched") for number in range(100, 110)
    ]
    right = [text["anomaly-label"] == text["anomaly-label-detected"] for text in lines]
    positive = [text for text in lines if text["anomaly-label-detected"] == 1]
    true = [text for text in positive if text["anomaly-label"] == 1]
    assert metrics["Precision"] == pytest.approx(len(true) / len(positive))
    assert metrics["Recall"] == pytest.approx(len(true) / 10)
    assert sum(right) == len(lines) - (10 - len(true)) - (len(positive) - len(true))


def test_a_segmenter_of_one_dataset(segmenter: ModelProject) -> None:
    described = segmenter.describe("1")
    assert described["StatusMessage"] == "Training completed successfully."
    # An empty prefix, and still there.
    assert described["OutputConfig"] == {"S3Location": {"Bucket": segmenter.bucket, "Prefix": ""}}
    assert described["EvaluationResult"]["Key"] == "EvaluationResult-p-1.json"
    result = result_of(segmenter, described)
    details = result["EvaluationDetails"]
    # Ten of each label are held out, since there are as many.
    assert (details["NumberOfTrainingImages"], details["NumberOfTestingImages"]) == (20, 20)
    metrics = result["AggregatedEvaluationResults"]["Metrics"]
    assert described["Performance"] == {name: metrics[name] for name in ("F1Score", "Recall", "Precision")}
    [pixels] = metrics["PixelAnomalyClassMetrics"]
    assert list(pixels) == ["Precision", "Recall", "F1Score", "AIOU", "ClassName"]
    assert pixels["ClassName"] == "scratch"
    assert 0.3 < pixels["AIOU"] <= 1
    tested = [text["source-ref"] for text in manifest_of(segmenter, described)]
    assert len(set(tested)) == 20
    assert sum("normal" in name for name in tested) == 10


def test_nothing_is_left_of_a_training(classifier: ModelProject, segmenter: ModelProject) -> None:
    for project in (classifier, segmenter):
        assert queued_jobs(project.training_service.storage, project.account) == []
        assert len(project.artifact()) > 10_000
        with project.training_service.storage.database.read() as connection:
            left = training_entries.select().where(training_entries.c.model_id == project.model_id())
            assert connection.execute(left).all() == []


def test_a_training_uses_the_entries_of_its_creation_and_shows_progress(
    project: ModelProject, training_service: TrainingService
) -> None:
    project.small_datasets()
    with training_service.paused_worker():
        answer = project.create(Tags=[])
        assert (answer["Status"], answer["StatusMessage"]) == ("TRAINING", "The model is being trained.")
        # From now on nothing that becomes of the datasets matters.
        spoilt = line("normal-0.jpg", "anomaly", bucket=project.bucket)
        project.client.update_dataset_entries(
            **project.of,
            DatasetType="test",
            Changes=manifest(spoilt, line("gone.jpg", bucket=project.bucket)),
        )
        project.client.delete_dataset(**project.of, DatasetType="train")
    messages: set[str] = set()
    until(
        lambda: project.describe(),
        lambda found: messages.add(found["StatusMessage"]) or found["Status"] != "TRAINING",
    )
    described = project.describe("1")
    assert described["Status"] == "TRAINED", described
    assert any(
        message.startswith("The model is being trained. ") and "%, " in message for message in messages
    )
    details = result_of(project, described)["EvaluationDetails"]
    assert (details["NumberOfTrainingImages"], details["NumberOfTestingImages"]) == (10, 20)
    assert len(manifest_of(project, described)) == 20
    assert training_processes(training_service.service) == []
    until(lambda: list((training_service.service.data_dir / "training").iterdir()), lambda left: not left)
