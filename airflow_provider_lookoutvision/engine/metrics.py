"""How good a detector is, on images that it has not seen.

Anomalous is the positive class throughout; every figure is 0 to 1. Where a figure has nothing to be computed
from (no verdict of anomalous, for one), it is 0, except that the area under the curve of a single class is
0.5.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import average_precision_score, roc_auc_score


@dataclass(frozen=True)
class Quality:
    """Verdicts against labels."""

    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class ClassQuality(Quality):
    """Pixels of one class of defects; `iou` is the intersection of what is painted and found over their
    union, averaged over the images that have either.
    """

    name: str
    iou: float


def quality(true_positives: float, false_positives: float, false_negatives: float) -> Quality:
    """Precision, recall and F1 from counts."""
    found, present = true_positives + false_positives, true_positives + false_negatives
    return Quality(
        precision=true_positives / found if found else 0.0,
        recall=true_positives / present if present else 0.0,
        f1=2 * true_positives / (found + present) if found + present else 0.0,
    )


def verdicts(truth: ArrayLike, predicted: ArrayLike) -> Quality:
    """Quality of predicted verdicts against true ones, both sequences of booleans."""
    true, guess = np.asarray(truth, bool), np.asarray(predicted, bool)
    return quality(int((true & guess).sum()), int((~true & guess).sum()), int((true & ~guess).sum()))


def roc_auc(truth: ArrayLike, score: ArrayLike) -> float:
    """Area under the receiver operating characteristic; 0.5 when only one class is present."""
    true = np.asarray(truth, bool)
    return float(roc_auc_score(true, score)) if 0 < true.sum() < true.size else 0.5


def average_precision(truth: ArrayLike, score: ArrayLike) -> float:
    """Mean of precision over recall; 0 when nothing is anomalous."""
    true = np.asarray(truth, bool)
    return float(average_precision_score(true, score)) if true.any() else 0.0


def log_loss(truth: ArrayLike, probability: ArrayLike) -> float:
    """Mean negative logarithm of the probability given to what is true; probabilities are clipped to 1e-4."""
    true = np.asarray(truth, bool)
    clipped = np.clip(np.asarray(probability, np.float64), 1e-4, 1 - 1e-4)
    return float(-np.log(np.where(true, clipped, 1 - clipped)).mean())


class PixelCounts:
    """Adds up pixels of true and found masks, image by image, so that no more than one is in memory."""

    def __init__(self, names: list[str]) -> None:
        self._names = names
        self._counts = np.zeros((len(names), 3))
        self._ious: list[list[float]] = [[] for _ in names]

    def add(self, truth: NDArray[np.uint8], found: NDArray[np.uint8]) -> None:
        """Count one image: two masks of class indices, of one shape."""
        for index in range(len(self._names)):
            true, guess = truth == index + 1, found == index + 1
            both, either = int((true & guess).sum()), int((true | guess).sum())
            self._counts[index] += both, int(guess.sum()) - both, int(true.sum()) - both
            if either:
                self._ious[index].append(both / either)

    def result(self) -> tuple[ClassQuality, ...]:
        """The quality of each class, over all images counted."""
        rows = []
        for name, counts, ious in zip(self._names, self._counts, self._ious, strict=True):
            figures = quality(*counts.tolist())
            iou = float(np.mean(ious)) if ious else 0.0
            rows.append(ClassQuality(figures.precision, figures.recall, figures.f1, name, iou))
        return tuple(rows)
