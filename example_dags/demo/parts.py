"""Machined parts, drawn: good ones, scratched ones and dented ones, with the masks of the defects.

Each part is a turned steel disc with a bore, at its own angle, under its own light. The same seed draws the
same bytes.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIZE = 256
COLORS = {"scratch": "#23A436", "dent": "#D6272C"}


@dataclass(frozen=True)
class Part:
    """One picture: PNG bytes, what is wrong with it (None for nothing), and the PNG mask of that."""

    name: str
    image: bytes
    defect: str | None
    mask: bytes | None


def draw(normal: int, scratched: int, dented: int, seed: int = 0) -> list[Part]:
    """Draw that many parts."""
    rng = np.random.default_rng(seed)
    defects = [None] * normal + ["scratch"] * scratched + ["dent"] * dented
    return [_draw(f"{defect or 'good'}-{number:03}", defect, rng) for number, defect in enumerate(defects)]


def _draw(name: str, defect: str | None, rng: np.random.Generator) -> Part:
    surface = _disc(rng)
    covered = np.zeros((SIZE, SIZE), bool)
    if defect == "scratch":
        covered = _scratch(surface, rng)
    elif defect == "dent":
        covered = _dent(surface, rng)
    noise = rng.normal(0, 3, (SIZE, SIZE))
    grey = np.clip(surface + noise, 0, 255).astype(np.uint8)
    image = Image.fromarray(np.stack([grey, grey, np.clip(grey * 1.04, 0, 255).astype(np.uint8)], axis=-1))
    if defect is None:
        return Part(name, _png(image), None, None)
    mask = Image.new("RGB", (SIZE, SIZE), "#FFFFFF")
    mask.paste(COLORS[defect], mask=Image.fromarray(covered.astype(np.uint8) * 255))
    return Part(name, _png(image), defect, _png(mask))


def _disc(rng: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE / 2
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    light = rng.uniform(0, 2 * np.pi)
    turned = 4 * np.sin(radius * 1.3) + 18 * np.cos(2 * (angle - light))
    disc = rng.uniform(135, 160) + turned
    holes = np.zeros_like(radius, bool)
    start = rng.uniform(0, 2 * np.pi)
    for third in range(3):
        place = start + third * 2 * np.pi / 3
        holes |= np.hypot(x - 78 * np.cos(place), y - 78 * np.sin(place)) < 11
    inside = (radius < 112) & (radius > 30) & ~holes
    return np.where(inside, disc, 42.0)


def _scratch(surface: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    place, direction = rng.uniform(0, 2 * np.pi, 2)
    middle = np.array([SIZE / 2 + 72 * np.cos(place), SIZE / 2 + 72 * np.sin(place)])
    steps = np.linspace(-1, 1, 9)[:, None] * rng.uniform(16, 28)
    line = middle + steps * [np.cos(direction), np.sin(direction)] + rng.normal(0, 1.2, (9, 2))
    picture = Image.new("L", (SIZE, SIZE))
    ImageDraw.Draw(picture).line([(float(x), float(y)) for x, y in line], fill=255, width=4)
    covered = (np.asarray(picture) > 0) & (surface > 60)
    surface[covered] += rng.uniform(45, 70)
    return covered


def _dent(surface: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    place, size = rng.uniform(0, 2 * np.pi), rng.uniform(9, 15)
    picture = Image.new("L", (SIZE, SIZE))
    x, y = SIZE / 2 + 72 * np.cos(place), SIZE / 2 + 72 * np.sin(place)
    ImageDraw.Draw(picture).ellipse((x - size, y - size * 0.8, x + size, y + size * 0.8), fill=255)
    covered = (np.asarray(picture) > 0) & (surface > 60)
    depth = np.asarray(picture.filter(ImageFilter.GaussianBlur(4)), float) / 255
    surface -= np.where(covered, depth * rng.uniform(60, 85), 0)
    return covered


def _png(image: Image.Image) -> bytes:
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()
