"""Trains a detector: checks what it is given, finds how best to look at it, fits, calibrates, writes.

How to look, the recipe, is the working size and whether the rotations and mirrors of each image are learnt
too; it is chosen by cross-validation. The heads are then fitted on all images, and the calibration on the
scores that images got while they were held out.
"""

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from airflow_provider_lookoutvision.engine import artifact, heads
from airflow_provider_lookoutvision.engine.artifact import Model
from airflow_provider_lookoutvision.engine.backbone import Backbone
from airflow_provider_lookoutvision.engine.choosing import SAMPLE, Recipe, Trial, Workshop
from airflow_provider_lookoutvision.engine.dataset import Label, checked
from airflow_provider_lookoutvision.engine.errors import Cancelled, UnusableDataset
from airflow_provider_lookoutvision.engine.masks import AnomalyClass
from airflow_provider_lookoutvision.engine.store import Source


@dataclass(frozen=True)
class TrainingReport:
    """What came out of a training, beside the model.

    `image_size` is the width and height of the images, upright. `calibrated` is False when there were too
    few labelled anomalies to learn what the scores mean; `f1` and `iou` are out-of-fold estimates within the
    training images, and optimistic: the honest figures are those of held-out images.
    """

    folder: Path
    image_size: tuple[int, int]
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
        self._from = self._to = self._last = 0.0
        self._what = ""

    def stage(self, until: float, what: str) -> "_Progress":
        self._from, self._to, self._what = self._to, until, what
        self(0.0)
        return self

    def __call__(self, fraction: float) -> None:
        if self._cancelled is not None and self._cancelled():
            raise Cancelled("the training was cancelled")
        if self._report is not None:
            self._last = max(self._last, self._from + (self._to - self._from) * fraction)
            self._report(self._last, self._what)


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

    :param images: JPEG or PNG files, each as bytes, as a path, or as a function that returns the bytes; each
        is read several times and none is kept
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
    # One thread: the fits are small, and threads that wait for each other spin and take the cores from the
    # network.
    with threadpool_limits(1):
        return _train(
            images,
            labels,
            masks,
            classes,
            out,
            seed,
            recipe,
            _Progress(progress, cancelled),
            Backbone(cache, threads),
        )


def _train(
    images: Sequence[Source],
    labels: Sequence[Label],
    masks: Sequence[Source | None],
    classes: Sequence[AnomalyClass],
    out: Path,
    seed: int,
    recipe: Recipe | None,
    report: _Progress,
    backbone: Backbone,
) -> TrainingReport:
    dataset = checked(images, labels, masks, classes, report.stage(0.05, "checking images"))
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        raise UnusableDataset(f"the folder {out.name} is not empty; train into a new one")
    trials: tuple[Trial, ...] = ()
    with tempfile.TemporaryDirectory(dir=out) as scratch, ExitStack() as stack:
        workshop = Workshop(backbone, seed, report.stage, Path(scratch))
        if recipe is None and len(images) <= SAMPLE:
            study, trials = workshop.choose(dataset, 0.95, stack)
        else:
            if recipe is None:
                with ExitStack() as sampled:
                    study, trials = workshop.choose(dataset.sample(SAMPLE, seed), 0.4, sampled)
                recipe = study.recipe
            study = workshop.study(dataset, recipe, 0.95, stack)
        report.stage(0.99, "fitting")
        valid, size = study.validation, study.store.size
        fit = heads.fit(
            study.store,
            study.lessons,
            np.arange(len(images)),
            supervise=valid.stack.calibrated,
            generator=np.random.default_rng([seed]),
        )
    named = tuple(classes) if study.lessons.coverage else ()
    image_size = dataset.width, dataset.height
    artifact.save(out, Model(fit, valid.stack, image_size, size, named, valid.offset))
    report.stage(1.0, "trained")(1.0)
    return TrainingReport(
        folder=out,
        image_size=image_size,
        recipe=study.recipe,
        trials=trials,
        normal=int((~dataset.anomalous).sum()),
        anomalous=int(dataset.anomalous.sum()),
        segmentation=bool(named),
        calibrated=valid.stack.calibrated,
        f1=valid.f1 if valid.stack.calibrated else 0.0,
        iou=valid.iou,
    )
