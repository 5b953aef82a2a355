"""Models small enough to be trained within seconds, and the components that are made of them.

========= ==========================================================================
name      what it is
========= ==========================================================================
classes   two classes of defects with masks, images of 128 x 96 pixels
wide      one class with masks, images of 400 x 150 pixels
plain     defects without masks, images of 96 x 96 pixels
normal    normal images only, which leaves it uncalibrated, of 64 x 80 pixels
========= ==========================================================================
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from airflow_provider_lookoutvision import engine
from airflow_provider_lookoutvision.engine import AnomalyClass
from airflow_provider_lookoutvision.server.packaging import packaging_process

SCRATCH, STAIN = AnomalyClass("scratch", "#FF0000"), AnomalyClass("stain", "#00FF7F")


@dataclass(frozen=True)
class Kind:
    size: tuple[int, int]
    classes: tuple[AnomalyClass, ...] = ()
    anomalies: int = 12
    seed: int = 0


KINDS = {
    "classes": Kind((128, 96), (SCRATCH, STAIN)),
    "wide": Kind((400, 150), (SCRATCH,), seed=1),
    "plain": Kind((96, 96), seed=2),
    "normal": Kind((64, 80), anomalies=0, seed=3),
}


def draw(kind: Kind, number: int, defect: AnomalyClass | None) -> tuple[Image.Image, Image.Image]:
    """A grey plate with a grain, perhaps one with a defect, and the defect alone."""
    width, height = kind.size
    generator = np.random.default_rng([kind.seed, number, 0 if defect is None else 1])
    grain = generator.normal(140, 9, (height, width, 1)) + generator.normal(0, 3, (height, width, 3))
    image = Image.fromarray(np.clip(grain, 0, 255).astype(np.uint8))
    mask = Image.new("RGB", kind.size, "white")
    if defect is not None:
        x, y = (generator.uniform(0.2, 0.5) * side for side in kind.size)
        box = (x, y, x + width * 0.3, y + height * 0.25)
        for canvas, color in ((image, (25, 20, 20)), (mask, defect.color)):
            if defect == SCRATCH:
                ImageDraw.Draw(canvas).line(box, fill=color, width=max(5, height // 16))
            else:
                ImageDraw.Draw(canvas).ellipse(box, fill=(235, 225, 180) if canvas is image else color)
    return image, mask


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def train(name: str, folder: Path, cache: Path) -> None:
    kind = KINDS[name]
    defects = [None] * 12 + [
        (kind.classes or (SCRATCH, STAIN))[n % max(len(kind.classes), 1)] for n in range(kind.anomalies)
    ]
    drawn = [draw(kind, number, defect) for number, defect in enumerate(defects)]
    engine.train(
        [encoded(image) for image, _ in drawn],
        ["anomaly" if defect else "normal" for defect in defects],
        [
            encoded(mask) if defect and kind.classes else None
            for (_, mask), defect in zip(drawn, defects, strict=True)
        ],
        list(kind.classes),
        folder,
        cache=cache,
        hyperparameters=engine.Hyperparameters(224, "plain"),
    )


def artifact(folder: Path) -> bytes:
    """A trained model as the service stores it."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, path.name)
    return content.getvalue()


def task(name: str, version: str = "1.0.0") -> Mapping[str, Any]:
    return {
        "component": {"name": name, "version": version, "description": None, "tags": []},
        "model": {
            "arn": f"arn:aws:lookoutvision:eu-central-1:123456789012:model/{name}/1",
            "project": name,
            "version": "1",
        },
        "threshold": 0.5,
        "metrics": {"F1Score": 1.0, "Recall": 1.0, "Precision": 1.0},
        "target": {
            "os": "LINUX",
            "arch": "X86_64",
            "accelerator": None,
            "device": None,
            "compiler_options": {},
        },
    }


def package(model: Path, work: Path, data_dir: Path, name: str, version: str = "1.0.0") -> Path:
    """The archive of a component, made as the service's child process makes it."""
    work.mkdir(parents=True)
    (work / "task.json").write_text(json.dumps(task(name, version)))
    (work / "artifact.zip").write_bytes(artifact(model))
    said = io.StringIO()
    os.environ["LOOKOUTVISION_DATA_DIR"] = str(data_dir)
    try:
        packaging_process.main(work, said)
    finally:
        del os.environ["LOOKOUTVISION_DATA_DIR"]
    assert json.loads(said.getvalue()) == {"packaged": True}, said.getvalue()
    return work / "component.zip"


def unpack(archive: Path, root: Path, name: str, version: str = "1.0.0") -> Path:
    """Unpack it where Greengrass would."""
    folder = root / name / version / f"{name}-{version}"
    with zipfile.ZipFile(archive) as content:
        content.extractall(folder)
    return folder


def held_out(name: str) -> list[Image.Image]:
    """Images that the model has not seen, with and without defects."""
    kind = KINDS[name]
    defects = [None, *(kind.classes or (SCRATCH, STAIN))]
    return [draw(kind, 1000 + number, defects[number % len(defects)])[0] for number in range(9)]
