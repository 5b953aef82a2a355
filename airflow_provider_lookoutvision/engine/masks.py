"""Decodes segmentation masks: from a PNG file to one class index for each pixel.

Each class has its colour. White, black and everything less than half opaque is background, unless white or
black is the colour of a class. Any other colour is an error that names it. A mask may be smaller than its
image, and is then resized to it: in the same proportions, or in any if it is all background, like the white
one of 16 x 16 pixels that some tools attach to normal images.
"""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from airflow_provider_lookoutvision.engine import images
from airflow_provider_lookoutvision.engine.errors import UnusableDataset, UnusableImage

BACKGROUND = 0
_MIN_ALPHA = 128
_BACKGROUND_COLOURS = (0x000000, 0xFFFFFF)
_MIN_SIDE = 1
_BAND_ROWS = 256

ClassMask = NDArray[np.uint8]
# By class, counted from 0: the fraction of each cell that the class covers, 0 to 255, `rows x columns`.
# Classes that are not in the mask are left out.
Coverage = dict[int, NDArray[np.uint8]]


@dataclass(frozen=True)
class AnomalyClass:
    """A class of defects and its colour in the masks, "#RRGGBB"; upper and lower case are the same."""

    name: str
    color: str

    def rgb(self) -> int:
        """The colour as one number, red in the high byte.

        :raises UnusableDataset: the colour is not of the form "#RRGGBB"
        """
        digits = self.color.removeprefix("#")
        if len(digits) != 6 or not all(digit in "0123456789abcdefABCDEF" for digit in digits):
            raise UnusableDataset(f"the colour {self.color!r} of {self.name!r} is not of the form #RRGGBB")
        return int(digits, 16)


def decode(
    content: bytes, classes: Sequence[AnomalyClass], width: int, height: int, *, turned: bool = False
) -> ClassMask:
    """The class index of each pixel, `height x width`: 0 for the background, 1 for the first class, and so
    on.

    :param content: a PNG file
    :param width: of the image that the mask belongs to, in pixels
    :param height: of the image
    :param turned: whether the EXIF orientation of the image exchanges what is stored as its width and height
    :raises UnusableImage: the mask is not a complete PNG, has an unknown colour, is larger than its image, or
        has other proportions
    """
    image = _open(content)
    size = f"the mask has {image.width} x {image.height} pixels"
    image_size = images.describe_size(width, height, turned=turned)
    if image.width > width or image.height > height:
        raise UnusableImage(f"{size}, more than its image with {image_size}")
    images.load_pixels(image, "mask")
    if image.mode.startswith("I"):
        image = images.eight_bit(image)
    indices = np.empty((image.height, image.width), np.uint8)
    # In bands of rows, because the colours of the whole mask would take many times its memory.
    for top in range(0, image.height, _BAND_ROWS):
        band = image.crop((0, top, image.width, min(top + _BAND_ROWS, image.height)))
        indices[top : top + _BAND_ROWS] = _indices(np.asarray(band.convert("RGBA")), classes)
    if image.size != (width, height):
        # Rounded to whole pixels on each side.
        if indices.any() and abs(image.width * height - image.height * width) > max(width, height):
            raise UnusableImage(f"{size}, other proportions than its image with {image_size}")
        indices = np.asarray(Image.fromarray(indices).resize((width, height), Image.Resampling.NEAREST))
    return indices


def erase(content: bytes, colors: Iterable[str]) -> bytes:
    """The same mask, transparent where it has one of these colours, "#RRGGBB": what is declared background.

    :raises UnusableImage: the mask is not a complete PNG
    """
    image = _open(content)
    images.load_pixels(image, "mask")
    if image.mode.startswith("I"):
        image = images.eight_bit(image)
    rgba = np.array(image.convert("RGBA"))
    for color in colors:
        red, green, blue = AnomalyClass("background", color).rgb().to_bytes(3, "big")
        rgba[(rgba[..., :3] == (red, green, blue)).all(axis=-1), 3] = 0
    stream = io.BytesIO()
    Image.fromarray(rgba).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def _open(content: bytes) -> Image.Image:
    image = images.open_image(content, min_side=_MIN_SIDE)
    if image.format != "PNG":
        raise UnusableImage("the mask is not a PNG, whatever its name says; save it as one")
    return image


def _indices(rgba: NDArray[np.uint8], classes: Sequence[AnomalyClass]) -> ClassMask:
    red, green, blue = (rgba[..., channel].astype(np.uint32) for channel in range(3))
    colours = red << 16 | green << 8 | blue
    opaque = rgba[..., 3] >= _MIN_ALPHA
    indices = np.zeros(colours.shape, np.uint8)
    known = ~opaque
    for index, anomaly_class in enumerate(classes, start=1):
        of_class = opaque & (colours == anomaly_class.rgb())
        indices[of_class] = index
        known |= of_class
    known |= np.isin(colours, _BACKGROUND_COLOURS)
    if not known.all():
        unknown, counts = np.unique(colours[~known], return_counts=True)
        most_frequent = ", ".join(f"#{colour:06X}" for colour in unknown[np.argsort(-counts)][:3].tolist())
        expected = ", ".join(anomaly_class.color.upper() for anomaly_class in classes)
        raise UnusableImage(
            f"the mask has {most_frequent}, which is no class's colour; the classes have {expected}"
        )
    return indices


def coverage(mask: ClassMask, rows: int, columns: int) -> Coverage:
    """The fraction of each cell of a grid of `rows x columns` that each class covers."""
    return {
        index - 1: np.asarray(
            Image.fromarray(np.where(mask == index, np.uint8(255), np.uint8(0))).resize(
                (columns, rows), Image.Resampling.BOX
            )
        )
        for index in np.unique(mask).tolist()
        if index != BACKGROUND
    }
