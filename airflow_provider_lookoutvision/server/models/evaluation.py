"""The evaluation files of a training: the evaluation manifest and the evaluation result.

The manifest is JSON Lines, one line for each test image: its label, and the prediction of the model under
``anomaly-label-detected``. The result is one JSON object with the metrics. Anomalous is the positive class.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from airflow_provider_lookoutvision.server.datasets.manifest import CLASSIFICATION

RESULT_VERSION = 1
_JOB_NAME = "training-job/anomaly-detection"
_LABEL = "anomaly-label"


@dataclass(frozen=True)
class Metrics:
    """The metrics of a model on images that it wasn't trained on, each 0 to 1.

    :param effort: ``thorough`` when the model has a network that was trained for it, else ``quick``.
    :param effort_message: what the thorough effort tried and kept; empty when it wasn't asked for.
    :param backbone: name and SHA-256 of the network, if it is one that the service's setting names.
    :param classes: for a segmentation model, ``Precision``, ``Recall``, ``F1Score``, ``AIOU`` and
        ``ClassName`` of each class's pixels.
    :param operating_points: ``Threshold``, ``Precision``, ``Recall`` and ``F1Score`` at each threshold
        that is worth choosing.
    :param predictions: for each test image, whether it is anomalous, and the confidence in that.
    """

    roc_auc: float
    average_precision: float
    precision: float
    recall: float
    f1: float
    classes: Sequence[Mapping[str, Any]]
    operating_points: Sequence[Mapping[str, float]]
    effort: str
    effort_message: str
    backbone: str
    predictions: Sequence[tuple[bool, float]]


@dataclass(frozen=True)
class EvaluatedModel:
    """The model that was evaluated, and when; ``ended_at`` in milliseconds since the epoch."""

    arn: str
    project_name: str
    version: int
    ended_at: int


def manifest_key(prefix: str, project_name: str, version: int) -> str:
    """The key of the evaluation manifest; the prefix is put before it as it is."""
    return f"{prefix}EvaluationManifest-{project_name}-{version}.json"


def result_key(prefix: str, project_name: str, version: int) -> str:
    """The key of the evaluation result."""
    return f"{prefix}EvaluationResult-{project_name}-{version}.json"


def result(model: EvaluatedModel, metrics: Metrics, training_images: int, testing_images: int) -> bytes:
    """The evaluation result."""
    values: dict[str, Any] = {
        "ROCAUC": metrics.roc_auc,
        "AveragePrecision": metrics.average_precision,
        "Precision": metrics.precision,
        "Recall": metrics.recall,
        "F1Score": metrics.f1,
    }
    if metrics.classes:
        values["PixelAnomalyClassMetrics"] = list(metrics.classes)
    document = {
        "Version": RESULT_VERSION,
        "EvaluationDetails": {
            "ModelArn": model.arn,
            "EvaluationEndTimestamp": _iso8601(model.ended_at),
            "NumberOfTrainingImages": training_images,
            "NumberOfTestingImages": testing_images,
            "TrainingEffort": metrics.effort,
            **({"TrainingEffortMessage": metrics.effort_message} if metrics.effort_message else {}),
            **({"TrainingBackbone": metrics.backbone} if metrics.backbone else {}),
        },
        # Not among the metrics, of which published clients make a table.
        "AggregatedEvaluationResults": {"Metrics": values, "OperatingPoints": list(metrics.operating_points)},
    }
    return json.dumps(document).encode()


def manifest(model: EvaluatedModel, tested: Iterable[tuple[str, str]], metrics: Metrics) -> bytes:
    """The evaluation manifest.

    :param tested: the ``source-ref`` and label of each test image, in the order of the predictions.
    """
    ended = _iso8601(model.ended_at)
    lines = []
    for (source_ref, label), (anomalous, confidence) in zip(tested, metrics.predictions, strict=True):
        common = {"type": CLASSIFICATION, "creation-date": ended}
        document = {
            "source-ref": source_ref,
            "source-ref-metadata": {"creation-date": ended},
            _LABEL: int(label == "anomaly"),
            f"{_LABEL}-metadata": {
                "class-name": label,
                **common,
                "human-annotated": "yes",
                "job-name": "labeling-job/anomaly-detection",
            },
            f"{_LABEL}-detected": int(anomalous),
            f"{_LABEL}-detected-metadata": {
                "class-name": "anomaly" if anomalous else "normal",
                "confidence": confidence,
                **common,
                "human-annotated": "no",
                "job-name": _JOB_NAME,
                "model-arn": model.arn,
                "project-name": model.project_name,
                "model-version": str(model.version),
            },
        }
        lines.append(json.dumps(document, separators=(",", ":")) + "\n")
    return "".join(lines).encode()


def _iso8601(milliseconds: int) -> str:
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
