"""Turns bytes into pixels, refusing what is not a plain, whole JPEG or PNG of a permitted size.

The type is decided by the content. The size is read from the header, and refused, before any pixel is
decoded, and the chunks of a PNG are walked before anything inflates them: neither a picture that claims a
billion pixels nor one with gigabytes of text costs memory. Every mode becomes 8-bit RGB, turned upright as
its EXIF orientation says: transparent pixels are laid on white, 16-bit greys are scaled to 8.
"""

import io
import struct
import warnings
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps

from airflow_provider_lookoutvision.engine.errors import UnusableImage

MIN_SIDE, MAX_SIDE = 64, 4096
MAX_BYTES = 64 * 1024 * 1024
_MAX_CHUNKS = 100_000
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
# What is needed to draw a picture; text, profiles and the like are dropped before Pillow sees them.
_DRAWING_CHUNKS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"eXIf", b"IEND"}
_SIXTEEN_BIT = {"I;16", "I;16B", "I;16L", "I"}

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Picture:
    """An image decoded to a working size: `pixels` is `rows x columns x 3`; `width` and `height` are the
    original's.
    """

    pixels: Pixels
    width: int
    height: int


def opened(content: bytes, *, min_side: int = MIN_SIDE, max_side: int = MAX_SIDE) -> Image.Image:
    """The image, its header read and its size checked, its pixels not yet decoded.

    :param content: a JPEG or a PNG
    :raises UnusableImage: it is neither, or is damaged, or a side is out of `min_side..max_side` pixels
    """
    if len(content) > MAX_BYTES:
        raise UnusableImage(f"the file has {len(content)} bytes, more than {MAX_BYTES}; make it smaller")
    if content.startswith(_PNG):
        kind, content = "PNG", _only_drawing_chunks(content)
    elif content.startswith(_JPEG):
        kind = "JPEG"
    else:
        raise UnusableImage("the file is neither a JPEG nor a PNG, whatever its name says; convert it to one")
    try:
        with warnings.catch_warnings():
            # The limits below are stricter than the ones Pillow warns about.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content), formats=[kind])
    except Exception as error:
        raise UnusableImage(
            f"the header of the {kind} cannot be read ({error}); save the image anew"
        ) from error
    width, height = image.size
    if not (min_side <= width <= max_side and min_side <= height <= max_side):
        raise UnusableImage(
            f"the image has {width} x {height} pixels; each side must have {min_side} to {max_side}"
        )
    return image


def size(content: bytes) -> tuple[int, int]:
    """Width and height in pixels, of the image turned upright, without decoding it.

    :raises UnusableImage: as `opened` does
    """
    image = opened(content)
    width, height = image.size
    return (height, width) if _lies_on_its_side(image) else (width, height)


def decode(content: bytes, width: int | None = None, height: int | None = None) -> Picture:
    """The pixels of a JPEG or PNG, upright and RGB, resized to `width x height` where those are given.

    :raises UnusableImage: the content is not a whole JPEG or PNG with sides of 64 to 4096 pixels
    """
    image = opened(content)
    original = image.size
    turned = _lies_on_its_side(image)
    if turned:
        original = (original[1], original[0])
    if width is not None and height is not None:
        # A JPEG can be decoded at a half, a quarter or an eighth of its size for less than the whole costs.
        image.draft("RGB", (height, width) if turned else (width, height))
    _load(image)
    upright = ImageOps.exif_transpose(image)
    rgb = _rgb(upright)
    if width is not None and height is not None and rgb.size != (width, height):
        rgb = rgb.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=3.0)
    return Picture(np.asarray(rgb), *original)


def _load(image: Image.Image) -> None:
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        # A switch of the whole process, which someone else may have turned.
        raise UnusableImage("truncated images are let through in this process; unset LOAD_TRUNCATED_IMAGES")
    try:
        image.load()
    except Exception as error:
        raise UnusableImage(f"the image is damaged or cut short ({error}); upload it anew") from error


def _lies_on_its_side(image: Image.Image) -> bool:
    try:
        return image.getexif().get(0x0112) in (5, 6, 7, 8)
    except Exception:
        # A damaged EXIF block says nothing about which way is up.
        return False


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode in _SIXTEEN_BIT:
        deep = np.clip(np.asarray(image), 0, 65535)
        return Image.fromarray((deep // 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layered = image.convert("RGBA")
        ground = Image.new("RGBA", layered.size, (255, 255, 255, 255))
        return Image.alpha_composite(ground, layered).convert("RGB")
    return image.convert("RGB")


def _only_drawing_chunks(content: bytes) -> bytes:
    kept, position, chunks = [_PNG], len(_PNG), 0
    while position < len(content):
        chunks += 1
        header = content[position : position + 8]
        if len(header) < 8 or chunks > _MAX_CHUNKS:
            raise UnusableImage("the PNG is damaged or cut short; upload it anew")
        length, name = struct.unpack(">I4s", header)
        end = position + 12 + length
        if end > len(content):
            raise UnusableImage("the PNG is cut short; upload it anew")
        if name in _DRAWING_CHUNKS:
            kept.append(content[position:end])
        position = end
        if name == b"IEND":
            return b"".join(kept)
    raise UnusableImage("the PNG is cut short; upload it anew")


def encode_png(pixels: Pixels) -> bytes:
    """An RGB or grey PNG of these pixels."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=zlib.Z_BEST_SPEED)
    return stream.getvalue()
