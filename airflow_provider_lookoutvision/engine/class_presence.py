"""Which classes of defects are in an image at all: a class that is not is not painted.

Where one patch of ten thousand is taken for a defect that is not there, the mask of a class is wrong as a
whole, so the patches alone decide badly. This is a logistic regression on four scores of a class in an image,
the same for all classes, because few images have any one of them: the highest margin of its logit over those
of the background and of all other classes, the mean margin, by how much the highest margin is above that of
every other class, and the logit of the image being anomalous.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from airflow_provider_lookoutvision.engine.backbone import FloatArray

SCORES = 4
# More certain than this makes no difference.
LARGEST_IMAGE_LOGIT = 8.0


@dataclass(frozen=True)
class ClassPresence:
    """A logistic regression on standardised scores.

    :param mean: four numbers, like `scale` and `coefficients`
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    coefficients: NDArray[np.float64]
    intercept: float

    def present(self, scores: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Whether each class is in the image, from `... x classes x 4` scores."""
        logits = ((scores - self.mean) / self.scale) @ self.coefficients + self.intercept
        result: NDArray[np.bool_] = logits > 0
        return result


def scores(logits: FloatArray, image_logit: float) -> NDArray[np.float64]:
    """The scores of each class, `classes x 4`.

    :param logits: of the patches, `rows x columns x classes`
    :param image_logit: the log-odds that the image is anomalous
    """
    # The background's logit is 0.
    margins = logits - _highest_other(logits, np.float32(0))
    peaks = margins.max(axis=(0, 1)).astype(np.float64)
    gaps = peaks - _highest_other(peaks, -np.inf) if len(peaks) > 1 else peaks
    clipped = np.clip(image_logit, -LARGEST_IMAGE_LOGIT, LARGEST_IMAGE_LOGIT)
    means = margins.mean(axis=(0, 1), dtype=np.float64)
    return np.stack([peaks, means, gaps, np.full(len(peaks), clipped)], axis=1)


def _highest_other(values: NDArray[Any], least: np.floating | float) -> NDArray[Any]:
    """Of each of the last axis, the highest of the others and `least`."""
    highest, second = np.full((2, *values.shape[:-1]), least, values.dtype)
    for index in range(values.shape[-1]):
        value = values[..., index]
        second = np.maximum(second, np.minimum(highest, value))
        highest = np.maximum(highest, value)
    others: NDArray[Any] = np.where(values == highest[..., None], second[..., None], highest[..., None])
    return others


def fit(values: NDArray[np.float64], present: NDArray[np.bool_]) -> ClassPresence:
    """Fit to out-of-fold scores.

    :param values: `n x 4`
    :param present: n labels, some False and some True
    """
    # Imported to train alone, see `calibration.fit`.
    from sklearn.linear_model import LogisticRegression

    mean, scale = values.mean(axis=0), values.std(axis=0) + 1e-9
    model = LogisticRegression(C=1.0).fit((values - mean) / scale, present)
    return ClassPresence(mean, scale, model.coef_[0].astype(np.float64), float(model.intercept_[0]))
