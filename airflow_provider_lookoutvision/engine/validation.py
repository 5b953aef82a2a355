"""How well a way of training does on images it has not seen: cross-validation within the training set.

The folds are stratified and repeated, and ways of training are compared by the log-loss of the stacked
probability, which goes on telling them apart where few images are all told right.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold

from airflow_provider_lookoutvision.engine import calibration, heads, metrics
from airflow_provider_lookoutvision.engine.calibration import Stack
from airflow_provider_lookoutvision.engine.heads import Lessons
from airflow_provider_lookoutvision.engine.masks import Coverage
from airflow_provider_lookoutvision.engine.store import Array, FeatureStore, upsample
from airflow_provider_lookoutvision.engine.supervised import FINER

FOLDS = 5
# Added to the logits of the classes before a patch is given to one or to the background.
OFFSETS = np.arange(-6.0, 2.5, 0.5)


@dataclass(frozen=True)
class Validation:
    """`scores` is `(repeats * n) x heads`, out of fold, with its `anomalous`; `offset` suits the masks
    best.
    """

    stack: Stack
    scores: Array
    anomalous: NDArray[np.bool_]
    loss: float
    offset: float
    iou: float

    @property
    def f1(self) -> float:
        """Of the stacked verdicts, on the scores that the stack was fitted on: a little optimistic."""
        return metrics.verdicts(self.anomalous, self.stack.probability(self.scores) > 0.5).f1


def supervisable(anomalous: NDArray[np.bool_]) -> bool:
    """Whether there are anomalies enough to hold some out and still learn from the rest."""
    return int(anomalous.sum()) >= 4


def validate(
    store: FeatureStore,
    lessons: Lessons,
    *,
    repeats: int,
    seed: int,
    tick: Callable[[float], None],
) -> Validation:
    """Fit on each part of the images, score the plain view of the rest.

    :param tick: called with the fraction done before each fold; may raise to stop
    """
    supervise = supervisable(lessons.anomalous)
    count = len(lessons.anomalous)
    smallest = int(lessons.anomalous.sum()) if supervise else int((~lessons.anomalous).sum())
    folds = max(2, min(FOLDS, smallest))
    rows: list[Array] = []
    ious: list[Array] = []
    for repeat in range(repeats):
        splitter = StratifiedKFold(folds, shuffle=True, random_state=seed + repeat)
        scores: dict[int, Array] = {}
        for fold, (fitted, held) in enumerate(splitter.split(np.zeros(count), lessons.anomalous & supervise)):
            tick((repeat * folds + fold) / (repeats * folds))
            generator = np.random.default_rng([seed, repeat, fold])
            fit = heads.fit(store, lessons, fitted, supervise=supervise, generator=generator)
            for index in held.tolist():
                scores[index], logits = fit.scores(store.get(index))
                if logits is not None and lessons.coverage.get(index):
                    ious.append(_ious(logits, lessons.coverage[index]))
        rows.append(np.stack([scores[index] for index in range(count)]))
    out_of_fold, anomalous = np.concatenate(rows), np.tile(lessons.anomalous, repeats)
    if supervise:
        stack = calibration.fit(out_of_fold, anomalous)
        loss = metrics.log_loss(anomalous, stack.probability(out_of_fold))
    else:
        stack = calibration.fit_normal(out_of_fold[~anomalous])
        loss = float("inf")
    table = np.stack(ious) if ious else np.zeros((1, len(OFFSETS)), np.float32)
    offset = calibration.best_offset(table, OFFSETS) if ious else 0.0
    return Validation(stack, out_of_fold, anomalous, loss, offset, float(table.mean(axis=0).max()))


def _ious(logits: Array, coverage: Coverage) -> Array:
    """At each offset, the mean over the painted classes of the IoU, at a quarter of a patch."""
    fine = upsample(logits, FINER)
    classes = fine.argmax(axis=2)
    highest = fine.max(axis=2)
    painted = {index: plane.astype(np.float32) / 255 for index, plane in coverage.items()}
    result = np.zeros(len(OFFSETS), np.float32)
    for place, offset in enumerate(OFFSETS):
        found = highest + offset > 0
        for index, covered in painted.items():
            mine = found & (classes == index)
            both = float(covered[mine].sum())
            either = float(covered.sum()) + float(mine.sum()) - both
            result[place] += both / max(either, 1e-6) / len(painted)
    return result
