"""Trains a detector: checks what it is given, finds how best to look at it, fits, calibrates, writes.

How to look, the recipe, is the working size and whether the rotations and mirrors of each image are learnt too; it is
chosen by cross-validation on at most a few hundred of the images. The heads are then fitted on all images, and the
calibration on the scores that images got while they were held out.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from airflow_provider_lookoutvision.engine import artifact, heads, images, masks, scales, validation
from airflow_provider_lookoutvision.engine.artifact import Model
from airflow_provider_lookoutvision.engine.backbone import Backbone
from airflow_provider_lookoutvision.engine.errors import Cancelled, UnusableDataset, UnusableImage
from airflow_provider_lookoutvision.engine.heads import Lessons
from airflow_provider_lookoutvision.engine.masks import AnomalyClass
from airflow_provider_lookoutvision.engine.scales import Views
from airflow_provider_lookoutvision.engine.store import FeatureStore, Source, read
from airflow_provider_lookoutvision.engine.supervised import FINER, Coverage
from airflow_provider_lookoutvision.engine.validation import Validation

Label = Literal["normal", "anomaly"]
MIN_NORMAL = 4
MAX_CLASSES = 100
# Beyond these, more images change the choice of a recipe little, and more views the heads.
_CHOOSING_IMAGES = 160
_VIEWED_IMAGES = 400
# A larger size costs time at every detection: it has to be clearly better, or the smaller one clearly bad.
_BETTER, _BAD = 0.93, 0.25


@dataclass(frozen=True)
class Recipe:
    """How images are looked at: `side` of the working size, and the views learnt from."""

    side: int
    views: Views


@dataclass(frozen=True)
class Trial:
    """A recipe that was tried; `loss` is its log-loss out of fold, the smaller the better."""

    recipe: Recipe
    loss: float
    f1: float


@dataclass(frozen=True)
class TrainingReport:
    """What came out of a training, beside the model.

    `calibrated` is False when there were too few labelled anomalies to learn what the scores mean; `f1` and `iou` are
    out-of-fold estimates within the training images, and optimistic: the honest figures are those of held-out images.
    """

    folder: Path
    recipe: Recipe
    trials: tuple[Trial, ...]
    normal: int
    anomalous: int
    segmentation: bool
    calibrated: bool
    f1: float
    iou: float


class _Progress:
    """Reports how far the training is and stops it when asked to."""

    def __init__(
        self, report: Callable[[float, str], None] | None, cancelled: Callable[[], bool] | None
    ) -> None:
        self._report, self._cancelled = report, cancelled
        self._from = self._to = 0.0
        self._what = ""

    def stage(self, until: float, what: str) -> "_Progress":
        self._from, self._to, self._what = self._to, until, what
        self(0.0)
        return self

    def __call__(self, fraction: float) -> None:
        if self._cancelled is not None and self._cancelled():
            raise Cancelled("the training was cancelled")
        if self._report is not None:
            self._report(self._from + (self._to - self._from) * fraction, self._what)


@dataclass(frozen=True)
class _Dataset:
    images: Sequence[Source]
    masks: Sequence[Source | None]
    anomalous: NDArray[np.bool_]
    classes: Sequence[AnomalyClass]
    width: int
    height: int

    @property
    def segmentation(self) -> bool:
        return bool(self.classes) and any(
            mask is not None and bool(bad) for mask, bad in zip(self.masks, self.anomalous, strict=True)
        )

    def some(self, members: NDArray[np.intp]) -> "_Dataset":
        return _Dataset(
            [self.images[index] for index in members],
            [self.masks[index] for index in members],
            self.anomalous[members],
            self.classes,
            self.width,
            self.height,
        )

    def lessons(self, size: tuple[int, int]) -> Lessons:
        coverage: dict[int, Coverage] = {}
        if self.segmentation:
            rows, columns = size[1] // 8 * FINER, size[0] // 8 * FINER
            for index in np.flatnonzero(self.anomalous).tolist():
                mask = self.masks[index]
                if mask is not None:
                    painted = masks.decode(read(mask), self.classes, self.width, self.height)
                    coverage[index] = masks.coverage(painted, len(self.classes), rows, columns)
        return Lessons(self.anomalous, coverage, len(self.classes) if coverage else 1)


def train(
    images: Sequence[Source],
    labels: Sequence[Label],
    masks: Sequence[Source | None],
    classes: Sequence[AnomalyClass],
    out: Path,
    *,
    seed: int = 0,
    recipe: Recipe | None = None,
    progress: Callable[[float, str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    cache: Path | None = None,
    threads: int | None = None,
) -> TrainingReport:
    """Learn to tell anomalous images from normal ones, and write the model to a folder.

    :param images: JPEG or PNG files, each as bytes, as a path, or as a function that returns the bytes; each is read
        several times and none is kept
    :param labels: of each image
    :param masks: of each image, a PNG or None; masks of normal images are checked and otherwise ignored
    :param classes: the kinds of defects painted in the masks; without any, masks are not looked at
    :param out: the folder to write; it must not exist, or be empty, and holds all of the model or nothing
    :param seed: the same images, seed and machine give the same model
    :param recipe: of an earlier training on such images, to skip the search for one
    :param progress: called with a fraction, 0 to 1, and what is being done
    :param cancelled: asked often; when it says True, the training stops
    :param cache: folder for the network; the user's cache folder when None
    :param threads: of the network; as many as there are cores when None
    :raises UnusableDataset: the images cannot be learnt from; `faults` names each one that is at fault
    :raises Cancelled: `cancelled` said True
    """
    report = _Progress(progress, cancelled)
    dataset = _checked(images, labels, masks, classes, report.stage(0.05, "checking images"))
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        raise UnusableDataset(f"the folder {out.name} is not empty; train into a new one")
    backbone = Backbone(cache, threads)
    trials: list[Trial] = []
    with tempfile.TemporaryDirectory(dir=out) as scratch:
        if recipe is None:
            recipe, trials = _choose(dataset, backbone, seed, report, Path(scratch))
        size = scales.working_size(dataset.width, dataset.height, recipe.side)
        views = scales.VIEWS if recipe.views == "all" and len(images) <= _VIEWED_IMAGES else 1
        lessons = dataset.lessons(size)
        report.stage(0.75, "looking at images")
        with FeatureStore(backbone, dataset.images, size, views, report, Path(scratch)) as store:
            repeats = 2 if len(images) <= _CHOOSING_IMAGES else 1
            report.stage(0.95, "calibrating")
            valid = validation.validate(store, lessons, repeats=repeats, seed=seed, tick=report)
            report.stage(0.99, "fitting")
            supervise = validation.supervisable(lessons.anomalous)
            everyone = np.arange(len(images))
            generator = np.random.default_rng([seed])
            fit = heads.fit(store, lessons, everyone, supervise=supervise, generator=generator)
    named = tuple(classes) if lessons.coverage else ()
    artifact.save(out, Model(fit, valid.stack, size, named, valid.offset))
    report.stage(1.0, "trained")(1.0)
    return TrainingReport(
        folder=out,
        recipe=recipe,
        trials=tuple(trials),
        normal=int((~dataset.anomalous).sum()),
        anomalous=int(dataset.anomalous.sum()),
        segmentation=bool(named),
        calibrated=valid.stack.calibrated,
        f1=valid.f1 if valid.stack.calibrated else 0.0,
        iou=valid.iou,
    )


def _checked(
    sources: Sequence[Source],
    labels: Sequence[Label],
    painted: Sequence[Source | None],
    classes: Sequence[AnomalyClass],
    tick: Callable[[float], None],
) -> _Dataset:
    if not len(sources) == len(labels) == len(painted):
        raise UnusableDataset("there must be one label and one mask, or None, for each image")
    if not set(labels) <= {"normal", "anomaly"}:
        raise UnusableDataset("labels must be 'normal' or 'anomaly'")
    if len(classes) > MAX_CLASSES or len({anomaly.rgb() for anomaly in classes}) < len(classes):
        raise UnusableDataset(f"there can be {MAX_CLASSES} classes at most, each with a colour of its own")
    anomalous = np.array([label == "anomaly" for label in labels], bool)
    if int((~anomalous).sum()) < MIN_NORMAL:
        raise UnusableDataset(f"there must be at least {MIN_NORMAL} images labelled normal; add some")
    faults: list[UnusableImage] = []
    sizes: dict[tuple[int, int], list[int]] = {}
    for index, source in enumerate(sources):
        tick(index / len(sources))
        try:
            # Decoded small, which for a JPEG costs little, to find the damaged ones all at once.
            picture = images.decode(read(source), images.MIN_SIDE, images.MIN_SIDE)
            mask = painted[index]
            if classes and mask is not None:
                masks.decode(read(mask), classes, picture.width, picture.height)
            sizes.setdefault((picture.width, picture.height), []).append(index)
        except UnusableImage as error:
            faults.append(error.at(index))
    if faults:
        raise UnusableDataset("images cannot be used", faults)
    common = max(sizes, key=lambda size: len(sizes[size]))
    odd = [
        UnusableImage(f"it has {width} x {height} pixels, most have {common[0]} x {common[1]}", index)
        for (width, height), members in sizes.items()
        for index in members
        if (width, height) != common
    ]
    if odd:
        raise UnusableDataset("all images must have the same size", odd)
    return _Dataset(sources, painted, anomalous, classes, *common)


def _choose(
    dataset: _Dataset, backbone: Backbone, seed: int, report: _Progress, scratch: Path
) -> tuple[Recipe, list[Trial]]:
    candidates = scales.sides(dataset.width, dataset.height)
    if not validation.supervisable(dataset.anomalous):
        return Recipe(scales.default_side(dataset.width, dataset.height), "plain"), []
    part = dataset.some(_sample(dataset.anomalous, seed))
    trials: list[Trial] = []
    best: Trial | None = None
    for place, side in enumerate(candidates):
        size = scales.working_size(dataset.width, dataset.height, side)
        lessons = part.lessons(size)
        first, shares = best is None, 0.6 / len(candidates)
        turned = first or best is not None and best.recipe.views == "all"
        report.stage(0.05 + (place + 0.3) * shares, f"looking at images at {size[0]} x {size[1]}")
        with FeatureStore(
            backbone, part.images, size, scales.VIEWS if turned else 1, report, scratch
        ) as store:
            report.stage(0.05 + (place + 1) * shares, f"trying {size[0]} x {size[1]}")
            tried = [_trial(store, lessons, side, seed, report)] if turned else []
            if first or not turned:
                tried.append(_trial(store.plain(), lessons, side, seed, report))
        trials += tried
        challenger = min(tried, key=lambda trial: trial.loss)
        if best is None or challenger.loss < best.loss * _BETTER:
            best = challenger
        elif best.loss < _BAD:
            break
    assert best is not None  # noqa: S101  there is always a first candidate
    return best.recipe, trials


def _trial(
    store: FeatureStore, lessons: Lessons, side: int, seed: int, tick: Callable[[float], None]
) -> Trial:
    result: Validation = validation.validate(store, lessons, repeats=1, seed=seed, tick=tick)
    return Trial(Recipe(side, "all" if store.views > 1 else "plain"), result.loss, result.f1)


def _sample(anomalous: NDArray[np.bool_], seed: int) -> NDArray[np.intp]:
    if len(anomalous) <= _CHOOSING_IMAGES:
        return np.arange(len(anomalous))
    generator = np.random.default_rng([seed, 1])
    bad, good = np.flatnonzero(anomalous), np.flatnonzero(~anomalous)
    share = min(len(bad), max(_CHOOSING_IMAGES // 2, _CHOOSING_IMAGES - len(good)))
    chosen = [
        generator.choice(bad, share, replace=False),
        generator.choice(good, min(len(good), _CHOOSING_IMAGES - share), replace=False),
    ]
    return np.sort(np.concatenate(chosen))
