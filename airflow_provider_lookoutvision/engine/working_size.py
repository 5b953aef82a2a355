"""The size that images are resized to before the network sees them.

A working size has about `side * side` pixels in the image's own proportions, and both its sides are multiples
of 32. The larger the image, the larger the sides that are worth trying, so that small defects stay visible.
"""

import math

from airflow_provider_lookoutvision.engine.backbone import STRIDE

SIDES = (224, 320, 448, 640, 896, 1280, 1792)
_MIN_LENGTH = 2 * STRIDE


def working_size(width: int, height: int, side: int) -> tuple[int, int]:
    """Width and height, multiples of 32, near `side * side` pixels in the proportions of `width x height`."""
    scale = side / math.sqrt(width * height)
    working_width, working_height = (
        max(_MIN_LENGTH, STRIDE * round(length * scale / STRIDE)) for length in (width, height)
    )
    return working_width, working_height


def candidate_sides(width: int, height: int) -> tuple[int, ...]:
    """The sides worth trying for images of `width x height` pixels, smallest first."""
    native = math.sqrt(width * height)
    start = 0 if native < 700 else 1 if native < 1400 else 2
    largest = max(native * 1.15, SIDES[start])
    return tuple(side for side in SIDES[start:] if side <= largest)


def default_side(width: int, height: int) -> int:
    """The side to use when there are no anomalies to choose by: the second candidate, or the only one."""
    return candidate_sides(width, height)[:2][-1]
