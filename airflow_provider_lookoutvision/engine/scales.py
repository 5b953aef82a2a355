"""At what size an image is looked at, and which way round.

The network sees an image shrunk to a working size: about `side * side` pixels in the image's own proportions,
both sides multiples of 32. The larger the image, the larger the working sizes that are tried, so that what is
small on a large part stays visible; and the search goes on to larger ones for as long as they pay.
"""

import math
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from airflow_provider_lookoutvision.engine.backbone import STRIDE

SIDES = (224, 320, 448, 640, 896, 1280, 1792)
_MIN_SIDE = 2 * STRIDE
VIEWS = 8

Scalar = TypeVar("Scalar", bound=np.generic)
Views = Literal["plain", "all"]


def working_size(width: int, height: int, side: int) -> tuple[int, int]:
    """Width and height, multiples of 32, near `side * side` pixels in the proportions of `width x height`."""
    scale = side / math.sqrt(width * height)
    across, down = (max(_MIN_SIDE, STRIDE * round(length * scale / STRIDE)) for length in (width, height))
    return across, down


def sides(width: int, height: int) -> tuple[int, ...]:
    """The working sides worth trying for images of this size, smallest first."""
    native = math.sqrt(width * height)
    start = 0 if native < 700 else 1 if native < 1400 else 2
    largest = max(native * 1.1, SIDES[start])
    return tuple(side for side in SIDES[start:] if side <= largest)


def default_side(width: int, height: int) -> int:
    """The side where nothing tells which is best: the second of those worth trying, if there is one."""
    return sides(width, height)[:2][-1]


def view(array: NDArray[Scalar], index: int) -> NDArray[Scalar]:
    """One of the eight rotations and mirrors of `rows x columns x ...`; 0 is the array itself."""
    turned = np.rot90(array, index % 4)
    return np.ascontiguousarray(turned[:, ::-1] if index >= 4 else turned)
