"""The thorough effort: trains the network itself beside the quick heads, and keeps it if it is better.

The network is trained on three quarters of the images and scores the others, for as many of four folds as the
dataset's size allows: all of them on a GPU. Its logit is stacked with that of the quick heads, whose scores
of the same images are out of fold too, and the stack is compared by its cross-validated log-loss on them; the
masks by their IoU on them. What is kept is then trained on, on all images, for a third of the epochs.
"""

import importlib.util
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold

from airflow_provider_lookoutvision.engine import calibration, mask_calibration, metrics
from airflow_provider_lookoutvision.engine.calibration import StackedClassifier
from airflow_provider_lookoutvision.engine.dataset import Dataset
from airflow_provider_lookoutvision.engine.errors import MissingDependency, UnusableBackbone, UnusableDataset
from airflow_provider_lookoutvision.engine.feature_store import PATCH_PIXELS
from airflow_provider_lookoutvision.engine.mask_calibration import HeldOutMaps, MaskCalibration
from airflow_provider_lookoutvision.engine.model_selection import Candidate
from airflow_provider_lookoutvision.engine.pixel_store import PixelStore
from airflow_provider_lookoutvision.engine.targets import CELLS_PER_PATCH
from airflow_provider_lookoutvision.engine.tuned_network import MAP_STRIDE, TunedNetwork
from airflow_provider_lookoutvision.engine.weights import Weights

if TYPE_CHECKING:
    from airflow_provider_lookoutvision.engine.finetuning import Tuner

Effort = Literal["quick", "thorough"]

FOLDS = 4
# On the processor a fold of a large dataset costs too much for four of them.
_IMAGES_OF_ALL_FOLDS = 300
_EPOCHS, _EPOCHS_AT, _EPOCHS_RANGE = 40, 150, (10, 60)
_LAST_EPOCHS_PART = 1 / 3
MIN_ANOMALIES = 8
# Larger images are trained on in crops of this side, which need masks.
CROP = 320
_MAX_WHOLE_PIXELS = 448 * 448
_TOP_FRACTION = 0.002
# How much better it has to be to be kept.
_LOSS_RATIO, _IOU_GAIN = 0.97, 0.03


@dataclass(frozen=True)
class Outcome:
    """What the thorough effort came to.

    :param network: None when the quick heads are as good without it
    :param summary: what was tried and kept, as a sentence
    :param masks: how masks are painted: as those of the quick heads are, unless the network paints
    """

    network: TunedNetwork | None
    summary: str
    masks: MaskCalibration


def check_effort(effort: str, backbone: Path | None = None) -> None:
    """Check that a training can be of this effort.

    :param backbone: of a user's network
    :raises UnusableDataset: there is no such effort
    :raises UnusableBackbone: this effort does not train a user's network
    :raises MissingDependency: torch is not installed
    """
    if effort not in get_args(Effort):
        raise UnusableDataset(f"the effort is {effort!r}; it must be one of {', '.join(get_args(Effort))}")
    if effort == "thorough" and backbone is not None:
        raise UnusableBackbone(
            f"the effort 'thorough' trains EfficientNet-lite0, not the backbone {backbone}; choose one"
        )
    if effort == "thorough" and importlib.util.find_spec("torch") is None:
        raise MissingDependency(
            "the effort 'thorough' trains a network with torch, which is not installed: "
            "pip install 'airflow-provider-lookoutvision[finetune]'"
        )


def train(
    dataset: Dataset,
    quick: Candidate,
    weights: Weights,
    on_progress: Callable[[float, str], None],
    *,
    seed: int,
    threads: int | None,
    folder: Path,
) -> Outcome:
    """Train the network, and compare.

    :param quick: the quick heads, cross-validated on the same dataset
    :param on_progress: called with the fraction done, 0 to 1, and what is done, before each step; may raise
        to stop
    :param folder: for temporary files
    """
    anomalous = dataset.anomalous
    fewest = int(min(anomalous.sum(), (~anomalous).sum()))
    if fewest < MIN_ANOMALIES:
        summary = (
            f"no network was trained: that takes {MIN_ANOMALIES} images of each kind, and there are {fewest}"
        )
        return Outcome(None, summary, quick.result.masks)
    width, height = quick.store.size
    if width * height > _MAX_WHOLE_PIXELS and not quick.targets.coverage:
        summary = f"no network was trained: at {width} x {height} pixels that takes masks"
        return Outcome(None, summary, quick.result.masks)
    with PixelStore(dataset.images, quick.store.size, folder) as pixels:
        return _Training(quick, pixels, weights, on_progress, seed, threads).run()


@dataclass
class _HeldOut:
    """The network's scores of images that it was not trained on."""

    logits: dict[int, float]
    maps: HeldOutMaps


class _Training:
    def __init__(
        self,
        quick: Candidate,
        pixels: PixelStore,
        weights: Weights,
        on_progress: Callable[[float, str], None],
        seed: int,
        threads: int | None,
    ) -> None:
        self._quick, self._pixels, self._weights = quick, pixels, weights
        self._seed, self._threads = seed, threads
        self._on_progress, self._started = on_progress, time.monotonic()
        self._anomalous = quick.targets.anomalous

    def run(self) -> Outcome:
        # Threads that spin while they wait take the cores from all else. Read once, when torch is imported.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        from airflow_provider_lookoutvision.engine import finetuning

        count = len(self._anomalous)
        low, high = _EPOCHS_RANGE
        epochs = int(np.clip(round(_EPOCHS * (_EPOCHS_AT / count) ** 0.5), low, high))
        on_gpu = finetuning.device().type == "cuda"
        folds = FOLDS if on_gpu else int(np.clip(_IMAGES_OF_ALL_FOLDS // count, 1, FOLDS))
        share = 1 / (folds + _LAST_EPOCHS_PART)
        width, height = self._pixels.size
        places, rng = width * height // MAP_STRIDE**2, np.random.default_rng([self._seed, 6])
        held_out = _HeldOut({}, HeldOutMaps(self._quick.targets, 1, places, rng))
        splitter = StratifiedKFold(FOLDS, shuffle=True, random_state=self._seed)
        splits = list(splitter.split(np.zeros(count), self._anomalous))[:folds]
        tuner = None
        for number, (train, test) in enumerate(splits):
            tuner = self._tuner(finetuning.Tuner)
            self._fit(tuner, train, epochs, number * share, share)
            self._score(tuner, test, held_out)
        assert tuner is not None  # noqa: S101 (there is one fold at least)
        where = "on a GPU" if on_gpu else "on the processor"
        compared = self._compare(held_out)
        summary = f"a network was trained {where}; on {len(held_out.logits)} held-out images {compared.text}"
        if compared.classifier is None and not compared.paints:
            return Outcome(None, f"{summary}; the quick model was kept", self._quick.result.masks)
        self._fit(
            tuner,
            np.arange(count),
            max(1, round(epochs * _LAST_EPOCHS_PART)),
            folds * share,
            1 - folds * share,
        )
        network = TunedNetwork(tuner.network(), compared.classifier, compared.paints)
        kept = " and ".join(
            name
            for name, is_kept in (("the verdict", compared.classifier), ("masks", compared.paints))
            if is_kept
        )
        return Outcome(network, f"{summary}; it was kept for {kept}", compared.masks)

    def _tuner(self, kind: type["Tuner"]) -> "Tuner":
        width, height = self._crop
        places = width * height // MAP_STRIDE**2
        return kind(
            self._weights,
            self._quick.targets.class_count,
            max(1, round(places * _TOP_FRACTION)),
            flips=self._quick.hyperparameters.augment,
            seed=self._seed,
            threads=self._threads or os.cpu_count() or 1,
        )

    @property
    def _crop(self) -> tuple[int, int]:
        width, height = self._pixels.size
        if width * height <= _MAX_WHOLE_PIXELS:
            return width, height
        return min(width, CROP), min(height, CROP)

    def _fit(
        self, tuner: "Tuner", indices: NDArray[np.intp], epochs: int, start: float, share: float
    ) -> None:
        def on_step(fraction: float) -> None:
            done = start + share * fraction
            self._on_progress(done, f"training the network{self._time_left(done)}")

        crops = self._pixels.crops(self._quick.targets, indices, self._crop, self._seed)
        tuner.train(crops, epochs, on_step)

    def _time_left(self, done: float) -> str:
        passed = time.monotonic() - self._started
        if done < 0.02 or passed < 5:
            return ""
        minutes = passed * (1 - done) / done / 60
        return f", {minutes:.0f} minutes left" if minutes >= 1.5 else ", a minute left"

    def _score(self, tuner: "Tuner", indices: NDArray[np.intp], held_out: _HeldOut) -> None:
        for index in indices.tolist():
            held_out.logits[index], logits = tuner.scores(self._pixels.get(index))
            held_out.maps.add(index, index, logits)

    def _compare(self, held_out: _HeldOut) -> "_Comparison":
        result, targets = self._quick.result, self._quick.targets
        indices = np.array(sorted(held_out.logits))
        all_quick_logits = result.classifier.logit(result.scores)
        quick_logits = all_quick_logits.reshape(-1, len(self._anomalous)).mean(axis=0)
        points = np.stack([quick_logits[indices], [held_out.logits[index] for index in indices]], axis=1)
        anomalous = self._anomalous[indices]
        quick_loss = _cross_validated_loss(points[:, :1], anomalous, self._seed)
        loss = _cross_validated_loss(points, anomalous, self._seed)
        classifier = calibration.fit(points, anomalous) if loss < quick_loss * _LOSS_RATIO else None
        text = f"log-loss {loss:.3f}, quick {quick_loss:.3f}"
        # Both are compared on the same images, the quick ones perhaps held out repeatedly.
        both = {each.index for each in held_out.maps.maps} & {each.index for each in result.maps}
        maps, quick_maps = (
            [each for each in kept if each.index in both] for kept in (held_out.maps.maps, result.maps)
        )
        if not maps:
            return _Comparison(classifier, paints=False, masks=result.masks, text=text)
        logits = quick_logits.copy()
        if classifier is not None:
            logits[indices] = classifier.logit(points)
        masks = mask_calibration.calibrate(
            maps, logits, targets, CELLS_PER_PATCH * MAP_STRIDE // PATCH_PIXELS
        )
        quick_iou = mask_calibration.calibrate(quick_maps, all_quick_logits, targets).iou
        paints = masks.iou > quick_iou + _IOU_GAIN
        return _Comparison(
            classifier,
            paints=paints,
            masks=masks if paints else result.masks,
            text=f"{text}, IoU of masks {masks.iou:.2f}, quick {quick_iou:.2f}",
        )


@dataclass(frozen=True)
class _Comparison:
    classifier: StackedClassifier | None
    paints: bool
    masks: MaskCalibration
    text: str


def _cross_validated_loss(points: NDArray[np.float64], anomalous: NDArray[np.bool_], seed: int) -> float:
    folds = max(2, min(5, int(anomalous.sum()), int((~anomalous).sum())))
    probability = np.empty(len(anomalous))
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    for train, test in splitter.split(points, anomalous):
        probability[test] = calibration.fit(points[train], anomalous[train]).probability(points[test])
    return metrics.log_loss(anomalous, probability)
