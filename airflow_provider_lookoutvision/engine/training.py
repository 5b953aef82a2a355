"""Trains a detector: checks the dataset, chooses hyperparameters, fits, calibrates, saves.

The hyperparameters are chosen by cross-validation. The heads are then fitted on all images, and the
calibration on their out-of-fold scores.
"""

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from airflow_provider_lookoutvision.engine import (
    artifact,
    custom_backbone,
    heads,
    model_selection,
    refinement_training,
    thorough,
    weights,
)
from airflow_provider_lookoutvision.engine.artifact import Model
from airflow_provider_lookoutvision.engine.backbone import Backbone
from airflow_provider_lookoutvision.engine.cross_validation import has_enough_anomalies
from airflow_provider_lookoutvision.engine.dataset import Label, check_dataset
from airflow_provider_lookoutvision.engine.errors import Cancelled, UnusableDataset
from airflow_provider_lookoutvision.engine.images import ImageSource
from airflow_provider_lookoutvision.engine.masks import AnomalyClass
from airflow_provider_lookoutvision.engine.model_selection import (
    MAX_SEARCH_IMAGES,
    Hyperparameters,
    HyperparameterSearch,
    Trial,
)
from airflow_provider_lookoutvision.engine.thorough import Effort


@dataclass(frozen=True)
class TrainingReport:
    """The result of a training, beside the model.

    :param folder: the folder of the model
    :param image_size: width and height of the images, upright, in pixels
    :param trials: the hyperparameters that were tried; empty when they were given
    :param normal: number of normal images
    :param anomalous: number of anomalous images
    :param segmentation: whether the model makes masks
    :param calibrated: False when there were too few labelled anomalies to fit the probability
    :param f1: out-of-fold estimate, 0 to 1, optimistic: `evaluate` on held-out images is what to rely on
    :param iou: of the masks; likewise an out-of-fold estimate
    :param effort: "thorough" when the model has a network that was trained on the images, else "quick"
    :param summary: what the thorough effort tried and kept, as a sentence; empty when it was not requested
    """

    folder: Path
    image_size: tuple[int, int]
    hyperparameters: Hyperparameters
    trials: tuple[Trial, ...]
    normal: int
    anomalous: int
    segmentation: bool
    calibrated: bool
    f1: float
    iou: float
    effort: Effort
    summary: str


class _Progress:
    """Reports the progress of the training, and raises `Cancelled` when it was cancelled."""

    def __init__(
        self, report: Callable[[float, str], None] | None, cancelled: Callable[[], bool] | None
    ) -> None:
        self._report, self._cancelled = report, cancelled
        self._start = self._end = self._last = 0.0
        self._stage = ""

    def stage(self, until: float, name: str) -> "_Progress":
        """Begin a stage that ends at this fraction of the training; call the result with the stage's own."""
        self._start, self._end, self._stage = self._end, until, name
        self(0.0)
        return self

    def named(self, fraction: float, name: str) -> None:
        """Report the progress of a stage that says itself what is done."""
        self._stage = name
        self(fraction)

    def __call__(self, fraction: float) -> None:
        if self._cancelled is not None and self._cancelled():
            raise Cancelled("the training was cancelled")
        if self._report is not None:
            self._last = max(self._last, self._start + (self._end - self._start) * fraction)
            self._report(self._last, self._stage)


def train(
    images: Sequence[ImageSource],
    labels: Sequence[Label],
    masks: Sequence[ImageSource | None],
    classes: Sequence[AnomalyClass],
    out: Path,
    *,
    effort: Effort = "quick",
    backbone: Path | None = None,
    seed: int = 0,
    hyperparameters: Hyperparameters | None = None,
    progress: Callable[[float, str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    cache: Path | None = None,
    threads: int | None = None,
) -> TrainingReport:
    """Train a model on labelled images, and save it to a folder.

    :param images: JPEG or PNG files, each as bytes, as a path, or as a function that returns the bytes; each
        is read several times and none is kept in memory
    :param labels: "normal" or "anomaly", one for each image
    :param masks: a PNG file or None, one for each image; masks of normal images are checked and otherwise
        ignored
    :param classes: the classes of defects in the masks; when empty, masks are ignored
    :param out: the folder for the model; it must be empty or not exist, and stays empty if training fails
    :param effort: "thorough" trains the network itself too, with torch, which takes minutes on a processor,
        and keeps it if it is better
    :param backbone: the ONNX file of another pretrained network, with a JSON file beside it that
        `custom_backbone` describes; the model carries it
    :param seed: of all random numbers; the same images, seed, versions and machine give the same model
    :param hyperparameters: of an earlier training on similar images, instead of the search
    :param progress: called with the fraction done, 0 to 1, and the name of the stage
    :param cancelled: called often; when it returns True, the training stops
    :param cache: folder for the network; the user's cache folder when None
    :param threads: of the network; as many as there are cores when None
    :raises UnusableDataset: something is wrong with the dataset; `faults` has an error for each faulty image
    :raises UnusableBackbone: the network's weights are not installed or not the ones expected, or `backbone`
        can't be used, or not with this `effort`
    :raises MissingDependency: `effort` is "thorough", and torch is not installed
    :raises Cancelled: `cancelled` returned True
    """
    thorough.check_effort(effort, backbone)
    custom = None if backbone is None else custom_backbone.read(backbone)
    # One thread: the fits are small, and idle BLAS threads spin and take the cores from the network.
    with threadpool_limits(1):
        return _train(
            images,
            labels,
            masks,
            classes,
            out,
            effort,
            seed,
            hyperparameters,
            _Progress(progress, cancelled),
            Backbone(cache, threads, custom),
            threads,
        )


def _train(
    images: Sequence[ImageSource],
    labels: Sequence[Label],
    masks: Sequence[ImageSource | None],
    classes: Sequence[AnomalyClass],
    out: Path,
    effort: Effort,
    seed: int,
    hyperparameters: Hyperparameters | None,
    report: _Progress,
    backbone: Backbone,
    threads: int | None,
) -> TrainingReport:
    dataset = check_dataset(images, labels, masks, classes, report.stage(0.05, "checking images"))
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        raise UnusableDataset(f"the folder {out.name} is not empty; train into a new one")
    trials: tuple[Trial, ...] = ()
    chosen = 0.2 if effort == "thorough" else 0.95
    outcome: thorough.Outcome | None = None
    with tempfile.TemporaryDirectory(dir=out) as temporary, ExitStack() as stack:
        search = HyperparameterSearch(backbone, seed, report.stage, Path(temporary))
        if hyperparameters is None and not has_enough_anomalies(dataset.anomalous):
            hyperparameters = model_selection.without_anomalies(dataset)
        if hyperparameters is None and len(images) <= MAX_SEARCH_IMAGES:
            best, trials = search.search(dataset, chosen, stack)
        else:
            if hyperparameters is None:
                with ExitStack() as sample_stack:
                    sample = dataset.sample(MAX_SEARCH_IMAGES, seed)
                    best, trials = search.search(sample, 0.4 * chosen, sample_stack)
                hyperparameters = best.hyperparameters
            best = search.evaluate(dataset, hyperparameters, chosen, stack)
        if effort == "thorough":
            outcome = thorough.train(
                dataset,
                best,
                weights.read(weights.find()),
                report.stage(0.97, "training the network").named,
                seed=seed,
                threads=threads,
                folder=Path(temporary),
            )
        tuned = None if outcome is None else outcome.network
        network_paints = tuned is not None and tuned.paints
        refined = None
        if refinement_training.is_applicable(dataset, best) and not network_paints:
            refined = refinement_training.fit(
                dataset,
                best,
                backbone,
                report.stage(0.98, "refining masks"),
                seed=seed,
                folder=Path(temporary),
            )
        report.stage(0.99, "fitting")
        result, working_size = best.result, best.store.size
        calibrated = result.classifier.calibrated
        fitted = heads.fit(
            best.store,
            best.targets,
            np.arange(len(images)),
            supervised=calibrated,
            rng=np.random.default_rng([seed]),
        )
    mask_classes = tuple(classes) if best.targets.coverage else ()
    image_size = dataset.width, dataset.height
    painting = result.masks if outcome is None else outcome.masks
    artifact.save(
        out,
        Model(
            fitted,
            result.classifier,
            image_size,
            working_size,
            mask_classes,
            painting.offset,
            tuned,
            painting.presence,
            backbone.custom,
            None if refined is None else refined.refinement,
        ),
    )
    report.stage(1.0, "trained")(1.0)
    return TrainingReport(
        folder=out,
        image_size=image_size,
        hyperparameters=replace(
            best.hyperparameters, backbone=backbone.custom.title if backbone.custom else ""
        ),
        trials=trials,
        normal=int((~dataset.anomalous).sum()),
        anomalous=int(dataset.anomalous.sum()),
        segmentation=bool(mask_classes),
        calibrated=calibrated,
        f1=result.f1 if calibrated else 0.0,
        iou=painting.iou if refined is None else refined.iou,
        effort="quick" if tuned is None else "thorough",
        summary="" if outcome is None else outcome.summary,
    )
