"""Chooses the features of the memory bank and the working size where there are no anomalies to choose by.

No choice suits all parts: what finds a stain on a tile misses a gap in a conductor. So synthetic defects are
drawn in some of the normal images, and the choice whose bank, of the other normal images, separates them best
from the untouched ones is taken: by the area under the ROC curve, averaged over the kinds and sizes of
defects. The threshold is then set by real normal images alone, and nothing is trained on synthetic defects.
"""

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from airflow_provider_lookoutvision.engine import (
    images,
    memory_bank,
    metrics,
    synthetic_defects,
    working_size,
)
from airflow_provider_lookoutvision.engine.backbone import Backbone, FloatArray
from airflow_provider_lookoutvision.engine.dataset import Dataset
from airflow_provider_lookoutvision.engine.feature_store import gather
from airflow_provider_lookoutvision.engine.images import read_source
from airflow_provider_lookoutvision.engine.memory_bank import DEFAULT_FEATURES, BankFeatures

# What was best on some set, and what is best without knowing.
CANDIDATES = (
    DEFAULT_FEATURES,
    BankFeatures(3, standardised=False, fraction=0.05, count=None),
    BankFeatures(3, standardised=True, fraction=0.05, count=None),
    BankFeatures(1, standardised=True, fraction=0.001, count=None),
)
_SIDES = 4
# Distances gain by enlargement beyond the image's own size, unlike what is trained.
_MAX_ENLARGEMENT = 1.6
_MAX_BANK_IMAGES, _MAX_HELD_OUT, _MIN_HELD_OUT = 48, 16, 4
_BANK_PATCHES = 600
# How much better than the default a choice has to be, with as many images held out as there may be. The areas
# of fewer vary more, and the gain has to be larger in proportion.
_MIN_GAIN = 0.02


def choose(
    backbone: Backbone, dataset: Dataset, seed: int, on_progress: Callable[[float], None]
) -> tuple[int, BankFeatures]:
    """The side of the working size, and the features; the defaults for few images.

    :param dataset: of which only the normal images are used
    :param on_progress: called with the fraction done, 0 to 1, before each image; may raise to stop
    """
    default = working_size.default_side(dataset.width, dataset.height)
    rng = np.random.default_rng([seed, 4])
    normal = rng.permutation(np.flatnonzero(~dataset.anomalous))
    held_out_count = min(_MAX_HELD_OUT, len(normal) // 3)
    if held_out_count < _MIN_HELD_OUT:
        return default, DEFAULT_FEATURES
    held_out = normal[:held_out_count].tolist()
    bank = normal[held_out_count : held_out_count + _MAX_BANK_IMAGES].tolist()
    sides = _sides(dataset.width, dataset.height)
    largest = working_size.working_size(dataset.width, dataset.height, sides[-1])
    plain = [_decode(dataset, index, largest) for index in held_out]
    groups = [plain] + [
        [kind(image, plain[number - 1], rng, scale) for number, image in enumerate(plain)]
        for kind in synthetic_defects.KINDS
        for scale in synthetic_defects.SCALES
    ]
    steps = len(sides) * (len(bank) + sum(map(len, groups)))
    done = 0

    def vectors(image: Image.Image) -> FloatArray:
        nonlocal done
        on_progress(done / steps)
        done += 1
        features = backbone.features(np.asarray(image))
        return gather(features, np.arange(features.fine.shape[0] * features.fine.shape[1]))

    scores: dict[tuple[int, BankFeatures], float] = {}
    for side in sides:
        size = working_size.working_size(dataset.width, dataset.height, side)
        per_image = -(-_BANK_PATCHES // len(bank))
        patches = np.concatenate(
            [rng.permutation(vectors(_decode(dataset, index, size)))[:per_image] for index in bank]
        )
        tables = [
            [_scores(vectors(_resized(image, size)), patches, backbone.channels.maps) for image in group]
            for group in groups
        ]
        for number, features in enumerate(CANDIDATES):
            normals, *defective = [[row[number] for row in table] for table in tables]
            truth = np.repeat([False, True], held_out_count)
            areas = [metrics.roc_auc(truth, normals + values) for values in defective]
            scores[side, features] = float(np.mean(areas))
    best = max(scores, key=lambda choice: scores[choice])
    min_gain = _MIN_GAIN * _MAX_HELD_OUT / held_out_count
    if scores[best] < scores.get((default, DEFAULT_FEATURES), 0.0) + min_gain:
        return default, DEFAULT_FEATURES
    return best


def _sides(width: int, height: int) -> tuple[int, ...]:
    first = working_size.SIDES.index(working_size.candidate_sides(width, height)[0])
    largest = _MAX_ENLARGEMENT * (width * height) ** 0.5
    smallest, *larger = working_size.SIDES[first : first + _SIDES]
    return smallest, *(side for side in larger if side <= largest)


def _decode(dataset: Dataset, index: int, size: tuple[int, int]) -> Image.Image:
    return Image.fromarray(images.decode(read_source(dataset.images[index]), *size).pixels)


def _resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image if image.size == size else image.resize(size, Image.Resampling.BILINEAR)


def _scores(vectors: FloatArray, patches: FloatArray, channels: Sequence[int]) -> list[float]:
    """The score of an image with each of the candidates."""
    result = []
    for features in CANDIDATES:
        bank, mine = (each[:, : features.dimensions(channels)] for each in (patches, vectors))
        if features.standardised:
            scale = bank.std(axis=0) + np.float32(1e-6)
            bank, mine = bank / scale, mine / scale
        distances = memory_bank.nearest_distances(np.ascontiguousarray(mine), np.ascontiguousarray(bank))
        result.append(memory_bank.score(distances, features))
    return result
