"""Draws the parts that models here learn from: small grey plates, and scratched ones."""

from __future__ import annotations

import io
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

SIDE = 64
COLOR = "#2CA02C"  # of a scratch, in masks


@cache
def drawn(number: int, *, scratched: bool = False, side: int = SIDE) -> tuple[bytes, bytes]:
    """A grey plate with a grain, perhaps a scratched one, as a JPEG; and the scratch alone as a PNG mask."""
    generator = np.random.default_rng([number, scratched])
    grain = generator.normal(140, 8, (side, side, 1)).repeat(3, axis=2)
    image = Image.fromarray(np.clip(grain, 0, 255).astype(np.uint8))
    mask = Image.new("RGB", image.size, "white")
    if scratched:
        y = int(generator.integers(side // 4, side * 3 // 4))
        scratch = (side // 8, y, side * 7 // 8, side - y)
        ImageDraw.Draw(image).line(scratch, fill=(20, 20, 20), width=side // 10)
        ImageDraw.Draw(mask).line(scratch, fill=COLOR, width=side // 10)
    return encoded(image, "JPEG"), encoded(mask, "PNG")


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()
