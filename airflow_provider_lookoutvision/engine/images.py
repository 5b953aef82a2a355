"""Reads and decodes images: JPEG and PNG files to 8-bit RGB pixels, upright.

The file type is decided by the content. The size is checked in the header before any pixel is decoded, and
metadata is dropped unread: neither an image that claims a billion pixels nor one with gigabytes of text costs
memory. The EXIF orientation is applied, transparent pixels are blended with white, and 16-bit grey is scaled
to 8 bits, or taken as it is when no value needs more: some cameras and tools write 8-bit values so. An image
is resized before it is converted to RGB, so that a large one is never in memory more than twice.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from airflow_provider_lookoutvision.engine import image_containers
from airflow_provider_lookoutvision.engine.errors import UnusableImage

MIN_SIDE, MAX_SIDE = 64, 4096
_DRAFT_FACTOR = 2
MAX_BYTES = 64 * 1024 * 1024
_SIXTEEN_BIT_MODES = {"I;16", "I;16B", "I;16L", "I"}
_ORIENTATION_TAG = 0x0112
# What turns an image upright, by its EXIF orientation.
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = {5, 6, 7, 8}
_BIT_DEPTH, _BIT_DEPTH_OFFSET = "bit depth", 24

Pixels = NDArray[np.uint8]
ImageSource = bytes | Path | Callable[[], bytes]


@dataclass(frozen=True)
class DecodedImage:
    """An image, decoded and resized.

    :param pixels: `rows x columns x 3`, RGB, 0 to 255
    :param width: of the original image, upright, in pixels
    :param height: of the original image, upright, in pixels
    :param turned: whether its EXIF orientation exchanges the width and height that are stored
    :param original: the upright image at its own resolution, in grey, RGB or RGBA; None unless it was to be
        kept, and where a JPEG was decoded at a fraction of it
    """

    pixels: Pixels
    width: int
    height: int
    turned: bool = False
    original: Image.Image | None = None


def read_source(source: ImageSource) -> bytes:
    """The bytes of an image file, given as bytes, as a path, or as a function that returns the bytes.

    :raises UnusableImage: the file cannot be read
    """
    if isinstance(source, bytes):
        return source
    if callable(source):
        return source()
    try:
        return source.read_bytes()
    except OSError as error:
        raise UnusableImage(f"the file cannot be read: {error.strerror}") from error


def open_image(content: bytes, *, min_side: int = MIN_SIDE, max_side: int = MAX_SIDE) -> Image.Image:
    """Read the header and check the size; the pixels are not yet decoded.

    :param content: a JPEG or PNG file
    :param min_side: the least width and height in pixels
    :param max_side: the greatest width and height in pixels
    :raises UnusableImage: the file is neither, is damaged or too large, or a side is out of range
    """
    if len(content) > MAX_BYTES:
        raise UnusableImage(f"the file has {len(content)} bytes, more than {MAX_BYTES}; make it smaller")
    content = image_containers.strip_metadata(content)
    kind: type[ImageFile.ImageFile] = (
        PngImageFile if content.startswith(image_containers.PNG) else JpegImageFile
    )
    try:
        # Not Image.open: it warns about large images, and warnings can only be silenced for the whole
        # process.
        image = kind(io.BytesIO(content))
    except Exception as error:
        raise UnusableImage(
            f"the header of the {kind.format} cannot be read ({error}); save the image anew"
        ) from error
    if kind is PngImageFile:
        image.info[_BIT_DEPTH] = content[_BIT_DEPTH_OFFSET]
    width, height = image.size
    if not (min_side <= width <= max_side and min_side <= height <= max_side):
        raise UnusableImage(
            f"the image has {width} x {height} pixels; each side must have {min_side} to {max_side}"
        )
    return image


def image_size(content: bytes) -> tuple[int, int]:
    """Width and height in pixels of the upright image; the pixels are not decoded.

    :raises UnusableImage: as `open_image`
    """
    image = open_image(content)
    width, height = image.size
    return (height, width) if _orientation(image) in _SIDEWAYS else (width, height)


def describe_size(width: int, height: int, *, turned: bool) -> str:
    """The size of an upright image for a message, with the orientation that others may not see."""
    note = f" (upright: its EXIF orientation turns the {height} x {width} that are stored)" if turned else ""
    return f"{width} x {height} pixels{note}"


def is_turned(content: bytes) -> bool:
    """Whether the EXIF orientation of an image exchanges its width and height.

    :raises UnusableImage: as `open_image`
    """
    return _orientation(open_image(content)) in _SIDEWAYS


def halved(pixels: Pixels) -> Pixels:
    """An image at half its height and width, which are even: each pixel the mean of two times two."""
    rows, columns = pixels.shape[0] // 2, pixels.shape[1] // 2
    means = pixels.reshape(rows, 2, columns, 2, 3).mean(axis=(1, 3), dtype=np.float32)
    result: Pixels = np.rint(means).astype(np.uint8)
    return result


def decode(
    content: bytes, width: int | None = None, height: int | None = None, *, keep_original: bool = False
) -> DecodedImage:
    """Decode a JPEG or PNG file, and resize it to `width x height` pixels if both are given.

    :param keep_original: whether to return the image before it was resized too
    :raises UnusableImage: the file is not a complete JPEG or PNG with sides of 64 to 4096 pixels
    """
    image = open_image(content)
    # As stored, before the EXIF orientation is applied.
    stored_size, orientation = image.size, _orientation(image)
    turned = orientation in _SIDEWAYS
    original_size = stored_size[::-1] if turned else stored_size
    wanted_size = stored_size
    if width is not None and height is not None:
        wanted_size = (height, width) if turned else (width, height)
        # A JPEG is decoded faster at a half, a quarter or an eighth of its size, and not quite to what its
        # pixels are when they are resized. So that is for what stays twice as large as it is wanted.
        image.draft("RGB", (wanted_size[0] * _DRAFT_FACTOR, wanted_size[1] * _DRAFT_FACTOR))
    load_pixels(image, "image")
    resizable = _resizable(image)
    original = None
    if keep_original and resizable.size == stored_size:
        original = _upright(resizable, orientation)
    if resizable.size != wanted_size:
        resizable = resizable.resize(wanted_size, Image.Resampling.BILINEAR, reducing_gap=3.0)
    rgb = _upright(_rgb(resizable), orientation)
    return DecodedImage(np.asarray(rgb), *original_size, turned, original)


def decode_parts(
    content: bytes, corners: Sequence[tuple[int, int]], side: int, original: Image.Image | None = None
) -> list[Pixels]:
    """Squares of a JPEG or PNG file, at its own resolution: the same pixels as those of `decode`.

    The whole image is never in memory as RGB, which takes three times as much as grey.

    :param corners: the left and the top of each square, in pixels of the upright image
    :param side: of the squares, in pixels; they are inside of the image
    :param original: of the file, if it was decoded before and kept
    :raises UnusableImage: the file is not a complete JPEG or PNG with sides of 64 to 4096 pixels
    """
    if original is None:
        image = open_image(content)
        orientation = _orientation(image)
        load_pixels(image, "image")
        original = _upright(_resizable(image), orientation)
    return [np.asarray(_rgb(original.crop((left, top, left + side, top + side)))) for left, top in corners]


def load_pixels(image: Image.Image, what: str) -> None:
    """Decode the pixels of an opened image.

    :param what: how to call it in the error
    :raises UnusableImage: the file is damaged or truncated
    """
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        # A setting of the whole process, which other code may have changed.
        raise UnusableImage("Pillow accepts truncated images in this process; unset LOAD_TRUNCATED_IMAGES")
    try:
        image.load()
    except Exception as error:
        raise UnusableImage(f"the {what} is damaged or cut short ({error}); upload it anew") from error
    # The decoder of 16-bit colours keeps the high bytes alone.
    deep = image.info.get(_BIT_DEPTH) == 16 and image.mode in ("RGB", "RGBA")
    if deep and not any(most for _, most in _channels(image)[:3]):
        raise UnusableImage(
            f"the {what} has 16 bits a channel, and no colour is over 255 of 65535: it would be black; "
            "save it with 8 bits a channel"
        )


def _channels(image: Image.Image) -> list[tuple[float, float]]:
    """The least and the greatest value of each channel."""
    return [channel.getextrema() for channel in image.split()]  # type: ignore[misc]


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:
        # A damaged EXIF block has no orientation.
        return 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_TRANSPOSITIONS[orientation]) if orientation in _TRANSPOSITIONS else image


def _resizable(image: Image.Image) -> Image.Image:
    """The image in grey, RGB or RGBA: modes whose pixels can be averaged."""
    if image.mode in ("L", "RGB"):
        return image
    if image.mode in _SIXTEEN_BIT_MODES:
        return eight_bit(image)
    transparent = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
    return image.convert("RGBA" if transparent else "RGB")


def eight_bit(image: Image.Image) -> Image.Image:
    """A loaded image with 16-bit grey, in 8 bits: the high ones, or the low ones if that is all it has."""
    values = np.asarray(image)
    return Image.fromarray((values if values.max() < 256 else values >> 8).astype(np.uint8))


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGBA":
        background = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(background, image)
    return image if image.mode == "RGB" else image.convert("RGB")
