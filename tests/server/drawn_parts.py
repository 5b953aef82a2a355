"""Draws the parts that models here learn from: small grey plates, and scratched ones."""

from __future__ import annotations

import io
import struct
import zlib
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


def turned(image: Image.Image) -> bytes:
    """A JPEG whose EXIF orientation says that it is to be turned by a quarter."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(image, "JPEG", exif=exif)


def png16(values: np.ndarray) -> bytes:
    """A PNG with 16 bits a channel, which Pillow doesn't write: grey, ``height x width``, or RGB."""
    height, width = values.shape[:2]
    rows = values.astype(">u2").reshape(height, -1)
    colour = 2 if values.ndim == 3 else 0
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    pixels = b"".join(b"\0" + row.tobytes() for row in rows)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(pixels)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )
