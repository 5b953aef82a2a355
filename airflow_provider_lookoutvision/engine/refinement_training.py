"""Fits what paints small defects from the image's own pixels, and keeps it if masks are clearly better by it.

The windows are those that detection would look at, by the logits that cross-validation has of the image out
of fold, and windows around the masked defects. So the background that the head is fitted to is what the
whole image's patches take wrongly for defects. The head is a patch head; its offset and classes are chosen
as those of the whole image are, on windows of images that it was not fitted to. Both ways of painting are
then compared on these images by the IoU of an evaluation, pixel by pixel.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.model_selection import StratifiedKFold

from airflow_provider_lookoutvision.engine import (
    images,
    mask_calibration,
    mask_painting,
    masks,
    patch_head,
    refinement,
)
from airflow_provider_lookoutvision.engine.backbone import Backbone, FloatArray
from airflow_provider_lookoutvision.engine.cross_validation import FOLDS
from airflow_provider_lookoutvision.engine.dataset import Dataset
from airflow_provider_lookoutvision.engine.feature_store import FeatureStore
from airflow_provider_lookoutvision.engine.images import ImageSource, Pixels, read_source
from airflow_provider_lookoutvision.engine.mask_calibration import HeldOutMap, MaskCalibration
from airflow_provider_lookoutvision.engine.masks import ClassMask, Coverage
from airflow_provider_lookoutvision.engine.memory_bank import MemoryBank
from airflow_provider_lookoutvision.engine.metrics import PixelMetricsAccumulator
from airflow_provider_lookoutvision.engine.model_selection import Candidate
from airflow_provider_lookoutvision.engine.patch_head import PatchHead
from airflow_provider_lookoutvision.engine.refinement import Refinement, Window
from airflow_provider_lookoutvision.engine.targets import Targets

# Each is decoded, and its windows are seen by the network: more would take minutes.
_MAX_IMAGES_OF_A_KIND = 32
# Most normal images should have no place to refine, because that takes time.
_FLOOR_QUANTILE = 0.8
# How much better masks have to be.
_IOU_GAIN = 0.03
# What each part takes of the time, about: the windows, their features, the folds, the comparison.
_WINDOWS_END, _FEATURES_END, _FOLDS_END = 0.4, 0.7, 0.8


class Refined(NamedTuple):
    """A refinement that is worth it.

    :param iou: of the masks with it, on held-out images
    """

    refinement: Refinement
    iou: float


@dataclass
class _Windows:
    """Windows of all images, one after the other.

    :param sources: PNG files of them
    :param image: for each window, the number of its image
    :param places: likewise; None for a window that is trained on alone
    :param coverage: by window, as `Targets` has it
    """

    sources: list[ImageSource] = field(default_factory=list)
    image: list[int] = field(default_factory=list)
    places: list[Window | None] = field(default_factory=list)
    coverage: dict[int, Coverage] = field(default_factory=dict)


def is_applicable(dataset: Dataset, best: Candidate) -> bool:
    """Whether there are masks, and images are much larger than their working size."""
    return bool(best.targets.coverage) and _side(dataset, best) > 0


def _side(dataset: Dataset, best: Candidate) -> int:
    return refinement.window_side((dataset.width, dataset.height), best.store.size) or 0


def fit(
    dataset: Dataset,
    best: Candidate,
    backbone: Backbone,
    on_progress: Callable[[float], None],
    *,
    seed: int,
    folder: Path,
) -> Refined | None:
    """Fit and compare; None if there are too few images with or without masks, or masks are not much better.

    :param best: the cross-validated heads of the whole image, to which a refinement is applicable
    :param on_progress: called with the fraction done, 0 to 1, before each image and each fold; may raise to
        stop
    :param folder: for temporary files
    """
    held_out = _held_out(best)
    masked = np.array([each.index in best.targets.coverage for each in held_out], bool)
    if min(masked.sum(), (~masked).sum()) < 2:
        return None
    return _Fit(dataset, best, held_out, masked, on_progress, seed).run(backbone, folder)


def _held_out(best: Candidate) -> list[HeldOutMap]:
    """One map of each image, of as many images as are used."""
    first: dict[int, HeldOutMap] = {}
    for each in best.result.maps:
        first.setdefault(each.index, each)
    masked = [each for each in first.values() if each.index in best.targets.coverage]
    normal = [each for each in first.values() if each.index not in best.targets.coverage]
    return masked[:_MAX_IMAGES_OF_A_KIND] + normal[:_MAX_IMAGES_OF_A_KIND]


class _Fit:
    def __init__(
        self,
        dataset: Dataset,
        best: Candidate,
        held_out: list[HeldOutMap],
        masked: NDArray[np.bool_],
        on_progress: Callable[[float], None],
        seed: int,
    ) -> None:
        self._dataset, self._best, self._side = dataset, best, _side(dataset, best)
        self._held_out, self._masked = held_out, masked
        self._on_progress, self._seed = on_progress, seed
        self._image_logits = best.result.classifier.logit(best.result.scores)
        self._size = dataset.width, dataset.height

    def run(self, backbone: Backbone, folder: Path) -> Refined | None:
        found = self._windows()
        labels = np.array([number in found.coverage for number in range(len(found.image))], bool)
        targets = Targets(labels, found.coverage, self._best.targets.class_count)
        size = refinement.ZOOM * self._side, refinement.ZOOM * self._side
        progress = self._part(_WINDOWS_END, _FEATURES_END)
        with FeatureStore(backbone, found.sources, size, 1, progress, folder) as store:
            logits = self._out_of_fold(store, found, targets)
            floor, masks_chosen = self._calibrate(found, logits)
            head = self._head(store, targets, np.arange(len(labels)))
        if masks_chosen is None:
            return None
        refined = Refinement(head, masks_chosen.offset, masks_chosen.presence, self._side, floor)
        coarse, fine = self._ious(refined, found, logits)
        return Refined(refined, fine) if fine > coarse + _IOU_GAIN else None

    def _part(self, start: float, end: float) -> Callable[[float], None]:
        return lambda fraction: self._on_progress(start + (end - start) * fraction)

    def _windows(self) -> _Windows:
        found, progress = _Windows(), self._part(0.0, _WINDOWS_END)
        for number, held_out in enumerate(self._held_out):
            progress(number / len(self._held_out))
            mask = self._true_mask(held_out.index)
            any_class = patch_head.any_class_logit(held_out.logits.astype(np.float32))
            places = refinement.windows(any_class, self._size, self._side)
            around: list[Window] = []
            if mask is not None:
                cells = np.max(list(self._best.targets.coverage[held_out.index].values()), axis=0)
                around = refinement.windows(cells, self._size, self._side, floor=0)
            corners = [place.corner for place in [*places, *around]]
            content = read_source(self._dataset.images[held_out.index])
            found.sources += map(_png, images.decode_parts(content, corners, self._side))
            for place in [*places, *around]:
                if mask is not None:
                    covered = masks.coverage(refinement.crop(mask, place, self._side), self._side, self._side)
                    if covered:
                        found.coverage[len(found.image)] = covered
                found.image.append(number)
            found.places += [*places, *([None] * len(around))]
        return found

    def _true_mask(self, index: int) -> ClassMask | None:
        source = self._dataset.masks[index]
        if source is None or index not in self._best.targets.coverage:
            return None
        return masks.decode(read_source(source), self._dataset.classes, *self._size)

    def _head(self, store: FeatureStore, targets: Targets, indices: NDArray[np.intp]) -> PatchHead:
        # The bank is not used: there are masks.
        bank = MemoryBank(np.zeros((1, 1), np.float32))
        return patch_head.fit(store, indices, targets, bank, np.random.default_rng([self._seed, 7]))

    def _out_of_fold(self, store: FeatureStore, found: _Windows, targets: Targets) -> dict[int, FloatArray]:
        """The logits of the windows that detection may refine, by heads not fitted to their images."""
        logits: dict[int, FloatArray] = {}
        image = np.array(found.image)
        folds = min(FOLDS, int(self._masked.sum()), int((~self._masked).sum()))
        splitter = StratifiedKFold(folds, shuffle=True, random_state=self._seed)
        progress = self._part(_FEATURES_END, _FOLDS_END)
        for fold, (train, test) in enumerate(splitter.split(self._masked, self._masked)):
            progress(fold / folds)
            head = self._head(store, targets, np.flatnonzero(np.isin(image, train)))
            for window in np.flatnonzero(np.isin(image, test)).tolist():
                if found.places[window] is not None:
                    logits[window] = head.logits(store.get(window))
        return logits

    def _refined_windows(self, found: _Windows, number: int, floor: float) -> list[tuple[int, Window]]:
        return [
            (window, place)
            for window, (image, place) in enumerate(zip(found.image, found.places, strict=True))
            if image == number and place is not None and place.logit > floor
        ]

    def _calibrate(
        self, found: _Windows, logits: dict[int, FloatArray]
    ) -> tuple[float, MaskCalibration | None]:
        """The floor, and how windows above it are painted; None if there is no such window."""
        highest = [
            max(place.logit for _, place in self._refined_windows(found, number, -np.inf))
            for number in np.flatnonzero(~self._masked).tolist()
        ]
        # All that the whole image's patches paint is refined.
        floor = min(float(np.quantile(highest, _FLOOR_QUANTILE)), -self._best.result.masks.offset)
        maps, coverage = [], {}
        for number, held_out in enumerate(self._held_out):
            windows = [window for window, _ in self._refined_windows(found, number, floor)]
            if not windows:
                continue
            stacked = np.concatenate([logits[window] for window in windows]).astype(np.float16)
            maps.append(HeldOutMap(held_out.index, held_out.row, stacked))
            covered = [found.coverage.get(window, {}) for window in windows]
            nothing = np.zeros((self._side, self._side), np.uint8)
            coverage[held_out.index] = {
                each: np.concatenate([some.get(each, nothing) for some in covered])
                for each in sorted(set().union(*covered))
            }
        if not any(coverage.values()):
            return floor, None
        targets = replace(self._best.targets, coverage=coverage)
        return floor, mask_calibration.calibrate(maps, self._image_logits, targets)

    def _ious(
        self, refined: Refinement, found: _Windows, logits: dict[int, FloatArray]
    ) -> tuple[float, float]:
        """The IoU of an evaluation without and with refinement, on the images' own pixels."""
        painting = self._best.result.masks
        names = [each.name for each in self._dataset.classes]
        coarse, fine = PixelMetricsAccumulator(names), PixelMetricsAccumulator(names)
        progress = self._part(_FOLDS_END, 1.0)
        for number, held_out in enumerate(self._held_out):
            progress(number / len(self._held_out))
            image_logit = float(self._image_logits[held_out.row])
            mask = mask_painting.class_mask(
                mask_painting.painted_logits(
                    held_out.logits.astype(np.float32), painting.offset, painting.presence, image_logit
                ),
                *self._size,
            )
            true = self._true_mask(held_out.index)
            true = np.zeros_like(mask) if true is None else true
            coarse.update(true, mask)
            windows = self._refined_windows(found, number, refined.floor)
            if windows:
                places = [place for _, place in windows]
                refined.paint_logits(mask, places, [logits[window] for window, _ in windows], image_logit)
            fine.update(true, mask)
        return _mean_iou(coarse), _mean_iou(fine)


def _mean_iou(pixels: PixelMetricsAccumulator) -> float:
    return float(np.mean([each.iou for each in pixels.compute()]))


def _png(pixels: Pixels) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=1)
    return stream.getvalue()
