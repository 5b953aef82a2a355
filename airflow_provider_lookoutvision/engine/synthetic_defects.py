"""Synthetic defects in images of normal parts, to choose features by: no model is trained on them.

They are the usual ones of the literature: a piece of an image pasted elsewhere (Li et al. 2021, "CutPaste"),
a scratch, a blot, and a place where the pattern is missing. They are drawn mildly, so that not every choice
of features finds all of them, and in two sizes: some features see large ones alone.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter


def paste(image: Image.Image, other: Image.Image, rng: np.random.Generator, scale: float) -> Image.Image:
    """A piece of another image, upside down, somewhere else."""
    result = image.copy()
    box = _box(image, 0.04 * scale, 0.12 * scale, rng)
    elsewhere = _random_box(box[2] - box[0], box[3] - box[1], image, rng)
    piece = other.crop(elsewhere).transpose(Image.Transpose.ROTATE_180)
    result.paste(piece, box[:2])
    return result


def scratch(image: Image.Image, _: Image.Image, rng: np.random.Generator, scale: float) -> Image.Image:
    """A crooked line, lighter or darker."""
    side = _side(image)
    mask = Image.new("L", image.size)
    x, y = rng.uniform(0.1, 0.9) * image.width, rng.uniform(0.1, 0.9) * image.height
    angle, length = rng.uniform(0, 2 * np.pi), side * rng.uniform(0.06, 0.2) * scale
    points = [(x, y)]
    for _step in range(4):
        angle += rng.uniform(-0.5, 0.5)
        x, y = x + length / 4 * np.cos(angle), y + length / 4 * np.sin(angle)
        points.append((x, y))
    ImageDraw.Draw(mask).line(points, 255, max(1, round(side * rng.uniform(0.004, 0.012))))
    return _shaded(image, mask.filter(ImageFilter.GaussianBlur(0.002 * side)), rng.uniform(25, 60), rng)


def blot(image: Image.Image, _: Image.Image, rng: np.random.Generator, scale: float) -> Image.Image:
    """A soft spot, lighter or darker."""
    mask = Image.new("L", image.size)
    ImageDraw.Draw(mask).ellipse(_box(image, 0.03 * scale, 0.1 * scale, rng), fill=255)
    soft = mask.filter(ImageFilter.GaussianBlur(0.008 * _side(image)))
    return _shaded(image, soft, rng.uniform(20, 50), rng)


def missing(image: Image.Image, _: Image.Image, rng: np.random.Generator, scale: float) -> Image.Image:
    """A place without its pattern."""
    result = image.copy()
    box = _box(image, 0.04 * scale, 0.1 * scale, rng)
    blurred = image.crop(box).filter(ImageFilter.GaussianBlur(max(box[2] - box[0], box[3] - box[1]) / 3))
    result.paste(blurred, box[:2])
    return result


# Of an image, another one, a generator and the scale, 1 or less: a copy of the image with a defect.
Defect = Callable[[Image.Image, Image.Image, np.random.Generator, float], Image.Image]
KINDS: tuple[Defect, ...] = (paste, scratch, blot, missing)
SCALES = (1.0, 0.4)


def _side(image: Image.Image) -> float:
    return float((image.width * image.height) ** 0.5)


def _box(
    image: Image.Image, least: float, most: float, rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """A box anywhere, with sides of these fractions of the image's."""
    width, height = (max(2, int(_side(image) * rng.uniform(least, most))) for _ in range(2))
    return _random_box(width, height, image, rng)


def _random_box(
    width: int, height: int, image: Image.Image, rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """A box of this size, anywhere in the image: left, top, right, bottom."""
    left, top = int(rng.integers(0, image.width - width)), int(rng.integers(0, image.height - height))
    return left, top, left + width, top + height


def _shaded(image: Image.Image, mask: Image.Image, by: float, rng: np.random.Generator) -> Image.Image:
    signed = by * rng.choice([-1, 1])
    pixels = np.asarray(image, np.float32) + signed * np.asarray(mask, np.float32)[..., None] / 255
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
