"""Chooses the hyperparameters for a dataset by cross-validation.

They are the working size, and whether training is augmented with rotations and mirrors. At the smallest size
both kinds of training are tried, and the better one at larger sizes. The search goes on while a larger size
is clearly better, or while predictions or masks are poor, and stops when there is nothing left to gain. On a
large dataset it uses a sample.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from airflow_provider_lookoutvision.engine import (
    augmentation,
    cross_validation,
    working_size,
)
from airflow_provider_lookoutvision.engine.backbone import STRIDE, Backbone
from airflow_provider_lookoutvision.engine.cross_validation import CrossValidationResult
from airflow_provider_lookoutvision.engine.dataset import Dataset
from airflow_provider_lookoutvision.engine.feature_store import FeatureStore, bytes_per_view
from airflow_provider_lookoutvision.engine.targets import Targets

# More images hardly change which hyperparameters are best.
MAX_SEARCH_IMAGES = 160
# Augmentation is for few and small images. More or larger ones have patches enough, and would take minutes.
_MAX_AUGMENTED_IMAGES = 400
_MAX_AUGMENTED_BYTES = 1536 * 1024 * 1024
_MAX_BYTES_PER_AUGMENTED_VIEW = 4 * 1024 * 1024
# Few images are split into folds twice, because the result depends much on the split.
_MAX_REPEATED_IMAGES = 100
# A larger size costs time at each detection: its log-loss has to be this much smaller.
_LARGER_SIZE_LOSS_RATIO = 0.93
# Above the first log-loss, the search goes on after a size that was no better; below the second, it stops.
_POOR_LOSS, _EXCELLENT_LOSS = 0.25, 0.05
# Below this IoU, larger sizes are tried for better masks, and one is chosen whose IoU is higher by so much.
_POOR_IOU, _IOU_GAIN = 0.5, 0.05
# Augmentation costs nothing at detection, and cross-validation of few images does not show all that it helps:
# to train without it, the log-loss has to be this much smaller.
_NO_AUGMENTATION_LOSS_RATIO = 0.75

Stage = Callable[[float, str], Callable[[float], None]]


@dataclass(frozen=True)
class Hyperparameters:
    """What is chosen for each dataset.

    :param side: of the working size: about `side * side` pixels
    :param augment: whether training uses the eight rotations and mirrors of each image
    :param backbone: name and SHA-256 of the user's network that was used; empty for EfficientNet-lite0, and
        not read where hyperparameters are given
    """

    side: int
    augment: bool
    backbone: str = ""


def without_anomalies(dataset: Dataset) -> Hyperparameters:
    """Those of a dataset that has too few anomalies to compare any by."""
    return Hyperparameters(working_size.native_side(dataset.width, dataset.height), augment=False)


@dataclass(frozen=True)
class Trial:
    """Hyperparameters that were tried, and their out-of-fold metrics.

    :param loss: log-loss, the lower the better
    :param f1: 0 to 1
    :param iou: of the masks, 0 to 1; 0 without masks
    """

    hyperparameters: Hyperparameters
    loss: float
    f1: float
    iou: float


@dataclass(frozen=True)
class Candidate:
    """Hyperparameters with the features extracted and the result of cross-validation.

    The store is open until the `ExitStack` that was passed is closed.
    """

    hyperparameters: Hyperparameters
    store: FeatureStore
    targets: Targets
    result: CrossValidationResult

    @property
    def trial(self) -> Trial:
        """The metrics alone."""
        return Trial(self.hyperparameters, self.result.loss, self.result.f1, self.result.masks.iou)

    @property
    def has_poor_masks(self) -> bool:
        """Whether there are masks, and the predicted ones match them poorly."""
        return bool(self.targets.coverage) and self.result.masks.iou < _POOR_IOU

    def is_better_than(self, smaller: "Candidate") -> bool:
        """Whether it classifies clearly better than a smaller size, or as well with clearly better masks."""
        mine, other = self.trial, smaller.trial
        if mine.loss < other.loss * _LARGER_SIZE_LOSS_RATIO:
            return True
        # By the loss alone, on few images nearly every other size would be worse.
        as_good = (
            mine.loss < other.loss / _LARGER_SIZE_LOSS_RATIO
            or mine.loss < _EXCELLENT_LOSS
            or mine.f1 >= other.f1
        )
        return smaller.has_poor_masks and as_good and mine.iou > other.iou + _IOU_GAIN


@dataclass(frozen=True)
class HyperparameterSearch:
    """Extracts the features of a dataset and cross-validates, for given hyperparameters or the best.

    :param stage: starts a stage of the progress; see `training`
    :param folder: for temporary files
    """

    backbone: Backbone
    seed: int
    stage: Stage
    folder: Path

    def evaluate(
        self, dataset: Dataset, hyperparameters: Hyperparameters, until: float, stack: ExitStack
    ) -> Candidate:
        """Cross-validate with these hyperparameters.

        :param until: the fraction of the whole training that is then done
        :param stack: closes the feature store
        """
        store, targets = self._extract(dataset, hyperparameters, until - 0.1, stack)
        return self._cross_validate(store, targets, hyperparameters, until)

    def search(self, dataset: Dataset, until: float, stack: ExitStack) -> tuple[Candidate, tuple[Trial, ...]]:
        """The best hyperparameters, and all that were tried.

        :param dataset: with enough anomalies to compare by
        :param until: the fraction of the whole training that is then done
        :param stack: closes the feature store of the best
        """
        sides = working_size.candidate_sides(dataset.width, dataset.height)
        share = until / (len(sides) + 1)
        best_stack = ExitStack()
        with_augmentation = Hyperparameters(sides[0], augment=True)
        without = Hyperparameters(sides[0], augment=False)
        store, targets = self._extract(dataset, with_augmentation, share, best_stack)
        augmented = self._cross_validate(store, targets, with_augmentation, 1.5 * share)
        plain = self._cross_validate(store.without_augmentation(), targets, without, 2 * share)
        candidates = [augmented, plain]
        best = plain if plain.trial.loss < augmented.trial.loss * _NO_AUGMENTATION_LOSS_RATIO else augmented
        for number, side in enumerate(sides[1:], start=3):
            if best.trial.loss < _EXCELLENT_LOSS and not best.has_poor_masks:
                break
            larger_stack = ExitStack()
            hyperparameters = Hyperparameters(side, best.hyperparameters.augment)
            larger = self.evaluate(dataset, hyperparameters, number * share, larger_stack)
            candidates.append(larger)
            if larger.is_better_than(best):
                best_stack.close()
                best, best_stack = larger, larger_stack
                continue
            larger_stack.close()
            if best.trial.loss < _POOR_LOSS and not best.has_poor_masks:
                break
        stack.push(best_stack)
        return best, tuple(candidate.trial for candidate in candidates)

    def _extract(
        self, dataset: Dataset, hyperparameters: Hyperparameters, until: float, stack: ExitStack
    ) -> tuple[FeatureStore, Targets]:
        supervised = cross_validation.has_enough_anomalies(dataset.anomalous)
        side = hyperparameters.side
        multiple = STRIDE if supervised or not working_size.is_halved((side, side)) else 2 * STRIDE
        size = working_size.working_size(dataset.width, dataset.height, side, multiple=multiple)
        count, view_bytes = len(dataset.images), bytes_per_view(size, self.backbone.channels.maps)
        can_augment = (
            count <= _MAX_AUGMENTED_IMAGES
            and augmentation.VIEWS * count * view_bytes <= _MAX_AUGMENTED_BYTES
            and view_bytes <= _MAX_BYTES_PER_AUGMENTED_VIEW
        )
        views = augmentation.VIEWS if hyperparameters.augment and can_augment else 1
        on_progress = self.stage(until, f"extracting features at {size[0]} x {size[1]}")
        backbone = self.backbone if supervised else self.backbone.with_detail()
        half = not supervised and working_size.is_halved(size)
        store = FeatureStore(backbone, dataset.images, size, views, on_progress, self.folder, half=half)
        return stack.enter_context(store), dataset.targets(size)

    def _cross_validate(
        self, store: FeatureStore, targets: Targets, hyperparameters: Hyperparameters, until: float
    ) -> Candidate:
        width, height = store.size
        with_or_without = "with" if hyperparameters.augment else "without"
        on_progress = self.stage(
            until, f"cross-validating at {width} x {height}, {with_or_without} augmentation"
        )
        repeats = 2 if len(targets.anomalous) <= _MAX_REPEATED_IMAGES else 1
        result = cross_validation.cross_validate(
            store,
            targets,
            repeats=repeats,
            seed=self.seed,
            on_progress=on_progress,
        )
        return Candidate(hyperparameters, store, targets, result)
