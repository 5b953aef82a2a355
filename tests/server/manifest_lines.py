"""Lines of Ground Truth manifests, as documents to vary and as the bytes of a file."""

from __future__ import annotations

import json
from typing import Any

CLASSIFICATION = "groundtruth/image-classification"
SEGMENTATION = "groundtruth/semantic-segmentation"


def line(key: str = "1.png", label: str | None = "normal", *, bucket: str = "images") -> dict[str, Any]:
    """An image's line; without a label when that is None."""
    document: dict[str, Any] = {"source-ref": f"s3://{bucket}/{key}"}
    if label is not None:
        document["anomaly-label"] = int(label == "anomaly")
        document["anomaly-label-metadata"] = {
            "confidence": 1,
            "job-name": "labeling-job/anomaly-label",
            "class-name": label,
            "human-annotated": "yes",
            "creation-date": "2022-08-22T20:52:51.851Z",
            "type": CLASSIFICATION,
        }
    return document


def masked(key: str = "1.png", *, bucket: str = "images", colors: Any = None) -> dict[str, Any]:
    """An anomalous image's line, with a mask."""
    return {
        **line(key, "anomaly", bucket=bucket),
        "anomaly-mask-ref": f"s3://{bucket}/masks/{key}",
        "anomaly-mask-ref-metadata": {
            "internal-color-map": {
                "0": {"class-name": "BACKGROUND", "hex-color": "#ffffff", "confidence": 0},
                "1": {"class-name": "scratch", "hex-color": "#2ca02c", "confidence": 0},
            }
            if colors is None
            else colors,
            "type": SEGMENTATION,
            "human-annotated": "yes",
            "creation-date": "2021-11-23T20:31:57.758889",
            "job-name": "labeling-job/segmentation",
        },
    }


def compact(document: dict[str, Any]) -> str:
    """A document as the service returns it."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def manifest(*documents: dict[str, Any] | str | bytes) -> bytes:
    """Documents, or lines that are none, as a file."""
    lines = [
        document
        if isinstance(document, bytes)
        else (document if isinstance(document, str) else json.dumps(document)).encode()
        for document in documents
    ]
    return b"".join(each + b"\n" for each in lines)


def encoded(document: Any) -> bytes:
    """A document as a line of a file."""
    return json.dumps(document).encode()


def changed(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with one member set; ``path`` separates names by dots."""
    *names, last = path.split(".")
    copy: dict[str, Any] = json.loads(json.dumps(document))
    inner = copy
    for name in names:
        inner = inner[name]
    inner[last] = value
    return copy


def without(document: dict[str, Any], path: str) -> dict[str, Any]:
    """A copy without one member."""
    *names, last = path.split(".")
    copy: dict[str, Any] = json.loads(json.dumps(document))
    inner = copy
    for name in names:
        inner = inner[name]
    del inner[last]
    return copy
