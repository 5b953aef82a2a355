"""Pictures of plates, clean ones and spotted ones, and models that tell them apart.

``train_quickly`` takes about three seconds, ``train_with_masks`` about twenty.
"""

from __future__ import annotations

import io
import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import numpy as np
from PIL import Image, ImageDraw

from airflow_provider_lookoutvision.model import register_service_model
from airflow_provider_lookoutvision.testing.service import Key, Service

BUCKET = "plates"
SIZE = 64
SOON = {"Delay": 0.2, "MaxAttempts": 900}
Pictures = Sequence[tuple[int, bool, str | None]]  # a number, whether it is spotted, and another label
# What a model is trained with quickly.
QUICKLY: Mapping[str, Pictures] = {
    "train": [(number, False, None) for number in range(10)],
    "test": [(number, number >= 22, "anomaly" if number >= 20 else "normal") for number in range(10, 30)],
}
# A clean plate that is labelled an anomaly, twice among ten: no model finds them.
QUICK_F1 = 2 * 1.0 * 0.8 / 1.8


@dataclass(frozen=True)
class Account:
    """An account of the service that no other test has, since trainings are limited for each."""

    service: Service
    key: Key
    client: Any

    @classmethod
    def of(cls, service: Service) -> Account:
        key = service.new_key(account=f"{secrets.randbelow(10**12):012}")
        session = boto3.Session(key.access_key_id, key.secret_access_key, region_name="eu-central-1")
        return cls(
            service,
            key,
            register_service_model(session).client("lookoutvision", endpoint_url=service.endpoint_url),
        )

    @classmethod
    def with_a_model(cls, service: Service) -> Account:
        """One whose project "plates" has one trained model."""
        account = cls.of(service)
        account.project()
        assert account.train() == "1"
        return account

    def project(self, name: str = "plates", masks: bool = False) -> str:
        """Make a project with datasets; with masks there are enough for a model that draws some itself."""
        self.client.create_project(ProjectName=name)
        if masks:
            self._dataset(name, "train", [(number, number % 2 == 0, None) for number in range(40)], masks)
        else:
            for dataset_type, pictures in QUICKLY.items():
                self._dataset(name, dataset_type, pictures)
        return name

    def train(self, project_name: str = "plates") -> str:
        """Train a model, and return its version."""
        version = self.begin_training(project_name)
        self.wait("model_trained", project_name, version)
        return version

    def begin_training(self, project_name: str = "plates") -> str:
        output = {"S3Location": {"Bucket": BUCKET, "Prefix": "evaluation/"}}
        answer = self.client.create_model(ProjectName=project_name, OutputConfig=output)
        return str(answer["ModelMetadata"]["ModelVersion"])

    def start(self, project_name: str, version: str, units: int = 1) -> None:
        self.client.start_model(ProjectName=project_name, ModelVersion=version, MinInferenceUnits=units)
        self.wait("model_hosted", project_name, version)

    def wait(self, waiter: str, project_name: str, version: str) -> None:
        waiting = self.client.get_waiter(waiter)
        waiting.wait(ProjectName=project_name, ModelVersion=version, WaiterConfig=SOON)

    def statuses(self, project_name: str = "plates") -> dict[str, str]:
        models = self.client.list_models(ProjectName=project_name)["Models"]
        return {model["ModelVersion"]: model["Status"] for model in models}

    def write_manifest(self, key: str, pictures: Pictures, masks: bool = False) -> None:
        """Draw pictures beside a key of the bucket, and write their manifest there."""
        folder = (self.bucket / key).parent
        folder.mkdir(parents=True, exist_ok=True)
        lines = []
        for number, spotted, label in pictures:
            image, mask = _draw(number, spotted, "PNG")
            (folder / f"{number}-{spotted}.png").write_bytes(image)
            (folder / f"{number}-mask.png").write_bytes(mask)
            lines.append(json.dumps(dict(_entry(number, spotted, label, masks))))
        (self.bucket / key).write_text("\n".join(lines))

    @property
    def bucket(self) -> Path:
        """The folder of the bucket."""
        return self.service.data_dir / "buckets" / BUCKET

    def _dataset(self, project_name: str, dataset_type: str, pictures: Pictures, masks: bool = False) -> None:
        key = f"{self.key.account}/{project_name}-{dataset_type}.manifest"
        self.write_manifest(key, pictures, masks)
        source = {"GroundTruthManifest": {"S3Object": {"Bucket": BUCKET, "Key": key}}}
        names = {"ProjectName": project_name, "DatasetType": dataset_type}
        self.client.create_dataset(**names, DatasetSource=source)
        self.client.get_waiter("dataset_created").wait(**names, WaiterConfig=SOON)


def plate(seed: int, spotted: bool = False, kind: str = "PNG") -> bytes:
    """A plate that no training has seen."""
    return _draw(1000 + seed, spotted, kind)[0]


def _draw(seed: int, spotted: bool, kind: str) -> tuple[bytes, bytes]:
    generator = np.random.default_rng(seed)
    grain = generator.normal(150, 6, (SIZE, SIZE, 3)).clip(0, 255).astype(np.uint8)
    image, mask = Image.fromarray(grain), Image.new("RGB", (SIZE, SIZE), "#FFFFFF")
    if spotted:
        x, y = generator.uniform(8, SIZE - 24, 2)
        for picture, color in ((image, "#191919"), (mask, "#FF0000")):
            ImageDraw.Draw(picture).ellipse([x, y, x + 16, y + 16], fill=color)
    return _bytes(image, kind), _bytes(mask, "PNG")


def _bytes(image: Image.Image, kind: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def _entry(number: int, spotted: bool, label: str | None, masks: bool) -> Iterator[tuple[str, Any]]:
    yield "source-ref", f"{number}-{spotted}.png"  # beside the manifest
    yield "label", int(spotted)
    name = label or ("anomaly" if spotted else "normal")
    yield "label-metadata", {"class-name": name, "type": "groundtruth/image-classification"}
    if masks and spotted:
        yield "mask-ref", f"{number}-mask.png"
        colors = {"0": {"class-name": "spot", "hex-color": "#FF0000", "confidence": 0}}
        kind = "groundtruth/semantic-segmentation"
        yield "mask-ref-metadata", {"type": kind, "internal-color-map": colors}
