"""What a training writes for its user, byte for byte."""

from __future__ import annotations

import json
from typing import Any

from airflow_provider_lookoutvision.server.models import evaluation
from airflow_provider_lookoutvision.server.models.evaluation import EvaluatedModel, Metrics

MODEL = EvaluatedModel(
    "arn:aws:lookoutvision:us-east-1:123456789012:model/line-7/12", "line-7", 12, 1_606_583_060_681
)
ENDED = "2020-11-28T17:04:20.681Z"
PIXELS = {"Precision": 0.9, "Recall": 0.8, "F1Score": 0.85, "AIOU": 0.7, "ClassName": "scratch"}


def metrics(**more: Any) -> Metrics:
    return Metrics(
        **{
            "roc_auc": 0.99,
            "average_precision": 0.98,
            "precision": 1.0,
            "recall": 0.5,
            "f1": 2 / 3,
            "effort": "quick",
            "effort_message": "",
            "backbone": "",
            "classes": [],
            "operating_points": [{"Threshold": 0.25, "Precision": 0.5, "Recall": 1.0, "F1Score": 0.66}],
            "predictions": [(False, 0.9996867775917053), (True, 0.75)],
            **more,
        }
    )


def test_the_result_of_a_classifier() -> None:
    document = (
        '{"Version": 1, "EvaluationDetails": {'
        '"ModelArn": "arn:aws:lookoutvision:us-east-1:123456789012:model/line-7/12", '
        f'"EvaluationEndTimestamp": "{ENDED}", '
        '"NumberOfTrainingImages": 66, "NumberOfTestingImages": 34, "TrainingEffort": "quick"}, '
        '"AggregatedEvaluationResults": {"Metrics": {"ROCAUC": 0.99, "AveragePrecision": 0.98, '
        '"Precision": 1.0, "Recall": 0.5, "F1Score": 0.6666666666666666}, '
        '"OperatingPoints": [{"Threshold": 0.25, "Precision": 0.5, "Recall": 1.0, "F1Score": 0.66}]}}'
    )
    assert evaluation.result(MODEL, metrics(), 66, 34) == document.encode()


def test_the_result_of_a_network_of_the_users_own() -> None:
    document = json.loads(evaluation.result(MODEL, metrics(backbone="resnet18, SHA-256 12ab"), 1, 2))
    assert document["EvaluationDetails"]["TrainingBackbone"] == "resnet18, SHA-256 12ab"


def test_the_result_of_a_segmenter() -> None:
    document = json.loads(evaluation.result(MODEL, metrics(classes=[PIXELS]), 1, 2))
    values = document["AggregatedEvaluationResults"]["Metrics"]
    assert values["PixelAnomalyClassMetrics"] == [PIXELS]


def test_the_manifest() -> None:
    tested = [("s3://b/ä b.jpg", "anomaly"), ("s3://b/2.jpg", "normal")]
    content = evaluation.manifest(MODEL, tested, metrics())
    first, second = (json.loads(line) for line in content.decode().splitlines())
    assert content.endswith(b"}\n")
    assert first == {
        "source-ref": "s3://b/ä b.jpg",
        "source-ref-metadata": {"creation-date": ENDED},
        "anomaly-label": 1,
        "anomaly-label-metadata": {
            "class-name": "anomaly",
            "type": "groundtruth/image-classification",
            "creation-date": ENDED,
            "human-annotated": "yes",
            "job-name": "labeling-job/anomaly-detection",
        },
        "anomaly-label-detected": 0,
        "anomaly-label-detected-metadata": {
            "class-name": "normal",
            "confidence": 0.9996867775917053,
            "type": "groundtruth/image-classification",
            "creation-date": ENDED,
            "human-annotated": "no",
            "job-name": "training-job/anomaly-detection",
            "model-arn": MODEL.arn,
            "project-name": "line-7",
            "model-version": "12",
        },
    }
    assert (second["anomaly-label"], second["anomaly-label-detected"]) == (0, 1)
    assert second["anomaly-label-detected-metadata"]["class-name"] == "anomaly"
    # Its labels can be imported again as they are: each line is one object.
    assert b"\n" not in content.replace(b"}\n", b"")


def test_the_prefix_is_put_before_the_name_as_it_is() -> None:
    for prefix in ("", "out/", "k_fold_", "a//b"):
        assert evaluation.manifest_key(prefix, "p", 1) == f"{prefix}EvaluationManifest-p-1.json"
        assert evaluation.result_key(prefix, "p", 1) == f"{prefix}EvaluationResult-p-1.json"
