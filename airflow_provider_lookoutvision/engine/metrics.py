"""Metrics of predictions against labels and masks.

Anomalous is the positive class. All metrics but the log-loss are 0 to 1, the higher the better. A metric that
is undefined, such as the precision when nothing was predicted to be anomalous, is 0; the ROC AUC is then 0.5.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

_EPSILON = 1e-12  # of a probability, before its log-odds


@dataclass(frozen=True)
class ClassificationMetrics:
    """Precision, recall and F1, each 0 to 1."""

    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class PixelMetrics(ClassificationMetrics):
    """The pixels of one class of defects.

    :param name: of the class
    :param iou: intersection over union of the true and the predicted mask, 0 to 1: the mean over the images
        where either has the class
    """

    name: str
    iou: float


@dataclass(frozen=True)
class OperatingPoint(ClassificationMetrics):
    """The metrics of the predictions with a threshold.

    :param threshold: of the probability, between 0 and 1
    """

    threshold: float


def from_counts(
    true_positives: float, false_positives: float, false_negatives: float
) -> ClassificationMetrics:
    """Precision, recall and F1 from counts."""
    predicted, actual = true_positives + false_positives, true_positives + false_negatives
    return ClassificationMetrics(
        precision=true_positives / predicted if predicted else 0.0,
        recall=true_positives / actual if actual else 0.0,
        f1=2 * true_positives / (predicted + actual) if predicted + actual else 0.0,
    )


def classification_metrics(y_true: ArrayLike, y_pred: ArrayLike) -> ClassificationMetrics:
    """Precision, recall and F1 of predictions; both arguments are n booleans."""
    true, predicted = np.asarray(y_true, bool), np.asarray(y_pred, bool)
    return from_counts(
        int((true & predicted).sum()), int((~true & predicted).sum()), int((true & ~predicted).sum())
    )


def operating_points(y_true: ArrayLike, probability: ArrayLike) -> tuple[OperatingPoint, ...]:
    """Precision, recall and F1 at each threshold that is worth choosing, the highest first.

    Those are the thresholds with a normal image next below and an anomalous one next above: any other has as
    many false positives for fewer true ones, or more for as many. Each is in the middle, in log-odds, of the
    probabilities of those two images. The last one finds every anomalous image. Without any there are none.
    """
    true = np.asarray(y_true, bool)
    values, groups = np.unique(np.asarray(probability, np.float64), return_inverse=True)
    anomalous = np.bincount(groups, true, len(values))[::-1].cumsum()
    normal = np.bincount(groups, ~true, len(values))[::-1].cumsum()
    values = np.clip(values[::-1], _EPSILON, 1 - _EPSILON)
    logits = np.append(np.log(values / (1 - values)), -np.inf)
    points = []
    for end in range(len(values)):
        last = end == len(values) - 1
        finds_more = anomalous[end] > (anomalous[end - 1] if end else 0)
        # The next image below would be a false positive.
        is_before_normal = last or normal[end + 1] > normal[end]
        if finds_more and is_before_normal:
            below = logits[end] - 1 if last else logits[end + 1]
            true_positives = int(anomalous[end])
            counts = from_counts(true_positives, int(normal[end]), int(true.sum()) - true_positives)
            threshold = float(1 / (1 + np.exp(-(logits[end] + below) / 2)))
            points.append(OperatingPoint(counts.precision, counts.recall, counts.f1, threshold))
    return tuple(points)


def roc_auc(y_true: ArrayLike, y_score: ArrayLike) -> float:
    """Area under the receiver operating characteristic; 0.5 when only one class is present."""
    true = np.asarray(y_true, bool)
    return float(roc_auc_score(true, y_score)) if 0 < true.sum() < true.size else 0.5


def average_precision(y_true: ArrayLike, y_score: ArrayLike) -> float:
    """Area under the curve of precision over recall; 0 when nothing is anomalous."""
    true = np.asarray(y_true, bool)
    return float(average_precision_score(true, y_score)) if true.any() else 0.0


def log_loss(y_true: ArrayLike, probability: ArrayLike) -> float:
    """Mean negative log-likelihood, in nats, of n labels; probabilities are clipped to 1e-4..1 - 1e-4."""
    true = np.asarray(y_true, bool)
    clipped = np.clip(np.asarray(probability, np.float64), 1e-4, 1 - 1e-4)
    return float(-np.log(np.where(true, clipped, 1 - clipped)).mean())


class PixelMetricsAccumulator:
    """Pixel metrics of many images, added one by one, so that only one pair of masks is in memory."""

    def __init__(self, class_names: Sequence[str]) -> None:
        self._class_names = class_names
        self._counts = np.zeros((len(class_names), 3))
        self._ious: list[list[float]] = [[] for _ in class_names]

    def update(self, true_mask: NDArray[np.uint8], predicted_mask: NDArray[np.uint8]) -> None:
        """Add an image: two masks of class indices, `height x width`."""
        for index in range(len(self._class_names)):
            true, predicted = true_mask == index + 1, predicted_mask == index + 1
            both, either = int((true & predicted).sum()), int((true | predicted).sum())
            self._counts[index] += both, int(predicted.sum()) - both, int(true.sum()) - both
            if either:
                self._ious[index].append(both / either)

    def compute(self) -> tuple[PixelMetrics, ...]:
        """The metrics of each class over all images."""
        result = []
        for name, counts, ious in zip(self._class_names, self._counts, self._ious, strict=True):
            metrics = from_counts(*counts.tolist())
            iou = float(np.mean(ious)) if ious else 0.0
            result.append(PixelMetrics(metrics.precision, metrics.recall, metrics.f1, name, iou))
        return tuple(result)
