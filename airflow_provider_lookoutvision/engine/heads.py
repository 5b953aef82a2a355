"""The heads together: fitted on some images of a store, scoring others.

What cross-validation fits five times and the final model once is the same thing, and it is here.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from airflow_provider_lookoutvision.engine import patches, supervised
from airflow_provider_lookoutvision.engine.backbone import Features
from airflow_provider_lookoutvision.engine.masks import Coverage
from airflow_provider_lookoutvision.engine.patches import MemoryBank
from airflow_provider_lookoutvision.engine.store import Array, FeatureStore
from airflow_provider_lookoutvision.engine.supervised import ImageHead, PatchHead

BANK_PATCHES, SAMPLED_PATCHES = 1500, 12_000
# Beside a speck, a defect may be what takes up a part of the image.
PART = 0.1


@dataclass(frozen=True)
class Heads:
    """The memory bank and, where there were labelled anomalies, the patch head and the two image heads."""

    bank: MemoryBank
    patch: PatchHead | None
    images: tuple[ImageHead, ...]

    def scores(self, features: Features) -> tuple[Array, Array | None]:
        """The image's score by each head, and the class logits of its patches, `rows x columns x classes`."""
        logits = None if self.patch is None else self.patch.logits(features)
        return self.combine(self.bank.distances(features), logits, features.summary), logits

    def combine(self, distances: Array, logits: Array | None, summary: Array) -> Array:
        """The image's score by each head, from what the heads made of its patches."""
        scores = [patches.worst(distances)]
        if logits is not None:
            defective = supervised.any_class(logits)
            scores += [patches.worst(defective), patches.worst(defective, PART, defective.size)]
            parts = zip(self.images, supervised.split(summary), strict=True)
            scores += [float(head.score(part[None])[0]) for head, part in parts]
        return np.array(scores, np.float32)


@dataclass(frozen=True)
class Lessons:
    """What there is to learn from, beside the features: labels by image, and masks by index."""

    anomalous: NDArray[np.bool_]
    coverage: dict[int, Coverage]
    classes: int


def fit(
    store: FeatureStore,
    lessons: Lessons,
    members: NDArray[np.intp],
    *,
    supervise: bool,
    generator: np.random.Generator,
) -> Heads:
    """Fit every head on these images.

    :param members: indices in the store
    :param supervise: whether there are enough anomalies to learn from
    """
    normal = members[~lessons.anomalous[members]]
    bank = patches.fit(store, normal, BANK_PATCHES, SAMPLED_PATCHES, generator)
    if not supervise:
        return Heads(bank, None, ())
    patch = supervised.fit_patch_head(
        store, members, lessons.anomalous, lessons.coverage, lessons.classes, bank, generator
    )
    images = supervised.fit_image_heads(store, members, lessons.anomalous, generator)
    return Heads(bank, patch, images)
