"""Labelled images into an S3, with a manifest each: some to learn from, and some to be tried on.

They come from the parts that the demo draws, or from a folder of the user's (see ``folders``).
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from example_dags.demo import folders, parts
from example_dags.demo.backends import IMAGES
from example_dags.demo.samples import NoImages, Sample

PARTS = "machined-parts"
TEST_SHARE = 0.3
TEST_LEAST = 10
MOST_OF_A_KIND = 100
_DATE = "2026-01-01T00:00:00"


@dataclass(frozen=True)
class Collection:
    """Images of one thing.

    :param name: fit for a project's.
    :param is_drawn: whether they are the demo's own.
    :param source: where they come from, for people.
    :param train: to learn from.
    :param test: to be tried on.
    """

    name: str
    is_drawn: bool
    source: str
    train: Sequence[Sample]
    test: Sequence[Sample]


def collect(folder: Path | None) -> Collection:
    """Read the images of a folder, or draw parts.

    :raises NoImages: when there are too few, or none.
    """
    if folder is None:
        name, source = PARTS, "machined parts, drawn by the demo"
        samples = drawn(normal=30, scratched=22, dented=22)
    else:
        name = re.sub(r"[^A-Za-z0-9_]+", "-", folder.resolve().name).strip("-_") or "images"
        source, samples = folders.read(folder)
    train, test = split(samples)
    if left := len(samples) - len(train) - len(test):
        source += f"; {left} images are left out, so that it stays quick"
    return Collection(name, folder is None, source, train, test)


def drawn(normal: int, scratched: int, dented: int) -> list[Sample]:
    """As many drawn parts, with their masks."""
    samples = []
    for part in parts.draw(normal, scratched, dented):
        colors = {part.defect: parts.COLORS[part.defect]} if part.defect else {}
        samples.append(Sample(f"{part.name}.png", part.image, part.defect, part.mask, colors))
    return samples


def split(samples: Iterable[Sample]) -> tuple[list[Sample], list[Sample]]:
    """By kind and by a seed, so that each run of the demo sees the same."""
    kinds: dict[tuple[str, ...], list[Sample]] = {}
    for sample in samples:
        kinds.setdefault(sample.kind, []).append(sample)
    train, test = [], []
    for members in kinds.values():
        random.Random(0).shuffle(members)
        del members[MOST_OF_A_KIND:]
        count = min(max(TEST_LEAST, round(len(members) * TEST_SHARE)), len(members) // 2)
        test += members[:count]
        train += members[count:]
    for label in ("normal", "anomaly"):
        if (count := sum(sample.label == label for sample in (*train, *test))) < 2 * TEST_LEAST:
            raise NoImages(
                f"there are {count} images labelled {label}, and {2 * TEST_LEAST} are needed: one half to "
                "learn from, and one to be tried on"
            )
    return train, test


def put(s3: Any, dataset: str, samples: Iterable[Sample]) -> dict[str, Sample]:
    """Upload a dataset and its manifest, and return its samples by their ``source-ref``."""
    placed = {}
    lines = []
    for sample in samples:
        key = f"{dataset}/{sample.name}"
        s3.put_object(Bucket=IMAGES, Key=key, Body=sample.image)
        line = _line(key, sample.label)
        if sample.mask:
            # Beside the dataset, not in it: a mask is no image to look at.
            mask_key = f"masks/{key}.png"
            s3.put_object(Bucket=IMAGES, Key=mask_key, Body=sample.mask)
            line |= _mask(mask_key, sample.colors)
        placed[line["source-ref"]] = sample
        lines.append(json.dumps(line) + "\n")
    s3.put_object(Bucket=IMAGES, Key=f"{dataset}.manifest", Body="".join(lines).encode())
    return placed


def _line(key: str, label: str) -> dict[str, Any]:
    return {
        "source-ref": f"s3://{IMAGES}/{key}",
        "anomaly-label": int(label == "anomaly"),
        "anomaly-label-metadata": {
            "class-name": label,
            "confidence": 1,
            "human-annotated": "yes",
            "type": "groundtruth/image-classification",
            "creation-date": _DATE,
            "job-name": "anomaly-label",
        },
    }


def _mask(key: str, colors: dict[str, str]) -> dict[str, Any]:
    classes = {"BACKGROUND": "#ffffff", **colors}
    return {
        "anomaly-mask-ref": f"s3://{IMAGES}/{key}",
        "anomaly-mask-ref-metadata": {
            "internal-color-map": {
                str(number): {"class-name": name, "hex-color": color, "confidence": 1}
                for number, (name, color) in enumerate(classes.items())
            },
            "human-annotated": "yes",
            "type": "groundtruth/semantic-segmentation",
            "creation-date": _DATE,
            "job-name": "anomaly-mask",
        },
    }
