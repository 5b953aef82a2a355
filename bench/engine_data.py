"""Labelled images for the engine's benchmarks, from a folder or a manifest.

A folder has `normal/` and `anomaly/`, and may have `masks/` with a PNG named like each anomalous image. A
manifest is in Ground Truth's JSON Lines; its files are looked up by their names in --images and --masks.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from airflow_provider_lookoutvision.engine import (
    AnomalyClass,
    Detector,
    Evaluation,
    Hyperparameters,
    Label,
    TrainingReport,
    evaluate,
    train,
)


@dataclass(frozen=True)
class LabelledImages:
    images: list[Path]
    labels: list[Label]
    masks: list[Path | None]
    classes: list[AnomalyClass]

    def append(self, image: Path, label: Label, mask: Path | None) -> None:
        self.images.append(image)
        self.labels.append(label)
        self.masks.append(mask)

    def subset(self, indices: np.ndarray) -> "LabelledImages":
        return LabelledImages(
            [self.images[i] for i in indices],
            [self.labels[i] for i in indices],
            [self.masks[i] for i in indices],
            self.classes,
        )

    def train(self, out: Path, **options: Any) -> TrainingReport:
        return train(self.images, self.labels, self.masks, self.classes, out, **options)

    def evaluate(self, detector: Detector) -> Evaluation:
        return evaluate(detector, self.images, self.labels, self.masks)

    @property
    def anomalous(self) -> np.ndarray:
        return np.array([label == "anomaly" for label in self.labels])


def read_folder(folder: Path, classes: Sequence[AnomalyClass]) -> LabelledImages:
    result = LabelledImages([], [], [], list(classes))
    names: tuple[Label, ...] = ("normal", "anomaly")
    for label in names:
        for path in sorted((folder / label).iterdir()):
            mask = folder / "masks" / f"{path.stem}.png"
            result.append(path, label, mask if label == "anomaly" and mask.exists() else None)
    return result


def read_manifest(manifest: Path, images: Path, masks: Path | None) -> LabelledImages:
    result = LabelledImages([], [], [], [])
    classes: dict[str, AnomalyClass] = {}
    for line in manifest.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        label = next(
            value["class-name"]
            for value in entry.values()
            if isinstance(value, dict) and value.get("type") == "groundtruth/image-classification"
        )
        mask = None
        for key, value in entry.items():
            if isinstance(value, dict) and "internal-color-map" in value and masks:
                mask = masks / Path(entry[key.removesuffix("-metadata")]).name
                for color in value["internal-color-map"].values():
                    if color["class-name"].lower() != "background":
                        classes[color["class-name"]] = AnomalyClass(color["class-name"], color["hex-color"])
        result.append(images / Path(entry["source-ref"]).name, label, mask)
    result.classes.extend(classes.values())
    return result


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add_image_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, help="a folder or a manifest")
    parser.add_argument("--images", type=Path, help="the folder of a manifest's images")
    parser.add_argument("--masks", type=Path, help="the folder of a manifest's masks")


def read_images(options: argparse.Namespace, classes: Sequence[AnomalyClass] = ()) -> LabelledImages:
    """The images that `add_image_arguments` asks for.

    :param classes: of a folder's masks; a manifest has its own
    """
    if options.source.is_dir():
        return read_folder(options.source, classes)
    return read_manifest(options.source, options.images or options.source.parent, options.masks)


def add_hyperparameter_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--side", type=int, help="of the working size, instead of the search")
    parser.add_argument("--augment", action="store_true", help="with --side: train on rotations and mirrors")


def hyperparameters(options: argparse.Namespace) -> Hyperparameters | None:
    """Those that `add_hyperparameter_arguments` asks for; None for the search."""
    return Hyperparameters(options.side, options.augment) if options.side else None
