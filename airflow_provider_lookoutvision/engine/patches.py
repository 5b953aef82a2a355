"""How far a patch is from everything normal.

A memory bank keeps patches of normal images that cover the others as well as so many can: each next one is
the patch farthest from those chosen so far (greedy k-center, Gonzalez 1985, on a random projection to few
dimensions). The score of a patch is its Euclidean distance to the nearest one kept; that of an image, the
mean of its highest patches. After Roth et al. (2022), "Towards Total Recall in Industrial Anomaly Detection",
without its re-weighting.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from airflow_provider_lookoutvision.engine.backbone import CHANNELS, Features
from airflow_provider_lookoutvision.engine.store import Array, FeatureStore, gather

LEVELS = 2
DIMENSIONS = sum(CHANNELS[:LEVELS])
_PROJECTION = 32
_CHUNK = 4096
# The part of an image that its score is taken from: its worst patches. What is small on a large image is no
# larger part of it: there a fixed number of patches is not to be averaged away among thousands.
WORST, MOST = 0.01, 16


@dataclass(frozen=True)
class MemoryBank:
    """Patches of normal images, `count x 152`."""

    patches: Array

    def distances(self, features: Features) -> Array:
        """Distance of every patch to the nearest one kept, `rows x columns`."""
        rows, columns = features.fine.shape[:2]
        vectors = gather(features, np.arange(rows * columns), LEVELS)
        return nearest(vectors, self.patches).reshape(rows, columns)


def nearest(vectors: Array, bank: Array) -> Array:
    """Euclidean distance of each of `n x d` to the nearest of `m x d`."""
    lengths = np.einsum("ij,ij->i", bank, bank)
    squares = np.empty(len(vectors), np.float32)
    for start in range(0, len(vectors), _CHUNK):
        part = vectors[start : start + _CHUNK]
        closest = (lengths - 2 * (part @ bank.T)).min(axis=1)
        squares[start : start + _CHUNK] = np.einsum("ij,ij->i", part, part) + closest
    return np.sqrt(np.maximum(squares, 0))


def worst(scores: Array, part: float = WORST, most: int = MOST) -> float:
    """The mean of the highest scores, of as many patches as this part of the image has, and of no more than
    `most`.
    """
    count = max(1, min(round(scores.size * part), most))
    return float(np.partition(scores.ravel(), -count)[-count:].mean())


def fit(
    store: FeatureStore, normals: NDArray[np.intp], size: int, sampled: int, generator: np.random.Generator
) -> MemoryBank:
    """A bank of at most `size` patches, chosen from about `sampled` drawn from all views of the normal
    images.

    :param normals: the images' indices in the store
    """
    cells = store.shape[0] * store.shape[1]
    each = max(1, min(cells, -(-sampled // (len(normals) * store.views))))
    chosen = [
        gather(store.get(int(index), turn), generator.choice(cells, each, replace=False), LEVELS)
        for index in normals
        for turn in range(store.views)
    ]
    return MemoryBank(k_center(np.concatenate(chosen), size, generator))


def k_center(vectors: Array, count: int, generator: np.random.Generator) -> Array:
    """`count` of the vectors, or all if there are no more, each the farthest from those before it."""
    if len(vectors) <= count:
        return vectors
    projection = generator.standard_normal((vectors.shape[1], _PROJECTION)).astype(np.float32)
    points = vectors @ projection
    lengths = np.einsum("ij,ij->i", points, points)
    distance = np.full(len(points), np.inf, np.float32)
    chosen = [int(generator.integers(len(points)))]
    while len(chosen) < count:
        last = points[chosen[-1]]
        np.minimum(distance, lengths - 2 * (points @ last) + last @ last, out=distance)
        chosen.append(int(distance.argmax()))
    return vectors[chosen]
