"""Turns bytes into pixels, refusing what is not a plain, whole JPEG or PNG of a permitted size.

The type is decided by the content. The size is read from the header, and refused, before any pixel is
decoded, and what is not needed to draw the picture is dropped unread: neither a picture that claims a billion
pixels nor one with gigabytes of text costs memory. Every mode becomes 8-bit RGB, turned upright as its EXIF
orientation says: transparent pixels are laid on white, 16-bit greys are scaled to 8. A picture is made small
before it is made RGB, so that a large one is never in memory more than twice.
"""

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from airflow_provider_lookoutvision.engine import containers
from airflow_provider_lookoutvision.engine.errors import UnusableImage

MIN_SIDE, MAX_SIDE = 64, 4096
MAX_BYTES = 64 * 1024 * 1024
_SIXTEEN_BIT = {"I;16", "I;16B", "I;16L", "I"}
# How to turn upright what is stored in each EXIF orientation.
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ON_THEIR_SIDE = {5, 6, 7, 8}

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
    content = containers.only_drawing(content)
    kind: type[ImageFile.ImageFile] = PngImageFile if content.startswith(containers.PNG) else JpegImageFile
    try:
        # Not Image.open: it warns about sizes that are refused below, and to silence that is to change a
        # state of the whole process, which threads share.
        image = kind(io.BytesIO(content))
    except Exception as error:
        raise UnusableImage(
            f"the header of the {kind.format} cannot be read ({error}); save the image anew"
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
    return (height, width) if _orientation(image) in _ON_THEIR_SIDE else (width, height)


def decode(content: bytes, width: int | None = None, height: int | None = None) -> Picture:
    """The pixels of a JPEG or PNG, upright and RGB, resized to `width x height` where those are given.

    :raises UnusableImage: the content is not a whole JPEG or PNG with sides of 64 to 4096 pixels
    """
    image = opened(content)
    lying, orientation = image.size, _orientation(image)
    original = lying[::-1] if orientation in _ON_THEIR_SIDE else lying
    if width is not None and height is not None:
        lying = (height, width) if orientation in _ON_THEIR_SIDE else (width, height)
        # A JPEG can be decoded at a half, a quarter or an eighth of its size for less than the whole costs.
        image.draft("RGB", lying)
    _load(image)
    plain = _resizable(image)
    if plain.size != lying:
        plain = plain.resize(lying, Image.Resampling.BILINEAR, reducing_gap=3.0)
    rgb = _rgb(plain)
    if orientation in _TURNS:
        rgb = rgb.transpose(_TURNS[orientation])
    return Picture(np.asarray(rgb), *original)


def _load(image: Image.Image) -> None:
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        # A switch of the whole process, which someone else may have turned.
        raise UnusableImage("truncated images are let through in this process; unset LOAD_TRUNCATED_IMAGES")
    try:
        image.load()
    except Exception as error:
        raise UnusableImage(f"the image is damaged or cut short ({error}); upload it anew") from error


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:
        # A damaged EXIF block says nothing about which way is up.
        return 1


def _resizable(image: Image.Image) -> Image.Image:
    """Grey, RGB or RGBA: modes whose pixels can be averaged."""
    if image.mode in ("L", "RGB"):
        return image
    if image.mode in _SIXTEEN_BIT:
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    transparent = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
    return image.convert("RGBA" if transparent else "RGB")


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGBA":
        ground = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(ground, image)
    return image if image.mode == "RGB" else image.convert("RGB")
