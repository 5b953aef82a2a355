"""Machined parts, drawn: good ones, scratched ones and dented ones, with the masks of the defects.

Each part is a turned steel disc with a bore, at its own angle, under its own light. The same seed draws the
same bytes.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIZE = 320
# Radii in pixels: of the part, of its bore, of the ring where its three holes are, of a hole.
_OUTER, _BORE, _MIDDLE, _HOLE = 142, 38, 96, 14
_GROUND = 60
COLORS = {"scratch": "#FF8A00", "dent": "#0096FF"}


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
    surface, holes = _disc(rng)
    covered = np.zeros((SIZE, SIZE), bool)
    if defect == "scratch":
        covered = _scratch(surface, holes, rng)
    elif defect == "dent":
        covered = _dent(surface, holes, rng)
    noise = rng.normal(0, 3, (SIZE, SIZE))
    grey = np.clip(surface + noise, 0, 255).astype(np.uint8)
    image = Image.fromarray(np.stack([grey, grey, np.clip(grey * 1.04, 0, 255).astype(np.uint8)], axis=-1))
    if defect is None:
        return Part(name, _png(image), None, None)
    mask = Image.new("RGB", (SIZE, SIZE), "#FFFFFF")
    mask.paste(COLORS[defect], mask=Image.fromarray(covered.astype(np.uint8) * 255))
    return Part(name, _png(image), defect, _png(mask))


def _disc(rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """The part's brightness, and the angle of its first hole."""
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE / 2
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    light = rng.uniform(0, 2 * np.pi)
    turned = 4 * np.sin(radius * 1.1) + 18 * np.cos(2 * (angle - light))
    disc = rng.uniform(140, 162) + turned
    # An edge that is turned down catches the light on one side.
    for edge in (_OUTER, _BORE):
        bevel = np.exp(-(((radius - edge) / 3) ** 2))
        disc += 45 * bevel * np.cos(angle - light)
    holes = np.zeros_like(radius, bool)
    start = rng.uniform(0, 2 * np.pi)
    for third in range(3):
        place = start + third * 2 * np.pi / 3
        holes |= np.hypot(x - _MIDDLE * np.cos(place), y - _MIDDLE * np.sin(place)) < _HOLE
    inside = (radius < _OUTER) & (radius > _BORE) & ~holes
    return np.where(inside, disc, 42.0), start


def _scratch(surface: np.ndarray, holes: float, rng: np.random.Generator) -> np.ndarray:
    middle = np.array(_place(holes, rng))
    direction = rng.uniform(0, 2 * np.pi)
    steps = np.linspace(-1, 1, 9)[:, None] * rng.uniform(24, 40)
    line = middle + steps * [np.cos(direction), np.sin(direction)] + rng.normal(0, 1.8, (9, 2))
    points = [(float(x), float(y)) for x, y in line]
    bright, marked = Image.new("L", (SIZE, SIZE)), Image.new("L", (SIZE, SIZE))
    ImageDraw.Draw(bright).line(points, fill=255, width=5, joint="curve")
    # A scratch that is marked by hand is marked a little too wide.
    ImageDraw.Draw(marked).line(points, fill=255, width=11, joint="curve")
    on_part = surface > _GROUND
    depth = np.asarray(bright.filter(ImageFilter.GaussianBlur(0.8)), float) / 255
    surface += np.where(on_part, depth * rng.uniform(55, 80), 0)
    return (np.asarray(marked) > 0) & on_part


def _dent(surface: np.ndarray, holes: float, rng: np.random.Generator) -> np.ndarray:
    (x, y), size = _place(holes, rng), rng.uniform(14, 21)
    picture = Image.new("L", (SIZE, SIZE))
    ImageDraw.Draw(picture).ellipse((x - size, y - size * 0.8, x + size, y + size * 0.8), fill=255)
    covered = (np.asarray(picture) > 0) & (surface > _GROUND)
    depth = np.asarray(picture.filter(ImageFilter.GaussianBlur(5)), float) / 255
    surface -= np.where(covered, depth * rng.uniform(60, 85), 0)
    return covered


def _place(holes: float, rng: np.random.Generator) -> tuple[float, float]:
    """Somewhere on the ring between the bore and the edge, and not in a hole: nobody could see it there."""
    place = holes + np.pi / 3 + rng.integers(3) * 2 * np.pi / 3 + rng.uniform(-0.6, 0.6)
    return SIZE / 2 + _MIDDLE * float(np.cos(place)), SIZE / 2 + _MIDDLE * float(np.sin(place))


def _png(image: Image.Image) -> bytes:
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()
