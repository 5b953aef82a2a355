"""Images into a bucket of the service, with the manifests that label them.

They come from the parts that the demo draws itself; from a folder with ``normal/`` and ``anomaly/``; or from
a folder with a Ground Truth manifest of its own, and what that refers to.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from example_dags.demo import parts

BUCKET = "images"
TEST_SHARE = 0.4
_SUFFIXES = {".jpg", ".jpeg", ".png"}
_DATE = "2026-01-01T00:00:00"


class NoImages(RuntimeError):
    """The folder doesn't hold what the demo needs; the message says what that is."""


@dataclass(frozen=True)
class Manifests:
    """What was made: what it is of, and where its two manifests are."""

    source: str
    train: str
    test: str


def prepare(data_dir: Path, folder: Path | None) -> Manifests:
    """Put images and manifests into the bucket ``images`` of a service with this data directory."""
    bucket = data_dir / "buckets" / BUCKET
    bucket.mkdir(parents=True)
    if folder is None:
        source, lines = "parts that the demo drew: good, scratched, dented", _drawn(bucket)
    elif manifests := sorted(folder.glob("*.manifest")):
        source, lines = str(manifests[0]), _copied(manifests[0], bucket)
    else:
        source, lines = str(folder), _labelled(folder, bucket)
    train, test = _split(lines)
    for name, chosen in (("train", train), ("test", test)):
        (bucket / f"{name}.manifest").write_text("".join(json.dumps(line) + "\n" for line in chosen))
    return Manifests(source, f"s3://{BUCKET}/train.manifest", f"s3://{BUCKET}/test.manifest")


def _drawn(bucket: Path) -> list[dict[str, Any]]:
    lines = []
    for part in parts.draw(normal=50, scratched=25, dented=25):
        (bucket / f"{part.name}.png").write_bytes(part.image)
        line = _line(f"{part.name}.png", "anomaly" if part.defect else "normal")
        if part.defect and part.mask:
            (bucket / f"{part.name}-mask.png").write_bytes(part.mask)
            line |= _mask(f"{part.name}-mask.png", part.defect, parts.COLORS[part.defect])
        lines.append(line)
    return lines


def _labelled(folder: Path, bucket: Path) -> list[dict[str, Any]]:
    lines = []
    for label in ("normal", "anomaly"):
        files = [file for file in sorted(folder.glob(f"{label}/*")) if file.suffix.lower() in _SUFFIXES]
        if not files:
            raise NoImages(
                f"{folder} has no images in {label}/: give a folder with normal/ and anomaly/, each with "
                "JPEG or PNG files, or one with a *.manifest"
            )
        (bucket / label).mkdir()
        for file in files:
            shutil.copyfile(file, bucket / label / file.name)
            lines.append(_line(f"{label}/{file.name}", label))
    return lines


def _copied(manifest: Path, bucket: Path) -> list[dict[str, Any]]:
    shutil.copytree(manifest.parent, bucket, dirs_exist_ok=True)
    return [json.loads(line) for line in manifest.read_text().splitlines() if line.strip()]


def _split(lines: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Stratified by class and seeded, so that each run of the demo sees the same."""
    classes: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        classes.setdefault(_class(line), []).append(line)
    train, test = [], []
    for members in classes.values():
        random.Random(0).shuffle(members)
        count = round(len(members) * TEST_SHARE)
        test += members[:count]
        train += members[count:]
    return train, test


def _class(line: dict[str, Any]) -> str:
    names: Iterable[str] = (
        value.get("class-name", "")
        for value in line.values()
        if isinstance(value, dict) and "class-name" in value
    )
    return next(iter(names), "")


def _line(key: str, label: str) -> dict[str, Any]:
    return {
        "source-ref": f"s3://{BUCKET}/{key}",
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


def _mask(key: str, name: str, color: str) -> dict[str, Any]:
    return {
        "anomaly-mask-ref": f"s3://{BUCKET}/{key}",
        "anomaly-mask-ref-metadata": {
            "internal-color-map": {
                "0": {"class-name": "BACKGROUND", "hex-color": "#ffffff", "confidence": 1},
                "1": {"class-name": name, "hex-color": color, "confidence": 1},
            },
            "human-annotated": "yes",
            "type": "groundtruth/semantic-segmentation",
            "creation-date": _DATE,
            "job-name": "anomaly-mask",
        },
    }
