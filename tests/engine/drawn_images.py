"""Images to train and test on: drawings of grainy grey plates, some scratched or stained, with masks."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from airflow_provider_lookoutvision.engine import AnomalyClass, Detector, Label, TrainingReport

SCRATCH, STAIN = "#ff0000", "#00FF7f"
CLASSES = [AnomalyClass("scratch", SCRATCH.upper()), AnomalyClass("stain", STAIN)]


@dataclass(frozen=True)
class TrainedModel:
    detector: Detector
    report: TrainingReport
    folder: Path
    progress: list[tuple[float, str]]


@dataclass(frozen=True)
class Drawing:
    image: bytes
    mask: bytes
    class_mask: np.ndarray


@dataclass(frozen=True)
class LabelledImages:
    drawings: list[Drawing]
    labels: list[Label]

    @property
    def images(self) -> list[bytes]:
        return [drawing.image for drawing in self.drawings]

    @property
    def masks(self) -> list[bytes | None]:
        """Of the anomalous images alone."""
        pairs = zip(self.drawings, self.labels, strict=True)
        return [drawing.mask if label == "anomaly" else None for drawing, label in pairs]

    @property
    def no_masks(self) -> list[None]:
        return [None] * len(self.labels)


def png(image: Image.Image, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG", **options)
    return stream.getvalue()


def jpeg(image: Image.Image, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", **{"quality": 92, **options})
    return stream.getvalue()


def draw_plate(
    seed: int, defect: str | None = None, width: int = 128, height: int = 96, line_width: int = 3
) -> Drawing:
    """A plate with a "scratch", a "stain" or no defect."""
    rng = np.random.default_rng(seed)
    grain = rng.normal(0, 10, (height, width))
    image = Image.fromarray(np.clip(128 + grain, 0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(1))
    image = image.convert("RGB")
    draw = ImageDraw.Draw(image)
    centre = width / 2 + rng.uniform(-3, 3), height / 2 + rng.uniform(-3, 3)
    radius = min(width, height) * 0.35
    draw.ellipse(
        [centre[0] - radius, centre[1] - radius, centre[0] + radius, centre[1] + radius], outline=(70,) * 3
    )
    mask = Image.new("RGBA", (width, height), (0, 0, 0, 0))
    mask_draw = ImageDraw.Draw(mask)
    x, y = rng.uniform(0.25, 0.6) * width, rng.uniform(0.25, 0.6) * height
    if defect == "scratch":
        end = x + rng.uniform(0.15, 0.3) * width, y + rng.uniform(-0.2, 0.2) * height
        draw.line([x, y, *end], fill=(20, 20, 20), width=line_width)
        mask_draw.line([x, y, *end], fill=SCRATCH, width=line_width)
    if defect == "stain":
        box = [x, y, x + rng.uniform(0.12, 0.2) * width, y + rng.uniform(0.12, 0.2) * height]
        draw.ellipse(box, fill=(235, 225, 180))
        mask_draw.ellipse(box, fill=STAIN)
    pixels = np.asarray(mask)
    class_mask = np.where(pixels[..., 3] == 0, 0, np.where(pixels[..., 0] == 255, 1, 2)).astype(np.uint8)
    return Drawing(jpeg(image), png(mask), class_mask)


def draw_all(
    defects: Sequence[str | None],
    first_seed: int = 0,
    draw: Callable[[int, str | None], Drawing] = draw_plate,
) -> LabelledImages:
    """A drawing for each entry, anomalous where it names a defect; the seeds follow one another."""
    return LabelledImages(
        [draw(seed, defect) for seed, defect in enumerate(defects, start=first_seed)],
        ["anomaly" if defect else "normal" for defect in defects],
    )
