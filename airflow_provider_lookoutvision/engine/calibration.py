"""Combines the scores of the heads into the probability that an image is anomalous.

The heads are stacked (Wolpert 1992, "Stacked Generalization") by a logistic regression on out-of-fold scores;
a head with a negative coefficient is left out. Normal and anomalous images weigh the same, however many there
are, so that p > 0.5 does not depend on their shares in the training set. Without labelled anomalies there is
nothing to fit: the threshold is then a high quantile of the scores of normal images, and the probability is
not calibrated.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Without anomalies: the fraction of normal images above the threshold, the least threshold in standard
# deviations (few images do not show how long the tail is), and the slope of the logit.
_FALSE_POSITIVE_RATE = 0.02
_MIN_THRESHOLD = 2.0
_SLOPE = 2.0
LARGEST_LOGIT = 30.0


def sigmoid(logits: NDArray[Any]) -> NDArray[Any]:
    """The logistic function; logits are clipped to -30..30."""
    result: NDArray[Any] = 1 / (1 + np.exp(-np.clip(logits, -LARGEST_LOGIT, LARGEST_LOGIT)))
    return result


@dataclass(frozen=True)
class StackedClassifier:
    """A logistic regression on standardised scores; the highest of them, where it isn't calibrated.

    :param mean: one number for each head, like `scale` and `coefficients`
    :param calibrated: whether it was fitted to labelled anomalies
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    coefficients: NDArray[np.float64]
    intercept: float
    calibrated: bool

    def logit(self, scores: NDArray[np.floating]) -> NDArray[np.float64]:
        """The log-odds, -30 to 30, that each of n images is anomalous, from `n x heads` scores."""
        points = (scores - self.mean) / self.scale
        combined = points @ self.coefficients if self.calibrated else (points * self.coefficients).max(axis=1)
        return np.clip(combined + self.intercept, -LARGEST_LOGIT, LARGEST_LOGIT)

    def probability(self, scores: NDArray[np.floating]) -> NDArray[np.float64]:
        """The probability, 0 to 1, that each of n images is anomalous, from `n x heads` scores."""
        return sigmoid(self.logit(scores))


def fit(scores: NDArray[np.floating], anomalous: NDArray[np.bool_]) -> StackedClassifier:
    """Fit the weights of the heads.

    :param scores: `n x heads`, out of fold: each image is scored by heads that were fitted without it
    :param anomalous: n labels, some False and some True
    """
    # Imported to train alone: detection starts faster without, in half the memory.
    from sklearn.linear_model import LogisticRegression

    values = np.asarray(scores, np.float64)
    mean, scale = values.mean(axis=0), values.std(axis=0) + 1e-9
    points = (values - mean) / scale
    kept = np.arange(points.shape[1])
    while True:
        model = LogisticRegression(C=1.0, class_weight="balanced").fit(points[:, kept], anomalous)
        if not (model.coef_[0] < 0).any() or len(kept) == 1:
            break
        kept = np.delete(kept, int(model.coef_[0].argmin()))
    coefficients = np.zeros(points.shape[1])
    coefficients[kept] = np.maximum(model.coef_[0], 0)
    return StackedClassifier(mean, scale, coefficients, float(model.intercept_[0]), calibrated=True)


def fit_without_anomalies(scores: NDArray[np.floating]) -> StackedClassifier:
    """Set the threshold by the scores of normal images alone.

    :param scores: `n x banks`, out of fold
    """
    values = np.asarray(scores, np.float64)
    mean, scale = values.mean(axis=0), values.std(axis=0) + 1e-9
    highest = ((values - mean) / scale).max(axis=1)
    quantile = float(np.quantile(highest, 1 - _FALSE_POSITIVE_RATE))
    threshold = max(quantile, float(highest.mean() + _MIN_THRESHOLD * highest.std()))
    return StackedClassifier(mean, scale, np.full(len(mean), _SLOPE), -_SLOPE * threshold, calibrated=False)
