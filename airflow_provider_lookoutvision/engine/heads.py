"""All heads together: fitted on some images of a feature store, and scoring others.

Cross-validation fits them in each fold, and training once more on all images.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from airflow_provider_lookoutvision.engine import image_heads, memory_bank, patch_head
from airflow_provider_lookoutvision.engine.backbone import Features, FloatArray
from airflow_provider_lookoutvision.engine.feature_store import FeatureStore
from airflow_provider_lookoutvision.engine.image_heads import ImageHead
from airflow_provider_lookoutvision.engine.memory_bank import DEFAULT_FEATURES, MemoryBank, top_mean
from airflow_provider_lookoutvision.engine.patch_head import PatchHead
from airflow_provider_lookoutvision.engine.targets import Targets

# The mean of this fraction of the patches is a score of its own, for large defects.
LARGE_DEFECT_FRACTION = 0.1


@dataclass(frozen=True)
class Heads:
    """A memory bank, the patch head and the image heads; memory banks alone without enough anomalies.

    :param banks: one, or those of `memory_bank.features_without_anomalies`
    :param images: one head for the texture and one for the content, or none
    """

    banks: tuple[MemoryBank, ...]
    patch: PatchHead | None
    images: tuple[ImageHead, ...]

    def scores(self, features: Features) -> tuple[FloatArray, FloatArray | None]:
        """The scores of an image, and the logits of its patches, `rows x columns x classes`, or None."""
        logits = None if self.patch is None else self.patch.logits(features)
        distances = [bank.distances(features) for bank in self.banks]
        return self.image_scores(distances, logits, features.summary), logits

    def image_scores(
        self, distances: Sequence[FloatArray], logits: FloatArray | None, summary: FloatArray | None
    ) -> FloatArray:
        """The scores of an image: one of each bank, two of the patch head, one of each image head.

        :param distances: of the patches to each bank, `rows x columns` of the bank's scale
        :param logits: of the patch head, `rows x columns x classes`, or None for the banks' scores alone
        :param summary: as the network gives it; not read without `logits`
        """
        scores = [bank.score(each) for bank, each in zip(self.banks, distances, strict=True)]
        if logits is not None and summary is not None:
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
    rng: np.random.Generator,
) -> Heads:
    """Fit the heads on these images.

    :param store: with the map at stride 4, where the network has it, unless `supervised`; with the images at
        half their size too, where they are large
    :param indices: of the images in the store
    :param supervised: whether to fit the heads that need anomalies, or memory banks alone
    """
    normal = indices[~targets.anomalous[indices]]
    if not supervised:
        chosen = memory_bank.features_without_anomalies(store.channels, half=store.has_half)
        size = memory_bank.SEVERAL_BANKS_SIZE
        banks = (memory_bank.fit(store, normal, rng, features, size) for features in chosen)
        return Heads(tuple(banks), None, ())
    bank = memory_bank.fit(store, normal, rng, DEFAULT_FEATURES)
    return Heads(
        (bank,),
        patch_head.fit(store, indices, targets, bank, rng),
        image_heads.fit(store, indices, targets.anomalous, rng),
    )
