"""The size that images are resized to before the network sees them.

A working size has about `side * side` pixels in the image's own proportions, and both its sides are multiples
of 32. The larger the image, the larger the sides that are worth trying, so that small defects stay visible.
"""

import math

from airflow_provider_lookoutvision.engine.backbone import STRIDE

SIDES = (224, 320, 448, 640, 896, 1280, 1792)
_MIN_LENGTH = 2 * STRIDE
# Larger ones would take too long at each detection.
_MAX_NATIVE = 896
_MIN_HALVED = 560


def working_size(width: int, height: int, side: int, *, multiple: int = STRIDE) -> tuple[int, int]:
    """Width and height near `side * side` pixels, in the proportions of `width x height`.

    :param multiple: of this both are: 32, or 64 for images that are seen at half their size too
    """
    scale = side / math.sqrt(width * height)
    working_width, working_height = (
        max(_MIN_LENGTH, multiple * round(length * scale / multiple)) for length in (width, height)
    )
    return working_width, working_height


def is_halved(size: tuple[int, int]) -> bool:
    """Whether images of this working size are seen at half of it too, where no anomalies are known.

    What is wrong in large is seen better there.
    """
    width, height = size
    return width % (2 * STRIDE) == height % (2 * STRIDE) == 0 and width * height >= _MIN_HALVED**2


def candidate_sides(width: int, height: int) -> tuple[int, ...]:
    """The sides worth trying for images of `width x height` pixels, smallest first."""
    native = math.sqrt(width * height)
    start = 0 if native < 700 else 1 if native < 1400 else 2
    largest = max(native * 1.15, SIDES[start])
    return tuple(side for side in SIDES[start:] if side <= largest)


def native_side(width: int, height: int) -> int:
    """The side nearest to the size of the images, which is the one without anomalies to choose by."""
    native = math.sqrt(width * height)
    return min((side for side in SIDES if side <= _MAX_NATIVE), key=lambda side: abs(math.log(side / native)))
