"""Labelled images as JSON Lines in the Ground Truth format."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime

from airflow_provider_lookoutvision.manifests.images import LABELS, InvalidLayout, LabelledImage, some

WHITE = "#FFFFFF"
_LABEL, _MASK = "anomaly-label", "anomaly-mask-ref"


def manifest(images: Iterable[LabelledImage], colors: Mapping[str, str]) -> str:
    """The images as JSON Lines in the Ground Truth format.

    :param colors: of the classes in their masks, ``#RRGGBB``.
    """
    lines = (
        entry(
            image.source_ref,
            image.label,
            mask_ref=image.mask_ref,
            colors={image.mask_class: colors[image.mask_class]} if image.mask_class else {},
            created=image.created,
        )
        for image in images
    )
    return "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)


def labelled(labels: Mapping[str, str], created: datetime) -> str:
    """Images and their labels as JSON Lines in the Ground Truth format.

    :param labels: ``normal`` or ``anomaly``, by the image's URI, ``s3://bucket/key``.
    :param created: when they were labelled.
    :raises InvalidLayout: naming the image.
    """
    images = []
    for uri, label in labels.items():
        if not uri.startswith("s3://") or str(label).strip().lower() not in LABELS:
            raise InvalidLayout(
                f"labels has {label!r} for {uri!r}; it must have normal or anomaly, for s3://bucket/key"
            )
        images.append(LabelledImage(uri, str(label).strip().lower(), created))
    return manifest(images, {})


def mask_colors(images: Iterable[LabelledImage], given: Mapping[str, str]) -> dict[str, str]:
    """The colour of each class in its masks: as given, or white if there is only one class.

    :raises InvalidLayout: when a class has no colour, or two have the same.
    """
    classes = sorted({image.mask_class for image in images if image.mask_class})
    colors = {name: given.get(name, WHITE if len(classes) == 1 else "").upper() for name in classes}
    if missing := [name for name, color in colors.items() if not color]:
        raise InvalidLayout(
            f"set mask_colors: which colour have {some(missing)} in their masks? Each class needs its own"
        )
    if twice := [color for color, count in Counter(colors.values()).items() if count > 1]:
        raise InvalidLayout(f"mask_colors has {some(twice)} for several classes; each needs its own")
    return colors


def entry(
    source_ref: str,
    label: str | None,
    *,
    mask_ref: str | None = None,
    colors: Mapping[str, str] | None = None,
    created: datetime | None = None,
    job_name: str = "airflow",
) -> dict[str, object]:
    """One image's line of a manifest.

    :param label: ``normal``, ``anomaly``, or None for an image without a label.
    :param mask_ref: the mask, whose classes have these ``colors``, ``#RRGGBB``.
    :param created: when the label was given, if that is known.
    """
    common: dict[str, object] = {"human-annotated": "yes"}
    if created:
        common["creation-date"] = created.strftime("%Y-%m-%dT%H:%M:%S")
    common["job-name"] = job_name
    line: dict[str, object] = {"source-ref": source_ref}
    if label:
        line[_LABEL] = int(label == "anomaly")
        line[f"{_LABEL}-metadata"] = {
            "confidence": 1,
            "class-name": label,
            "type": "groundtruth/image-classification",
            **common,
        }
    if mask_ref:
        line[_MASK] = mask_ref
        line[f"{_MASK}-metadata"] = {
            "internal-color-map": {
                str(number): {"class-name": name, "hex-color": color, "confidence": 1}
                for number, (name, color) in enumerate((colors or {}).items(), 1)
            },
            "type": "groundtruth/semantic-segmentation",
            **common,
        }
    return line


def split_lines(text: bytes, most: int) -> Iterator[bytes]:
    """Split JSON Lines into parts of at most ``most`` bytes, between lines."""
    part = b""
    for line in text.splitlines(keepends=True):
        if not line.strip():
            continue
        if part and len(part) + len(line) > most:
            yield part
            part = b""
        part += line
    if part:
        yield part
