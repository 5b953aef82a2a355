"""Turns the bytes of a mask into one class index a pixel.

A mask is a PNG in which each class has its colour. White, black and everything less than half opaque is
background unless a class claims that colour; colours are compared with no regard to the case of their
hexadecimal digits. Any other colour is an error that names it. A mask may be smaller than its image, like the
16 x 16 white one that some tools attach to normal images: it is stretched.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from airflow_provider_lookoutvision.engine import images
from airflow_provider_lookoutvision.engine.errors import UnusableDataset, UnusableImage

BACKGROUND = 0
_OPAQUE = 128
_BACKGROUNDS = (0x000000, 0xFFFFFF)
_MIN_SIDE = 1
_BAND = 256

ClassMask = NDArray[np.uint8]
# Of the classes that are painted, counted from 0: the part of each cell that is covered, in 255ths. Few of
# many classes are painted on one image.
Coverage = dict[int, NDArray[np.uint8]]


@dataclass(frozen=True)
class AnomalyClass:
    """A kind of defect and its colour in the masks, "#RRGGBB"."""

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


def decode(content: bytes, classes: Sequence[AnomalyClass], width: int, height: int) -> ClassMask:
    """`height x width` class indices: 0 for the background, 1 for the first class, and so on.

    :param width: of the image that the mask belongs to, in pixels
    :param height: of the image
    :raises UnusableImage: the mask is not a whole PNG, holds an unknown colour, or is larger than its image
    """
    image = images.opened(content, min_side=_MIN_SIDE)
    if image.format != "PNG":
        raise UnusableImage("the mask is not a PNG, whatever its name says; save it as one")
    if image.width > width or image.height > height:
        raise UnusableImage(
            f"the mask has {image.width} x {image.height} pixels, more than its image with {width} x {height}"
        )
    try:
        image.load()
    except Exception as error:
        raise UnusableImage(f"the mask is damaged or cut short ({error}); upload it anew") from error
    indices = np.empty((image.height, image.width), np.uint8)
    # In bands: the colours of a large mask all at once would take many times its size.
    for top in range(0, image.height, _BAND):
        band = image.crop((0, top, image.width, min(top + _BAND, image.height)))
        indices[top : top + _BAND] = _indices(np.asarray(band.convert("RGBA")), classes)
    if image.size != (width, height):
        indices = np.asarray(Image.fromarray(indices).resize((width, height), Image.Resampling.NEAREST))
    return indices


def _indices(rgba: NDArray[np.uint8], classes: Sequence[AnomalyClass]) -> ClassMask:
    red, green, blue = (rgba[..., channel].astype(np.uint32) for channel in range(3))
    colours = red << 16 | green << 8 | blue
    opaque = rgba[..., 3] >= _OPAQUE
    indices = np.zeros(colours.shape, np.uint8)
    known = ~opaque
    for index, anomaly in enumerate(classes, start=1):
        painted = opaque & (colours == anomaly.rgb())
        indices[painted] = index
        known |= painted
    known |= np.isin(colours, _BACKGROUNDS)
    if not known.all():
        found, counts = np.unique(colours[~known], return_counts=True)
        named = ", ".join(f"#{colour:06X}" for colour in found[np.argsort(-counts)][:3].tolist())
        wanted = ", ".join(anomaly.color.upper() for anomaly in classes)
        raise UnusableImage(f"the mask holds {named}, which is no class's colour; the classes have {wanted}")
    return indices


def coverage(mask: ClassMask, rows: int, columns: int) -> Coverage:
    """What part of each cell each class covers."""
    return {
        index - 1: np.asarray(
            Image.fromarray(np.where(mask == index, np.uint8(255), np.uint8(0))).resize(
                (columns, rows), Image.Resampling.BOX
            )
        )
        for index in np.unique(mask).tolist()
        if index != BACKGROUND
    }
