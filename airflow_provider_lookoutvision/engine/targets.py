"""What the heads are fitted to: a label for each image and, from masks, a class for each patch."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from airflow_provider_lookoutvision.engine.backbone import FloatArray
from airflow_provider_lookoutvision.engine.masks import Coverage

# Masks are kept in cells of a quarter of a patch's side, which keeps the width of a scratch.
CELLS_PER_PATCH = 4
# A patch is of a class when the class covers more than half of it, or covers it more than any patch around
# it, so that a defect smaller than a patch has a patch as well. It is background when little of it is
# covered. Other patches are not trained on.
_MIN_COVERED, _MIN_COVERED_AT_PEAK, _MAX_COVERED_OF_BACKGROUND = 0.5, 0.02, 0.2


@dataclass(frozen=True)
class Targets:
    """The labels and masks of all images, at one working size.

    :param anomalous: one boolean for each image
    :param coverage: by image index, for each anomalous image with a mask; empty without masks
    :param class_count: number of classes of defects; 1 without masks
    """

    anomalous: NDArray[np.bool_]
    coverage: dict[int, Coverage]
    class_count: int

    def patch_labels(self, index: int, shape: tuple[int, int]) -> NDArray[np.intp]:
        """The classes of the patches of an image that has a mask; see the function of this name.

        :param shape: rows and columns of patches
        """
        rows, columns = shape
        covered = np.zeros((rows, columns, self.class_count), np.float32)
        for class_index, cells in self.coverage[index].items():
            split = cells.reshape(rows, CELLS_PER_PATCH, columns, CELLS_PER_PATCH)
            covered[..., class_index] = split.mean(axis=(1, 3)) / 255
        return patch_labels(covered)


def patch_labels(covered: FloatArray) -> NDArray[np.intp]:
    """The class of each patch, `rows x columns`: 0 is background, 1 the first class; -1 is not trained on.

    :param covered: the fraction of each patch that each class covers, `rows x columns x classes`, 0 to 1
    """
    highest = covered.max(axis=2)
    padded = np.pad(highest, 1)
    rows, columns = highest.shape
    highest_around = np.max(
        [padded[down : down + rows, across : across + columns] for down in range(3) for across in range(3)],
        axis=0,
    )
    is_peak = (highest == highest_around) & (highest > _MIN_COVERED_AT_PEAK)
    is_background = covered.sum(axis=2) <= _MAX_COVERED_OF_BACKGROUND
    return np.where(
        (highest > _MIN_COVERED) | is_peak, covered.argmax(axis=2) + 1, np.where(is_background, 0, -1)
    )
