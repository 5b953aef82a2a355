"""The eight rotations and mirrors of an image: what training may be augmented with.

They are the symmetries of a square (the dihedral group D4), so that no pixel is interpolated.
"""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

VIEWS = 8

Scalar = TypeVar("Scalar", bound=np.generic)


def transform(array: NDArray[Scalar], view: int) -> NDArray[Scalar]:
    """One of the eight views of `rows x columns x ...`; 0 is the array itself.

    Odd views have rows and columns exchanged.

    :param view: 0 to 7; quarter turns counterclockwise, and from 4 on a mirror image after that
    """
    rotated = np.rot90(array, view % 4)
    return np.ascontiguousarray(rotated[:, ::-1] if view >= 4 else rotated)
