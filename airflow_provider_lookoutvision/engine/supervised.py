"""What labelled anomalies teach: a linear head over patches and kernel heads over whole images.

`PatchHead` is a logistic regression (multinomial over the background and the classes of defects) on a patch's
features at all three levels. It learns from masks; without them, from weak labels: first the patches of
anomalous images that are farthest from the memory bank count as defective, then those that the head so learnt
finds worst, and it is fitted again. Being linear, it is applied to each level before the coarser ones are
interpolated.

`ImageHead` is a support vector machine with a Gaussian kernel on a part of the image's summary: one sees its
texture, one its content, and what they know adds up better apart than in one kernel.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC

from airflow_provider_lookoutvision.engine import scales
from airflow_provider_lookoutvision.engine.backbone import CHANNELS, SUMMARIES, Features
from airflow_provider_lookoutvision.engine.masks import Coverage
from airflow_provider_lookoutvision.engine.patches import MemoryBank
from airflow_provider_lookoutvision.engine.store import Array, FeatureStore, gather, upsample

DIMENSIONS = sum(CHANNELS)
# A patch is of a class when more than half of it is, or none around it is more so: what is smaller than a
# patch is somewhere too. It is background when little of it is anything; else it is left out.
_COVERED, _SEEN, _CLEAN = 0.5, 0.02, 0.2
# The part of an anomalous image that is taken for defective where no mask says which.
_WEAK_PART = 0.1
_MOST_PATCHES = 6000
# Neighbouring patches of one painted defect say much the same: they are to be believed less than their number
# says.
_TRUST_IN_MASKS, _TRUST_IN_WEAK_LABELS = 0.02, 1.0
_MOST_IMAGES = 4000
_ITERATIONS = 200
# Finer than the patches, so that the width of a scratch is not lost: coverage is kept in quarters of a
# patch's side.
FINER = 4


@dataclass(frozen=True)
class PatchHead:
    """`weights` is `classes x 472`, `bias` is `classes`: the logit of each class against the background."""

    weights: Array
    bias: Array

    def logits(self, features: Features) -> Array:
        """`rows x columns x classes`, on the fine grid."""
        first, second = CHANNELS[0], CHANNELS[0] + CHANNELS[1]
        fine, middle, coarse = (
            self.weights[:, :first],
            self.weights[:, first:second],
            self.weights[:, second:],
        )
        result = (features.fine @ fine.T).astype(np.float32)
        result += upsample(features.middle @ middle.T, 2)
        result += upsample(features.coarse @ coarse.T, 4)
        result += self.bias
        return result


def any_class(logits: Array) -> Array:
    """From the logits of each class, the logit of there being any: `rows x columns`."""
    highest = logits.max(axis=-1)
    total: Array = highest + np.log(np.exp(logits - highest[..., None]).sum(axis=-1))
    return total


@dataclass(frozen=True)
class ImageHead:
    """Support vectors `count x channels` with their coefficients, after `(x - mean) / scale`."""

    mean: Array
    scale: Array
    vectors: Array
    coefficients: Array
    intercept: float
    gamma: float

    def score(self, summaries: Array) -> Array:
        """Signed distance to the boundary, positive for anomalous, of `n x channels`."""
        points = (summaries - self.mean) / self.scale
        squares = (
            (points**2).sum(axis=1)[:, None] + (self.vectors**2).sum(axis=1) - 2 * points @ self.vectors.T
        )
        result: Array = np.exp(-self.gamma * np.maximum(squares, 0)) @ self.coefficients + self.intercept
        return result


def split(summary: Array) -> list[Array]:
    """The parts of a summary, or of rows of them, that the image heads see: texture and content."""
    return np.split(summary, np.cumsum(SUMMARIES)[:-1], axis=-1)


def fit_image_heads(
    store: FeatureStore,
    members: NDArray[np.intp],
    anomalous: NDArray[np.bool_],
    generator: np.random.Generator,
) -> tuple[ImageHead, ...]:
    """Fit one head for each part of the summary, on all views of the images.

    :param members: the images' indices in the store
    :param anomalous: of every image in the store, whether it is
    """
    if len(members) > _MOST_IMAGES:
        members = generator.choice(members, _MOST_IMAGES, replace=False)
    views = min(store.views, max(1, _MOST_IMAGES // len(members)))
    summaries, labels = store.summaries(members, views), np.repeat(anomalous[members], views)
    return tuple(_fit_image_head(part.reshape(len(labels), -1), labels) for part in split(summaries))


def _fit_image_head(summaries: Array, labels: NDArray[np.bool_]) -> ImageHead:
    mean, scale, gamma = summaries.mean(axis=0), summaries.std(axis=0) + 1e-6, 1 / summaries.shape[1]
    machine = SVC(C=3.0, gamma=gamma, class_weight="balanced").fit((summaries - mean) / scale, labels)
    return ImageHead(
        mean,
        scale,
        machine.support_vectors_.astype(np.float32),
        machine.dual_coef_[0].astype(np.float32),
        float(machine.intercept_[0]),
        gamma,
    )


def patch_coverage(coverage: Coverage, classes: int, rows: int, columns: int) -> Array:
    """The part of each patch, 0 to 1, that each class covers, `rows x columns x classes`."""
    result = np.zeros((rows, columns, classes), np.float32)
    for index, plane in coverage.items():
        result[..., index] = plane.reshape(rows, FINER, columns, FINER).mean(axis=(1, 3)) / 255
    return result


def patch_labels(covered: Array) -> NDArray[np.intp]:
    """What each patch teaches, from `rows x columns x classes` of coverage: 0 for the background, 1 for the
    first class, and so on; -1 for nothing.
    """
    most = covered.max(axis=2)
    around = np.pad(most, 1)
    rows, columns = most.shape
    highest = np.max(
        [around[down : down + rows, across : across + columns] for down in range(3) for across in range(3)],
        axis=0,
    )
    defective = (most > _COVERED) | ((most == highest) & (most > _SEEN))
    return np.where(defective, covered.argmax(axis=2) + 1, np.where(covered.sum(axis=2) <= _CLEAN, 0, -1))


def fit_patch_head(
    store: FeatureStore,
    members: NDArray[np.intp],
    anomalous: NDArray[np.bool_],
    coverage: dict[int, Coverage],
    classes: int,
    bank: MemoryBank,
    generator: np.random.Generator,
) -> PatchHead:
    """Fit on all views of the images.

    :param members: the images' indices in the store
    :param anomalous: of every image in the store, whether it is
    :param coverage: of each image that has a mask, what covers the quarters of its patches; without any, the
        labels are weak
    :param classes: how many there are
    """
    normal, abnormal = members[~anomalous[members]], members[anomalous[members]]
    clean = _draw_normal(store, normal, generator)
    masked = [int(index) for index in abnormal if int(index) in coverage]
    if masked:
        vectors, labels = _draw_masked(store, masked, coverage, classes, generator)
        labels = np.concatenate([np.zeros(len(clean), np.intp), labels])
        return _fit(np.concatenate([clean, vectors]), labels, classes, _TRUST_IN_MASKS, balanced=False)

    def weakly(score: Callable[[Features], Array], views: int) -> PatchHead:
        vectors = _draw_worst(store, abnormal, score, views, generator)
        labels = np.repeat([0, 1], [len(clean), len(vectors)])
        return _fit(np.concatenate([clean, vectors]), labels, 1, _TRUST_IN_WEAK_LABELS, balanced=True)

    first = weakly(bank.distances, 1)
    return weakly(lambda features: first.logits(features)[..., 0], store.views)


def _draw_normal(store: FeatureStore, normal: NDArray[np.intp], generator: np.random.Generator) -> Array:
    cells = store.shape[0] * store.shape[1]
    each = max(1, min(cells, _MOST_PATCHES // (len(normal) * store.views)))
    return np.concatenate(
        [
            gather(store.get(int(index), turn), generator.choice(cells, each, replace=False))
            for index in normal
            for turn in range(store.views)
        ]
    )


def _draw_worst(
    store: FeatureStore,
    abnormal: NDArray[np.intp],
    score: Callable[[Features], Array],
    views: int,
    generator: np.random.Generator,
) -> Array:
    cells = store.shape[0] * store.shape[1]
    count = max(1, round(cells * _WEAK_PART))
    each = max(1, min(count, _MOST_PATCHES // (len(abnormal) * views)))
    drawn = []
    for index in abnormal:
        for turn in range(views):
            features = store.get(int(index), turn)
            high = np.argpartition(score(features).ravel(), -count)[-count:]
            drawn.append(gather(features, generator.choice(np.sort(high), each, replace=False)))
    return np.concatenate(drawn)


def _draw_masked(
    store: FeatureStore,
    masked: list[int],
    coverage: dict[int, Coverage],
    classes: int,
    generator: np.random.Generator,
) -> tuple[Array, NDArray[np.intp]]:
    each = max(2, 2 * _MOST_PATCHES // (len(masked) * store.views))
    vectors, labels = [], []
    for index in masked:
        labelled = patch_labels(patch_coverage(coverage[index], classes, *store.shape))
        for turn in range(store.views):
            label = scales.view(labelled, turn).ravel()
            defective, clean = np.flatnonzero(label > 0), np.flatnonzero(label == 0)
            if len(defective) > each // 2:
                defective = generator.choice(defective, each // 2, replace=False)
            if len(clean) > each // 2:
                clean = generator.choice(clean, each // 2, replace=False)
            places = np.concatenate([defective, clean])
            vectors.append(gather(store.get(index, turn), places))
            labels.append(label[places])
    return np.concatenate(vectors), np.concatenate(labels)


def _fit(
    vectors: Array, labels: NDArray[np.intp], classes: int, trust: float, *, balanced: bool
) -> PatchHead:
    mean, scale = vectors.mean(axis=0), float(vectors.std())
    present = np.unique(labels)
    weights = np.zeros((classes, vectors.shape[1]), np.float32)
    # A class without a patch of its own is never found, rather than an error: its defects may be too small to
    # see.
    bias = np.full(classes, -30.0, np.float32)
    if len(present) > 1:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            weight = "balanced" if balanced else None
            model = LogisticRegression(C=trust, max_iter=_ITERATIONS, class_weight=weight)
            model.fit((vectors - mean) / scale, labels)
        coefficients, intercepts = model.coef_, model.intercept_
        if len(present) == 2:
            coefficients, intercepts = np.vstack([0 * coefficients, coefficients]), np.r_[0, intercepts]
        for place, label in enumerate(present[1:], start=1):
            row = (coefficients[place] - coefficients[0]) / scale
            weights[label - 1] = row
            bias[label - 1] = intercepts[place] - intercepts[0] - mean @ row
    return PatchHead(weights, bias)
