"""Trainings that succeed: what they learn from, what they tell, what they write and what they leave."""

from __future__ import annotations

import json
from typing import Any

import pytest
from dataset_fixtures import queued, until
from manifest_lines import line, manifest
from model_fixtures import ModelLab, Studio
from training_processes import paused, trainers

from airflow_provider_lookoutvision.server.storage.schema import training_entries

pytest_plugins = ["model_fixtures"]


def result_of(lab: ModelLab, described: dict[str, Any]) -> dict[str, Any]:
    return json.loads(_object(lab, described["EvaluationResult"]))  # type: ignore[no-any-return]


def manifest_of(lab: ModelLab, described: dict[str, Any]) -> list[dict[str, Any]]:
    return [json.loads(text) for text in _object(lab, described["EvaluationManifest"]).splitlines()]


def _object(lab: ModelLab, found: dict[str, str]) -> bytes:
    assert found["Bucket"] == lab.bucket
    return (lab.folder / found["Key"]).read_bytes()


def test_a_classifier_of_two_datasets(classifier: ModelLab) -> None:
    described = classifier.describe("1")
    # Three anomalies are too few to calibrate with, and the message says so.
    told = "Training completed successfully. There were too few labelled anomalies to learn from: "
    assert described["StatusMessage"] == f"{told}Confidence is no probability."
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


def test_a_segmenter_of_one_dataset(segmenter: ModelLab) -> None:
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


def test_nothing_is_left_of_a_training(classifier: ModelLab, segmenter: ModelLab) -> None:
    for lab in (classifier, segmenter):
        assert queued(lab.studio.storage, lab.account) == []
        assert len(lab.artifact()) > 10_000
        with lab.studio.storage.database.read() as connection:
            left = training_entries.select().where(training_entries.c.model_id == lab.model_id())
            assert connection.execute(left).all() == []


def test_what_is_frozen_is_learnt_from_and_progress_told(lab: ModelLab, studio: Studio) -> None:
    lab.small_datasets()
    with paused(studio):
        answer = lab.create(Tags=[])
        assert (answer["Status"], answer["StatusMessage"]) == ("TRAINING", "The model is being trained.")
        # From now on nothing that becomes of the datasets matters.
        spoilt = line("normal-0.jpg", "anomaly", bucket=lab.bucket)
        lab.client.update_dataset_entries(
            **lab.of, DatasetType="test", Changes=manifest(spoilt, line("gone.jpg", bucket=lab.bucket))
        )
        lab.client.delete_dataset(**lab.of, DatasetType="train")
    told: set[str] = set()
    until(
        lambda: lab.describe(),
        lambda found: told.add(found["StatusMessage"]) or found["Status"] != "TRAINING",
    )
    described = lab.describe("1")
    assert described["Status"] == "TRAINED", described
    assert any(message.startswith("The model is being trained. ") and "%, " in message for message in told)
    details = result_of(lab, described)["EvaluationDetails"]
    assert (details["NumberOfTrainingImages"], details["NumberOfTestingImages"]) == (10, 20)
    assert len(manifest_of(lab, described)) == 20
    assert trainers(studio) == []
    until(lambda: list((studio.service.data_dir / "training").iterdir()), lambda left: not left)
