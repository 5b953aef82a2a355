"""How the logits of patches become masks: an offset, and which classes are painted at all.

Both are chosen on held-out images, normal ones too, by the IoU that an evaluation reports: of each class, the
mean over the images where either mask has it, so that a class painted where it is not counts as 0.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from airflow_provider_lookoutvision.engine import class_presence
from airflow_provider_lookoutvision.engine.backbone import FloatArray
from airflow_provider_lookoutvision.engine.class_presence import ClassPresence
from airflow_provider_lookoutvision.engine.feature_store import upsample
from airflow_provider_lookoutvision.engine.targets import CELLS_PER_PATCH, Targets

# Candidates for what is added to the logits of the classes before they are compared with the background's 0.
LOGIT_OFFSETS = np.arange(-6.0, 2.5, 0.5)
_MAX_BYTES, _MIN_MAPS = 64 * 1024 * 1024, 24
# How much better masks have to be to leave classes out.
_IOU_GAIN = 0.01


@dataclass(frozen=True)
class MaskCalibration:
    """How masks are painted.

    :param offset: is added to the logits of the classes before they are compared with the background's 0
    :param presence: decides which classes are painted; all are when None
    :param iou: mean IoU on held-out images, 0 to 1; 0 without masks
    """

    offset: float = 0.0
    presence: ClassPresence | None = None
    iou: float = 0.0


@dataclass(frozen=True)
class HeldOutMap:
    """The logits of the patches of one image, by a head that was not fitted to it.

    :param index: of the image
    :param row: of the image's scores
    :param logits: `rows x columns x classes`
    """

    index: int
    row: int
    logits: NDArray[np.float16]


class HeldOutMaps:
    """The maps of held-out images: of all, or of as many as 64 MB hold, half of them with masks."""

    def __init__(self, targets: Targets, repeats: int, places: int, rng: np.random.Generator) -> None:
        """Choose which maps to keep.

        :param repeats: how often each image is held out
        :param places: how many logits a class has in one map
        """
        count = len(targets.anomalous)
        rows = rng.permutation(repeats * count)
        masked = rows[[int(row) % count in targets.coverage for row in rows]]
        normal = rows[~targets.anomalous[rows % count]]
        capacity = max(_MIN_MAPS, _MAX_BYTES // (2 * places * targets.class_count))
        some = masked[: max(capacity // 2, capacity - len(normal))]
        self._wanted = set() if not targets.coverage else {*some, *normal[: capacity - len(some)]}
        self.maps: list[HeldOutMap] = []

    def add(self, index: int, row: int, logits: FloatArray) -> None:
        """Keep the map of an image, if there is room for it."""
        if row in self._wanted:
            self.maps.append(HeldOutMap(index, row, logits.astype(np.float16)))


def calibrate(
    maps: Sequence[HeldOutMap],
    image_logits: NDArray[np.float64],
    targets: Targets,
    cells: int = CELLS_PER_PATCH,
) -> MaskCalibration:
    """Choose the offset, and whether classes are left out.

    :param image_logits: the log-odds of being anomalous, by `HeldOutMap.row`
    :param cells: of the coverage, in each direction, for one place of a map
    """
    if not maps:
        return MaskCalibration()
    scores = np.stack(
        [class_presence.scores(each.logits.astype(np.float32), image_logits[each.row]) for each in maps]
    )
    classes = range(targets.class_count)
    present = np.array(
        [[number in targets.coverage.get(each.index, {}) for number in classes] for each in maps]
    )
    best = _best(maps, targets, np.ones_like(present), cells, None)
    if 0 < present.sum() < present.size:
        presence = class_presence.fit(scores.reshape(-1, class_presence.SCORES), present.ravel())
        chosen = _best(maps, targets, presence.present(scores), cells, presence)
        if chosen.iou > best.iou + _IOU_GAIN:
            return chosen
    return best


def _best(
    maps: Sequence[HeldOutMap],
    targets: Targets,
    painted: NDArray[np.bool_],
    cells: int,
    presence: ClassPresence | None,
) -> MaskCalibration:
    ious = np.stack([_ious(each, targets, some, cells) for each, some in zip(maps, painted, strict=True)])
    with warnings.catch_warnings():
        # Classes that are nowhere, neither painted nor true.
        warnings.simplefilter("ignore", RuntimeWarning)
        means = np.nan_to_num(np.nanmean(ious, axis=0)).mean(axis=1)
    number = int(means.argmax())
    return MaskCalibration(float(LOGIT_OFFSETS[number]), presence, float(means[number]))


def _ious(
    held_out: HeldOutMap, targets: Targets, painted: NDArray[np.bool_], cells: int
) -> NDArray[np.float64]:
    """The IoU at each offset of each class, on the cells of the coverage; NaN where it is in neither mask."""
    true = targets.coverage.get(held_out.index, {})
    result = np.full((len(LOGIT_OFFSETS), targets.class_count), np.nan)
    result[:, list(true)] = 0.0
    classes = np.flatnonzero(painted)
    logits = held_out.logits[..., classes].astype(np.float32)
    if not classes.size or logits.max() + LOGIT_OFFSETS[-1] <= 0:
        return result
    enlarged = upsample(logits, cells)
    best_class = enlarged.argmax(axis=2)
    # The number of the first offset that paints each cell.
    first = np.searchsorted(LOGIT_OFFSETS, -enlarged.max(axis=2), side="right")
    for place, number in enumerate(classes.tolist()):
        mine = best_class == place
        predicted = _cumulative(first[mine], None)
        if number not in true:
            result[:, number] = np.where(predicted > 0, 0.0, np.nan)
            continue
        covered = true[number].astype(np.float64) / 255
        both = _cumulative(first[mine], covered[mine])
        result[:, number] = both / (covered.sum() + predicted - both)
    return result


def _cumulative(first: NDArray[np.intp], weights: NDArray[np.float64] | None) -> NDArray[np.float64]:
    counts = np.bincount(first, weights, minlength=len(LOGIT_OFFSETS) + 1)
    return counts[: len(LOGIT_OFFSETS)].cumsum().astype(np.float64)
