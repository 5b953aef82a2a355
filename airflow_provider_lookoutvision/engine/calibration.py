"""From the scores of the heads to one probability, and from that to a verdict.

The heads are stacked by a logistic regression on scores of images that they were not fitted on; a head that
would count backwards is left out. Both kinds of image weigh the same, however many there are, so that p > 0.5
is where they are told apart and not where the training set happened to have more of one. Without labelled
anomalies there is nothing to fit: the boundary is then a high quantile of what normal images score, and the
result is not a calibrated probability.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from airflow_provider_lookoutvision.engine.store import Array

# The share of normal images that may be called anomalous where no anomaly tells better, and how steep the
# verdict is.
_FALSE_ALARMS = 0.02
_STEEPNESS = 2.0


@dataclass(frozen=True)
class Stack:
    """One mean, scale and coefficient a score, and an intercept."""

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    coefficients: NDArray[np.float64]
    intercept: float
    calibrated: bool

    def probability(self, scores: NDArray[np.floating]) -> NDArray[np.float64]:
        """That an image is anomalous, for `n x heads` scores."""
        logits = ((scores - self.mean) / self.scale) @ self.coefficients + self.intercept
        result: NDArray[np.float64] = 1 / (1 + np.exp(-np.clip(logits, -30, 30)))
        return result


def fit(scores: NDArray[np.floating], anomalous: NDArray[np.bool_]) -> Stack:
    """Learn to weigh the heads.

    :param scores: `n x heads`, each of an image that its head was not fitted on
    :param anomalous: n labels, of both kinds
    """
    values = np.asarray(scores, np.float64)
    mean, scale = values.mean(axis=0), values.std(axis=0) + 1e-9
    points = (values - mean) / scale
    kept = np.arange(points.shape[1])
    while True:
        model = LogisticRegression(C=1.0, class_weight="balanced").fit(points[:, kept], anomalous)
        backwards = model.coef_[0] < 0
        if not backwards.any() or len(kept) == 1:
            break
        kept = np.delete(kept, int(model.coef_[0].argmin()))
    coefficients = np.zeros(points.shape[1])
    coefficients[kept] = np.maximum(model.coef_[0], 0)
    return Stack(mean, scale, coefficients, float(model.intercept_[0]), calibrated=True)


def fit_normal(scores: NDArray[np.floating]) -> Stack:
    """Draw the boundary from the scores of normal images alone.

    :param scores: `n x heads`; only the first head, the memory bank's, is used
    """
    values = np.asarray(scores, np.float64)[:, :1]
    mean, scale = values.mean(axis=0), values.std(axis=0) + 1e-9
    boundary = float(np.quantile((values[:, 0] - mean[0]) / scale[0], 1 - _FALSE_ALARMS))
    # Few images do not show how far the tail goes: never closer than two standard deviations.
    return Stack(mean, scale, np.array([_STEEPNESS]), -_STEEPNESS * max(boundary, 2.0), calibrated=False)


def verdict(probability: float) -> tuple[bool, float]:
    """Whether the image is anomalous, and the probability that this verdict is right."""
    anomalous = probability > 0.5
    return anomalous, probability if anomalous else 1 - probability


def best_offset(ious: Array, offsets: NDArray[np.float64]) -> float:
    """The offset of the class logits with the best IoU on average, from `images x offsets` of them."""
    return float(offsets[int(ious.mean(axis=0).argmax())])
