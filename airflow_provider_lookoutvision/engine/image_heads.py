"""The image heads: classifiers of whole images, by their texture and by their content.

Each is a support vector machine with a Gaussian (RBF) kernel on one part of the image's summary. Two kernels
do better than one on both parts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from airflow_provider_lookoutvision.engine.backbone import FloatArray
from airflow_provider_lookoutvision.engine.feature_store import FeatureStore

_MAX_SAMPLES = 4000


@dataclass(frozen=True)
class ImageHead:
    """A fitted support vector machine on features that are standardised as `(x - mean) / scale`.

    :param mean: one number for each feature
    :param scale: one number for each feature
    :param vectors: the support vectors, standardised, `count x features`
    :param coefficients: dual coefficients, one for each support vector
    :param gamma: of the kernel `exp(-gamma * |x - y|^2)`
    """

    mean: FloatArray
    scale: FloatArray
    vectors: FloatArray
    coefficients: FloatArray
    intercept: float
    gamma: float

    def decision_function(self, summaries: FloatArray) -> FloatArray:
        """As scikit-learn's: n numbers, positive for anomalous, from `n x features`."""
        points = (summaries - self.mean) / self.scale
        squares = (
            (points**2).sum(axis=1)[:, None] + (self.vectors**2).sum(axis=1) - 2 * points @ self.vectors.T
        )
        result: FloatArray = np.exp(-self.gamma * np.maximum(squares, 0)) @ self.coefficients + self.intercept
        return result


def split_summary(summaries: FloatArray, channels: Sequence[int]) -> list[FloatArray]:
    """Texture and content: the input of each image head.

    :param summaries: `... x channels`, of both
    :param channels: of each
    """
    return np.split(summaries, np.cumsum(channels)[:-1], axis=-1)


def fit(
    store: FeatureStore,
    indices: NDArray[np.intp],
    anomalous: NDArray[np.bool_],
    rng: np.random.Generator,
) -> tuple[ImageHead, ...]:
    """Fit a head for each part of the summary, on all views of these images, 4000 samples at most.

    :param indices: of the images in the store
    :param anomalous: one boolean for each image of the store
    """
    if len(indices) > _MAX_SAMPLES:
        indices = rng.choice(indices, _MAX_SAMPLES, replace=False)
    views = min(store.views, max(1, _MAX_SAMPLES // len(indices)))
    summaries, labels = store.summaries(indices, views), np.repeat(anomalous[indices], views)
    parts = split_summary(summaries, store.channels.summary)
    return tuple(_fit_one(part.reshape(len(labels), -1), labels) for part in parts)


def _fit_one(features: FloatArray, labels: NDArray[np.bool_]) -> ImageHead:
    # Imported to train alone, see `calibration.fit`.
    from sklearn.svm import SVC

    mean, scale, gamma = features.mean(axis=0), features.std(axis=0) + 1e-6, 1 / features.shape[1]
    svm = SVC(C=3.0, gamma=gamma, class_weight="balanced").fit((features - mean) / scale, labels)
    return ImageHead(
        mean,
        scale,
        svm.support_vectors_.astype(np.float32),
        svm.dual_coef_[0].astype(np.float32),
        float(svm.intercept_[0]),
        gamma,
    )
