"""Masks that are painted here: of outlines and run lengths, or of another mask in another colour.

Needs the extra ``moving``: Pillow, NumPy and, for outlines and run lengths, pycocotools.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_provider_lookoutvision.moving.errors import MovingError
from airflow_provider_lookoutvision.moving.sources import Source

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

MAX_SIDE = 4096  # of an image that the service takes
BACKGROUND = (255, 255, 255)


@dataclass(frozen=True)
class Region:
    """A part of an image that belongs to a class, as pycocotools has it.

    :param shape: outlines, each ``[x1, y1, x2, y2, ...]`` in pixels; or run lengths, ``{"counts", "size"}``;
        or the pixels themselves, rows of booleans.
    """

    name: str
    shape: Any


@dataclass(frozen=True)
class Painted:
    """The regions of an image in the colours of their classes. What comes later lies above."""

    width: int
    height: int
    regions: Sequence[Region]
    colors: Mapping[str, str]
    where: str

    @cached_property
    def digest(self) -> str:
        """Of the regions and colours."""
        shapes = [
            [each.name, each.shape if isinstance(each.shape, list | dict) else each.shape.tobytes().hex()]
            for each in self.regions
        ]
        content = [self.width, self.height, shapes, sorted(self.colors.items())]
        text = json.dumps(content, default=lambda value: value.decode("latin-1"))
        return hashlib.sha256(text.encode()).hexdigest()

    def png(self) -> bytes:
        """The mask."""
        import numpy as np
        from PIL import Image

        canvas = np.full((self.height, self.width, 3), BACKGROUND, dtype=np.uint8)
        for region in self.regions:
            canvas[self._pixels(region)] = _rgb(self.colors[region.name])
        return _png(Image.fromarray(canvas))

    def _pixels(self, region: Region) -> NDArray[np.bool_]:
        import numpy as np

        if isinstance(region.shape, np.ndarray):
            return region.shape
        from pycocotools import mask

        try:
            runs: Any = mask.frPyObjects(region.shape, self.height, self.width)
            if isinstance(region.shape, list):
                runs = mask.merge(runs)
            pixels: NDArray[np.bool_] = mask.decode(runs).astype(bool)
        except Exception as error:  # it raises whatever comes to its C code
            raise MovingError(f"{self.where}: a region of {region.name!r} is no outline: {error}") from error
        return pixels


@dataclass(frozen=True)
class Recoloured:
    """A mask of the source, everything in it that isn't black in one colour."""

    source: Source
    name: str
    color: str

    @cached_property
    def digest(self) -> str:
        """Of the mask and the colour."""
        return hashlib.sha256(self.source.read(self.name) + self.color.encode()).hexdigest()

    def png(self) -> bytes:
        """The mask."""
        from PIL import Image

        grey = _opened(self.source.read(self.name), f"{self.source.uri}{self.name}").convert("L")
        painted = Image.new("RGB", grey.size, BACKGROUND)
        painted.paste(_rgb(self.color), mask=grey.point(lambda value: 255 if value else 0))
        return _png(painted)


def check_size(width: Any, height: Any, where: str) -> tuple[int, int]:
    """The size of an image, if the service takes such an image.

    :raises MovingError: when it doesn't.
    """
    if not all(isinstance(side, int) and 0 < side <= MAX_SIDE for side in (width, height)):
        raise MovingError(f"{where} has the size {width!r} x {height!r}; sides are 64 to {MAX_SIDE} pixels")
    return width, height


def colors_in(png: bytes, where: str) -> set[str]:
    """The colours in a mask, ``#RRGGBB``."""
    image = _opened(png, where).convert("RGB")
    found: Any = image.getcolors(image.width * image.height)
    return {"#{:02X}{:02X}{:02X}".format(*color) for _, color in found}


def _opened(png: bytes, where: str) -> Image:
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(png), formats=["PNG"])
        check_size(*image.size, where)
        image.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise MovingError(f"{where} can't be read as a PNG: {error}") from error
    return image


def _png(image: Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=False)
    return stream.getvalue()


def _rgb(color: str) -> tuple[int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)
