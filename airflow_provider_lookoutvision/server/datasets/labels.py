"""Changes of one entry: its label, its mask. All else of the entry stays as it is.

A change made twice is made once: the second finds the entry as it would leave it. ``version`` identifies what
somebody saw, so that a change of something else can be refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from airflow_provider_lookoutvision.server.datasets import manifest

LABELS = ("normal", "anomaly")
_LABEL = "anomaly-label"
_MASK = "anomaly-mask-ref"
_BACKGROUND_COLOR = "#ffffff"


def version(line: str) -> str:
    """A short digest of an entry."""
    return hashlib.sha256(line.encode()).hexdigest()[:16]


def labelled(line: str, label: str | None, moment: str) -> str:
    """The entry with another label.

    :param label: ``normal``, ``anomaly``, or None to take the label away.
    :param moment: when it was labelled, ISO 8601.
    :raises InvalidLine: when the entry has grown too long.
    """
    document = json.loads(line)
    if manifest.read(line.encode()).label == label:
        return line
    found = [
        key
        for key, metadata in manifest.companions(document, manifest.CLASSIFICATION)
        if metadata.get("class-name") in LABELS
    ]
    for key in found:
        if label is None:
            document.pop(key, None)
            del document[f"{key}-metadata"]
        else:
            _set_label(document, key, label, moment)
    if label is not None and not found:
        _set_label(document, _LABEL, label, moment)
    return _checked(document)


def masked(line: str, mask_ref: str | None, colors: Mapping[str, str], moment: str) -> str:
    """The entry with another mask, labelled ``anomaly``; without a mask its label stays.

    :param mask_ref: of the mask's PNG, ``s3://bucket/key`` in the image's bucket; None to take it away.
    :param colors: each class that may be in the mask, with its colour ``#RRGGBB``.
    :raises InvalidLine: when the entry can't be one, with the reason.
    """
    if mask_ref is not None:
        line = labelled(line, "anomaly", moment)
    document = json.loads(line)
    for key, _ in manifest.companions(document, manifest.SEGMENTATION):
        document.pop(key, None)
        del document[f"{key}-metadata"]
    if mask_ref is not None:
        names = {"BACKGROUND": _BACKGROUND_COLOR, **colors}
        document[_MASK] = mask_ref
        document[f"{_MASK}-metadata"] = {
            "internal-color-map": {
                str(index): {"class-name": name, "hex-color": color, "confidence": 1}
                for index, (name, color) in enumerate(names.items())
            },
            "type": manifest.SEGMENTATION,
            "human-annotated": "yes",
            "creation-date": moment,
            "job-name": "labeling-job/console",
        }
    return _checked(document)


def new_entry(source_ref: str, label: str | None, moment: str) -> str:
    """The entry of an image that the dataset doesn't have yet.

    :raises InvalidLine: when the reference can't be one, with the reason.
    """
    line = _checked({"source-ref": source_ref})
    return labelled(line, label, moment)


def _set_label(document: dict[str, Any], key: str, label: str, moment: str) -> None:
    document[key] = int(label == "anomaly")
    document[f"{key}-metadata"] = {
        **document.get(f"{key}-metadata", {}),
        "class-name": label,
        "confidence": 1.0,
        "type": manifest.CLASSIFICATION,
        "job-name": "labeling-job/console",
        "human-annotated": "yes",
        "creation-date": moment,
    }


def _checked(document: dict[str, Any]) -> str:
    """As the service keeps it."""
    return manifest.read(json.dumps(document, ensure_ascii=False).encode(errors="surrogatepass")).line
