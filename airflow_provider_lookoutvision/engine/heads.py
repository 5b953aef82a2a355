"""All heads together: fitted on some images of a feature store, and scoring others.

Cross-validation fits them in each fold, and training once more on all images.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from airflow_provider_lookoutvision.engine import image_heads, memory_bank, patch_head
from airflow_provider_lookoutvision.engine.backbone import Features, FloatArray
from airflow_provider_lookoutvision.engine.feature_store import FeatureStore
from airflow_provider_lookoutvision.engine.image_heads import ImageHead
from airflow_provider_lookoutvision.engine.memory_bank import (
    DEFAULT_FEATURES,
    BankFeatures,
    MemoryBank,
    top_mean,
)
from airflow_provider_lookoutvision.engine.patch_head import PatchHead
from airflow_provider_lookoutvision.engine.targets import Targets

# The mean of this fraction of the patches is a score of its own, for large defects.
LARGE_DEFECT_FRACTION = 0.1


@dataclass(frozen=True)
class Heads:
    """The memory bank and, if there were enough anomalies to fit them, the patch head and the image heads.

    :param images: one head for the texture and one for the content, or none
    """

    bank: MemoryBank
    patch: PatchHead | None
    images: tuple[ImageHead, ...]

    def scores(self, features: Features) -> tuple[FloatArray, FloatArray | None]:
        """The scores of an image, and the logits of its patches, `rows x columns x classes`, or None."""
        logits = None if self.patch is None else self.patch.logits(features)
        return self.image_scores(self.bank.distances(features), logits, features.summary), logits

    def image_scores(
        self, distances: FloatArray, logits: FloatArray | None, summary: FloatArray
    ) -> FloatArray:
        """The scores of an image: one of the bank, two of the patch head, one of each image head.

        :param distances: of the patches to the bank, `rows x columns`
        :param logits: of the patch head, `rows x columns x classes`, or None for the bank's score alone
        :param summary: as the network gives it
        """
        scores = [self.bank.score(distances)]
        if logits is not None:
            any_class = patch_head.any_class_logit(logits)
            scores += [top_mean(any_class), top_mean(any_class, LARGE_DEFECT_FRACTION, any_class.size)]
            lengths = [len(head.mean) for head in self.images]
            parts = zip(self.images, image_heads.split_summary(summary, lengths), strict=True)
            scores += [float(head.decision_function(part[None])[0]) for head, part in parts]
        return np.array(scores, np.float32)


def fit(
    store: FeatureStore,
    targets: Targets,
    indices: NDArray[np.intp],
    *,
    supervised: bool,
    features: BankFeatures = DEFAULT_FEATURES,
    rng: np.random.Generator,
) -> Heads:
    """Fit the heads on these images.

    :param indices: of the images in the store
    :param features: of the memory bank
    :param supervised: whether to fit the heads that need anomalies, or the memory bank alone
    """
    bank = memory_bank.fit(store, indices[~targets.anomalous[indices]], rng, features)
    if not supervised:
        return Heads(bank, None, ())
    return Heads(
        bank,
        patch_head.fit(store, indices, targets, bank, rng),
        image_heads.fit(store, indices, targets.anomalous, rng),
    )
