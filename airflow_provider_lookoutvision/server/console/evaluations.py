"""The evaluation of a model, read from the files that its training wrote.

The score of an image is the model's confidence that it is anomalous, 0 to 1: what the files say of the
verdict, turned to one side. The verdict at any threshold follows from it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_lookoutvision.server.console.visit import Visit
from airflow_provider_lookoutvision.server.protocol.errors import ValidationException
from airflow_provider_lookoutvision.server.storage.buckets import Location


@dataclass(frozen=True)
class Verdict:
    """What a model said of one test image: its true label, and the score from 0 to 1."""

    source_ref: str
    label: str
    predicted: str
    score: float

    @property
    def wrong(self) -> bool:
        """Whether the verdict isn't the label."""
        return self.label != self.predicted

    @property
    def error(self) -> float:
        """How far the score is from the label, 0 to 1."""
        return 1 - self.score if self.label == "anomaly" else self.score


@dataclass(frozen=True)
class Evaluation:
    """The metrics of a model, and its verdicts."""

    metrics: dict[str, Any]
    details: dict[str, Any]
    verdicts: Sequence[Verdict]


def read(visit: Visit, model: dict[str, Any]) -> Evaluation | None:
    """The evaluation of a model that DescribeModel has described; None when its files are gone.

    :raises AccessDeniedException: when the key may not read the bucket.
    """
    if "EvaluationManifest" not in model:
        return None
    place = model["EvaluationManifest"]
    lines = visit.objects.find(Location(place["Bucket"], place["Key"]))
    place = model["EvaluationResult"]
    result = visit.objects.find(Location(place["Bucket"], place["Key"]))
    if lines is None or result is None:
        return None
    try:
        document = json.loads(result)
        return Evaluation(
            document["AggregatedEvaluationResults"]["Metrics"],
            document["EvaluationDetails"],
            [_verdict(json.loads(line)) for line in lines.splitlines() if line.strip()],
        )
    except (ValueError, KeyError, TypeError):
        raise ValidationException(
            f"The evaluation s3://{place['Bucket']}/{place['Key']} isn't as the training wrote it: "
            "put it back, or train anew"
        ) from None


def verdicts(visit: Visit, project: str, version: str) -> Sequence[Verdict]:
    """The verdicts of a model; none when there is no evaluation."""
    found = visit.call("DescribeModel", ProjectName=project, ModelVersion=version)["ModelDescription"]
    evaluation = read(visit, found)
    return evaluation.verdicts if evaluation else ()


def _verdict(line: dict[str, Any]) -> Verdict:
    described = line["anomaly-label-detected-metadata"]
    anomalous, confidence = bool(line["anomaly-label-detected"]), float(described["confidence"])
    return Verdict(
        line["source-ref"],
        "anomaly" if line["anomaly-label"] else "normal",
        "anomaly" if anomalous else "normal",
        confidence if anomalous else 1 - confidence,
    )
