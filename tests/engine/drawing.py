"""Draws parts to inspect: grey plates with a grain, some of them scratched or stained, and the masks of
that."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from airflow_provider_lookoutvision.engine import AnomalyClass, Detector, TrainingReport

SCRATCH, STAIN = "#ff0000", "#00FF7f"
CLASSES = [AnomalyClass("scratch", SCRATCH.upper()), AnomalyClass("stain", STAIN)]


@dataclass(frozen=True)
class Trained:
    detector: Detector
    report: TrainingReport
    folder: Path
    progress: list[tuple[float, str]]


@dataclass(frozen=True)
class Part:
    image: bytes
    mask: bytes
    truth: np.ndarray


def png(image: Image.Image, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG", **options)
    return stream.getvalue()


def jpeg(image: Image.Image, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", **{"quality": 92, **options})
    return stream.getvalue()


def part(seed: int, defect: str | None = None, width: int = 128, height: int = 96, wide: float = 3) -> Part:
    """A part, with a "scratch" or a "stain" or nothing wrong."""
    generator = np.random.default_rng(seed)
    grain = generator.normal(0, 10, (height, width))
    image = Image.fromarray(np.clip(128 + grain, 0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(1))
    image = image.convert("RGB")
    draw = ImageDraw.Draw(image)
    middle = width / 2 + generator.uniform(-3, 3), height / 2 + generator.uniform(-3, 3)
    radius = min(width, height) * 0.35
    draw.ellipse(
        [middle[0] - radius, middle[1] - radius, middle[0] + radius, middle[1] + radius], outline=(70,) * 3
    )
    mask = Image.new("RGBA", (width, height), (0, 0, 0, 0))
    paint = ImageDraw.Draw(mask)
    x, y = generator.uniform(0.25, 0.6) * width, generator.uniform(0.25, 0.6) * height
    if defect == "scratch":
        across, down = generator.uniform(0.15, 0.3) * width, generator.uniform(-0.2, 0.2) * height
        draw.line([x, y, x + across, y + down], fill=(20, 20, 20), width=int(wide))
        paint.line([x, y, x + across, y + down], fill=SCRATCH, width=int(wide))
    if defect == "stain":
        box = [x, y, x + generator.uniform(0.12, 0.2) * width, y + generator.uniform(0.12, 0.2) * height]
        draw.ellipse(box, fill=(235, 225, 180))
        paint.ellipse(box, fill=STAIN)
    pixels = np.asarray(mask)
    truth = np.where(pixels[..., 3] == 0, 0, np.where(pixels[..., 0] == 255, 1, 2)).astype(np.uint8)
    return Part(jpeg(image), png(mask), truth)
