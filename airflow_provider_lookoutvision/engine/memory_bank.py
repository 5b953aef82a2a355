"""The memory bank: how far a patch is from every patch of the normal images.

The bank is a coreset of patches of normal images, selected by greedy k-center (Gonzalez 1985) on a random
projection to few dimensions. The score of a patch is its Euclidean distance to the nearest patch in the bank;
that of an image is the mean of its highest patch scores. After PatchCore (Roth et al. 2022, "Towards Total
Recall in Industrial Anomaly Detection"), without its re-weighting.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from airflow_provider_lookoutvision.engine import working_size
from airflow_provider_lookoutvision.engine.backbone import Channels, Features, FloatArray
from airflow_provider_lookoutvision.engine.feature_store import (
    FeatureStore,
    at_scale,
    gather,
    sample_patches,
)

BANK_SIZE, SAMPLED_PATCHES = 1500, 12_000
# Of each of several banks.
SEVERAL_BANKS_SIZE = 600
_PROJECTED_DIMENSIONS = 32
_CHUNK = 4096
# An image is scored by this fraction of its patches, and by no more than so many: on a large image a small
# defect would else be averaged away among hundreds of patches.
TOP_FRACTION, TOP_COUNT = 0.01, 16


@dataclass(frozen=True)
class BankFeatures:
    """What of a patch is compared with the bank, and which patches make the score of an image.

    :param levels: 1 to 3 feature maps, from the finest on
    :param detail: whether the map at stride 4 comes before them
    :param half: whether they are of the image at half its size
    :param standardised: whether each feature is divided by its standard deviation in normal images
    :param fraction: the score is the mean of this fraction of the distances, the highest
    :param count: and of so many at most
    """

    levels: int = 2
    standardised: bool = False
    fraction: float = TOP_FRACTION
    count: int | None = TOP_COUNT
    detail: bool = False
    half: bool = False

    def dimensions(self, channels: Channels) -> int:
        """How many features a patch has, of a network with these channels."""
        return sum(channels.maps[: self.levels]) + channels.detail * self.detail

    def is_possible(self, channels: Channels, size: tuple[int, int]) -> bool:
        """Whether a network with these channels has them, of images of a working width and height."""
        return (
            self.levels in (1, 2, 3)
            and 0 < self.fraction <= 1
            and (not self.detail or channels.detail > 0)
            and (not self.half or working_size.is_halved(size))
        )


DEFAULT_FEATURES = BankFeatures()


def features_without_anomalies(channels: Channels, *, half: bool) -> tuple[BankFeatures, ...]:
    """The features of the banks that have to do without other heads.

    Two see what is wrong in large, by the features that vary most and by all alike; one what is small.

    :param half: whether the features of the images at half their size are known
    """
    return (
        BankFeatures(3, standardised=False, fraction=0.05, count=None, half=half),
        BankFeatures(3, standardised=True, fraction=0.05, count=None, half=half),
        BankFeatures(1, standardised=True, fraction=0.001, count=None, detail=channels.detail > 0),
    )


@dataclass(frozen=True)
class MemoryBank:
    """Patches of normal images.

    :param patches: `count x dimensions`, standardised if the features are
    :param scale: what each feature is divided by; None unless they are standardised
    """

    patches: FloatArray
    features: BankFeatures = DEFAULT_FEATURES
    scale: FloatArray | None = None

    def distances(self, features: Features) -> FloatArray:
        """The distance of every patch to the nearest one in the bank, `rows x columns` of its scale."""
        features = at_scale(features, half=self.features.half)
        rows, columns = features.fine.shape[:2]
        patches = np.arange(rows * columns)
        vectors = gather(features, patches, self.features.levels, detail=self.features.detail)
        if self.scale is not None:
            vectors /= self.scale
        return nearest_distances(vectors, self.patches).reshape(rows, columns)

    def score(self, distances: FloatArray) -> float:
        """The score of an image, from the distances of its patches."""
        return score(distances, self.features)


def nearest_distances(vectors: FloatArray, bank: FloatArray) -> FloatArray:
    """The Euclidean distance of each of `n x d` vectors to the nearest of `m x d`."""
    squared_norms = np.einsum("ij,ij->i", bank, bank)
    squares = np.empty(len(vectors), np.float32)
    for start in range(0, len(vectors), _CHUNK):
        chunk = vectors[start : start + _CHUNK]
        closest = (squared_norms - 2 * (chunk @ bank.T)).min(axis=1)
        squares[start : start + _CHUNK] = np.einsum("ij,ij->i", chunk, chunk) + closest
    return np.sqrt(np.maximum(squares, 0))


def top_mean(scores: FloatArray, fraction: float = TOP_FRACTION, max_count: int = TOP_COUNT) -> float:
    """The mean of the highest scores: this fraction of them, at least one and at most `max_count`."""
    count = max(1, min(round(scores.size * fraction), max_count))
    return float(np.partition(scores.ravel(), -count)[-count:].mean())


def score(distances: FloatArray, features: BankFeatures) -> float:
    """The score of an image, from the distances of its patches."""
    return top_mean(distances, features.fraction, features.count or distances.size)


def fit(
    store: FeatureStore,
    normal: NDArray[np.intp],
    rng: np.random.Generator,
    features: BankFeatures = DEFAULT_FEATURES,
    size: int = BANK_SIZE,
) -> MemoryBank:
    """Select patches from about 12,000 that are sampled from all views of the normal images.

    :param normal: the indices of the normal images in the store
    :param size: how many to select at most
    """
    per_view = -(-SAMPLED_PATCHES // (len(normal) * store.views))
    vectors = sample_patches(
        store, normal, per_view, rng, features.levels, detail=features.detail, half=features.half
    )
    scale = None
    if features.standardised:
        scale = vectors.std(axis=0) + np.float32(1e-6)
        vectors /= scale
    return MemoryBank(k_center_greedy(vectors, size, rng), features, scale)


def k_center_greedy(vectors: FloatArray, count: int, rng: np.random.Generator) -> FloatArray:
    """Select `count` vectors, each the farthest from those before it; all, if there are no more than that."""
    if len(vectors) <= count:
        return vectors
    projection = rng.standard_normal((vectors.shape[1], _PROJECTED_DIMENSIONS)).astype(np.float32)
    points = vectors @ projection
    squared_norms = np.einsum("ij,ij->i", points, points)
    distances = np.full(len(points), np.inf, np.float32)
    selected = [int(rng.integers(len(points)))]
    while len(selected) < count:
        last = points[selected[-1]]
        np.minimum(distances, squared_norms - 2 * (points @ last) + last @ last, out=distances)
        selected.append(int(distances.argmax()))
    return vectors[selected]
