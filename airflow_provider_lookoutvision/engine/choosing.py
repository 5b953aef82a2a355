"""How best to look at the images of a dataset: found by trying, in cross-validation.

Sizes are tried from the smallest on, first with and without the rotations and mirrors of each image, then the
way that did better. The search goes on while a larger size is clearly better, or none is good yet, be it at
verdicts or at masks, and ends where there is nothing left to gain. On a large dataset all this is done on a
sample of it.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from airflow_provider_lookoutvision.engine import scales, validation
from airflow_provider_lookoutvision.engine.backbone import Backbone
from airflow_provider_lookoutvision.engine.dataset import Dataset
from airflow_provider_lookoutvision.engine.heads import Lessons
from airflow_provider_lookoutvision.engine.scales import Views
from airflow_provider_lookoutvision.engine.store import FeatureStore, row_bytes
from airflow_provider_lookoutvision.engine.validation import Validation

# Beyond these, more images change the choice of a recipe little, and more views the heads.
SAMPLE = 160
_VIEWED_IMAGES = 400
_VIEWED_BYTES = 1536 * 1024 * 1024
# A large image has many patches as it is, and its views would take minutes.
_VIEWED_IMAGE_BYTES = 4 * 1024 * 1024
# Few images are split more than once: one way to deal them into folds says little.
_FEW_IMAGES = 100
# A larger size costs time at every detection: it has to be clearly better, or the smaller one clearly bad.
_BETTER, _BAD, _GOOD = 0.93, 0.25, 0.05
# Masks below this IoU are not worth much: larger sizes are tried, and taken if theirs is so much higher.
_SHARP, _SHARPER = 0.5, 0.05
# Views cost nothing at detection, and few images do not show all that they help against: to do without them
# has to be far better.
_FAR_BETTER = 0.75

Stage = Callable[[float, str], Callable[[float], None]]


@dataclass(frozen=True)
class Recipe:
    """How images are looked at: `side` of the working size, and the views learnt from."""

    side: int
    views: Views


@dataclass(frozen=True)
class Trial:
    """A recipe that was tried; `loss` is its log-loss out of fold, the smaller the better, and `iou` that of
    its masks, 0 without any.
    """

    recipe: Recipe
    loss: float
    f1: float
    iou: float


@dataclass(frozen=True)
class Study:
    """A dataset looked at in one way, and how well that does; the store is open until the `ExitStack` closes
    it.
    """

    recipe: Recipe
    store: FeatureStore
    lessons: Lessons
    validation: Validation

    @property
    def trial(self) -> Trial:
        """The short of it."""
        return Trial(self.recipe, self.validation.loss, self.validation.f1, self.validation.iou)

    @property
    def blurred(self) -> bool:
        """Whether defects are painted, and seen too small to be found where they are."""
        return bool(self.lessons.coverage) and self.validation.iou < _SHARP

    def beats(self, other: "Study") -> bool:
        """Whether it tells images apart clearly better than a smaller size, or as well and paints better."""
        mine, its = self.trial, other.trial
        if mine.loss < its.loss * _BETTER:
            return True
        # Of few images the loss alone would call nearly every other size worse.
        as_well = mine.loss < its.loss / _BETTER or mine.loss < _GOOD or mine.f1 >= its.f1
        return other.blurred and as_well and mine.iou > its.iou + _SHARPER


@dataclass(frozen=True)
class Workshop:
    """What it takes to study a dataset; `scratch` is for files that may go away."""

    backbone: Backbone
    seed: int
    stage: Stage
    scratch: Path

    def study(self, dataset: Dataset, recipe: Recipe, until: float, stack: ExitStack) -> Study:
        """Look at the dataset in this way, and validate.

        :param until: the fraction of the whole training that is then done
        """
        store, lessons = self._look(dataset, recipe, until - 0.1, stack)
        return self._validate(store, lessons, recipe, until)

    def choose(self, dataset: Dataset, until: float, stack: ExitStack) -> tuple[Study, tuple[Trial, ...]]:
        """The best way to look at the dataset, and all that were tried."""
        sides = scales.sides(dataset.width, dataset.height)
        if not validation.supervisable(dataset.anomalous):
            side = scales.default_side(dataset.width, dataset.height)
            return self.study(dataset, Recipe(side, "plain"), until, stack), ()
        share = until / (len(sides) + 1)
        keep = ExitStack()
        every, only = Recipe(sides[0], "all"), Recipe(sides[0], "plain")
        store, lessons = self._look(dataset, every, share, keep)
        turned = self._validate(store, lessons, every, 1.5 * share)
        plain = self._validate(store.plain(), lessons, only, 2 * share)
        tried = [turned, plain]
        best = plain if plain.trial.loss < turned.trial.loss * _FAR_BETTER else turned
        for place, side in enumerate(sides[1:], start=2):
            if best.trial.loss < _GOOD and not best.blurred:
                break
            other = ExitStack()
            challenger = self.study(dataset, Recipe(side, best.recipe.views), (place + 1) * share, other)
            tried.append(challenger)
            better = challenger.beats(best)
            (keep if better else other).close()
            if better:
                keep, best = other, challenger
            elif best.trial.loss < _BAD and not best.blurred:
                break
        stack.push(keep)
        return best, tuple(study.trial for study in tried)

    def _look(
        self, dataset: Dataset, recipe: Recipe, until: float, stack: ExitStack
    ) -> tuple[FeatureStore, Lessons]:
        size, count = scales.working_size(dataset.width, dataset.height, recipe.side), len(dataset.images)
        each = row_bytes(size)
        few = count <= _VIEWED_IMAGES and scales.VIEWS * count * each <= _VIEWED_BYTES
        fits = few and each <= _VIEWED_IMAGE_BYTES
        views = scales.VIEWS if recipe.views == "all" and fits else 1
        tick = self.stage(until, f"looking at images at {size[0]} x {size[1]}")
        store = FeatureStore(self.backbone, dataset.images, size, views, tick, self.scratch)
        return stack.enter_context(store), dataset.lessons(size)

    def _validate(self, store: FeatureStore, lessons: Lessons, recipe: Recipe, until: float) -> Study:
        tick = self.stage(until, f"validating {store.size[0]} x {store.size[1]}, {recipe.views} views")
        repeats = 2 if len(lessons.anomalous) <= _FEW_IMAGES else 1
        return Study(
            recipe,
            store,
            lessons,
            validation.validate(store, lessons, repeats=repeats, seed=self.seed, tick=tick),
        )
