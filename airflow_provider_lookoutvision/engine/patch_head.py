"""The patch head: logistic regression on the features of a patch, for anomaly maps and masks.

It is multinomial over the background and the classes of defects. It is fitted to masks or, without any, to
weak labels: first the patches of anomalous images that are farthest from the memory bank count as defective,
then those that this first head scores highest, and it is fitted again. Because it is linear, it is applied to
each feature map before the coarser ones are interpolated.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from airflow_provider_lookoutvision.engine import augmentation
from airflow_provider_lookoutvision.engine.backbone import Features, FloatArray
from airflow_provider_lookoutvision.engine.feature_store import (
    FeatureStore,
    gather,
    sample_patches,
    upsample,
)
from airflow_provider_lookoutvision.engine.memory_bank import MemoryBank
from airflow_provider_lookoutvision.engine.targets import Targets

# The fraction of an anomalous image that counts as defective where there are no masks.
_WEAK_FRACTION = 0.1
_MAX_PATCHES = 6000
# Inverse regularisation strengths. With masks it is strong, because patches of one defect are much alike:
# they are less evidence than their number suggests.
_C_MASKS, _C_WEAK_LABELS = 0.02, 1.0
_MAX_ITERATIONS = 200
# The bias of a class that no patch was labelled with: it is never predicted.
_NEVER = -30.0


@dataclass(frozen=True)
class PatchHead:
    """The logit of each class against the background.

    :param weights: `classes x channels`, of all maps
    :param bias: one number for each class
    """

    weights: FloatArray
    bias: FloatArray

    def logits(self, features: Features) -> FloatArray:
        """The logits of all patches, `rows x columns x classes`."""
        channels = [each.shape[-1] for each in (features.fine, features.middle, features.coarse)]
        fine, middle, coarse = np.split(self.weights, np.cumsum(channels)[:-1], axis=1)
        result = (features.fine @ fine.T).astype(np.float32)
        result += upsample(features.middle @ middle.T, 2)
        result += upsample(features.coarse @ coarse.T, 4)
        result += self.bias
        return result


def any_class_logit(logits: FloatArray) -> FloatArray:
    """The logit of a patch being of any class, `rows x columns`, from `rows x columns x classes`."""
    highest = logits.max(axis=-1)
    total: FloatArray = highest + np.log(np.exp(logits - highest[..., None]).sum(axis=-1))
    return total


def fit(
    store: FeatureStore,
    indices: NDArray[np.intp],
    targets: Targets,
    bank: MemoryBank,
    rng: np.random.Generator,
) -> PatchHead:
    """Fit on all views of these images.

    :param indices: of the images in the store; some are normal and some anomalous
    :param bank: of the same normal images
    """
    normal, anomalous = indices[~targets.anomalous[indices]], indices[targets.anomalous[indices]]
    background = sample_patches(store, normal, _MAX_PATCHES // (len(normal) * store.views), rng)
    masked = [int(index) for index in anomalous if int(index) in targets.coverage]
    if masked:
        vectors, labels = _sample_masked(store, masked, targets, rng)
        labels = np.concatenate([np.zeros(len(background), np.intp), labels])
        vectors = np.concatenate([background, vectors])
        return _fit_logistic_regression(vectors, labels, targets.class_count, _C_MASKS, balanced=False)

    def fit_to_weak_labels(score: Callable[[Features], FloatArray], views: int) -> PatchHead:
        vectors = _sample_highest(store, anomalous, score, views, rng)
        labels = np.repeat([0, 1], [len(background), len(vectors)])
        vectors = np.concatenate([background, vectors])
        return _fit_logistic_regression(vectors, labels, 1, _C_WEAK_LABELS, balanced=True)

    first = fit_to_weak_labels(bank.distances, 1)
    return fit_to_weak_labels(lambda features: first.logits(features)[..., 0], store.views)


def _sample_highest(
    store: FeatureStore,
    anomalous: NDArray[np.intp],
    score: Callable[[Features], FloatArray],
    views: int,
    rng: np.random.Generator,
) -> FloatArray:
    """Sample from the patches with the highest scores of each view."""
    count = max(1, round(store.shape[0] * store.shape[1] * _WEAK_FRACTION))
    per_view = max(1, min(count, _MAX_PATCHES // (len(anomalous) * views)))
    vectors = []
    for index in anomalous:
        for view in range(views):
            features = store.get(int(index), view)
            highest = np.argpartition(score(features).ravel(), -count)[-count:]
            vectors.append(gather(features, rng.choice(np.sort(highest), per_view, replace=False)))
    return np.concatenate(vectors)


def _sample_masked(
    store: FeatureStore, masked: list[int], targets: Targets, rng: np.random.Generator
) -> tuple[FloatArray, NDArray[np.intp]]:
    """Sample defective and background patches from each view of images with masks, with their labels."""
    per_kind = max(2, 2 * _MAX_PATCHES // (len(masked) * store.views)) // 2
    vectors, labels = [], []
    for index in masked:
        upright = targets.patch_labels(index, store.shape)
        for view in range(store.views):
            label = augmentation.transform(upright, view).ravel()
            sampled = [
                rng.choice(patches, per_kind, replace=False) if len(patches) > per_kind else patches
                for patches in (np.flatnonzero(label > 0), np.flatnonzero(label == 0))
            ]
            patches = np.concatenate(sampled)
            vectors.append(gather(store.get(index, view), patches))
            labels.append(label[patches])
    return np.concatenate(vectors), np.concatenate(labels)


def _fit_logistic_regression(
    vectors: FloatArray, labels: NDArray[np.intp], class_count: int, c: float, *, balanced: bool
) -> PatchHead:
    # Imported to train alone, see `calibration.fit`.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    # One scale for all features: scaling each by its own makes the head worse.
    mean, scale = vectors.mean(axis=0), float(vectors.std())
    present = np.unique(labels)
    weights = np.zeros((class_count, vectors.shape[1]), np.float32)
    bias = np.full(class_count, _NEVER, np.float32)
    if len(present) > 1:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            weight = "balanced" if balanced else None
            model = LogisticRegression(C=c, max_iter=_MAX_ITERATIONS, class_weight=weight)
            model.fit((vectors - mean) / scale, labels)
        coefficients, intercepts = model.coef_, model.intercept_
        if len(present) == 2:
            coefficients, intercepts = np.vstack([0 * coefficients, coefficients]), np.r_[0, intercepts]
        for row, label in enumerate(present[1:], start=1):
            difference = (coefficients[row] - coefficients[0]) / scale
            weights[label - 1] = difference
            bias[label - 1] = intercepts[row] - intercepts[0] - mean @ difference
    return PatchHead(weights, bias)
