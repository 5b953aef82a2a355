"""Which labelled images are for training, and which for tests."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

from airflow_provider_lookoutvision.manifests.images import InvalidLayout, LabelledImage


def split(
    images: Sequence[LabelledImage], test_size: float, seed: int
) -> tuple[list[LabelledImage], list[LabelledImage]]:
    """Split images into train and test, stratified by label and class.

    The side of an image depends on its own name and the seed, and little on the other images: images that are
    added later hardly move the others.

    :param test_size: the fraction of each label and class for the test side, 0 to 1; rounded.
    :raises InvalidLayout: when a size above 0 leaves no images on a side.
    """
    groups: dict[tuple[str, str | None], list[LabelledImage]] = {}
    for image in images:
        groups.setdefault((image.label, image.mask_class), []).append(image)
    test: set[str] = set()
    for members in groups.values():
        ordered = sorted(members, key=lambda image: _rank(seed, image.source_ref))
        test.update(image.source_ref for image in ordered[: round(test_size * len(members))])
    if test_size and len(test) in (0, len(images)):
        counts = Counter(image.label for image in images)
        side, other = ("train", "smaller") if test else ("test", "larger")
        raise InvalidLayout(
            f"test_size {test_size:g} of {counts['normal']} normal and {counts['anomaly']} anomaly images, "
            f"rounded for each label and class, leaves none to {side} with: add images, or set a {other} "
            "test_size, or 0 for no test manifest"
        )
    return (
        [image for image in images if image.source_ref not in test],
        [image for image in images if image.source_ref in test],
    )


def _rank(seed: int, source_ref: str) -> bytes:
    return hashlib.sha256(f"{seed} {source_ref}".encode(errors="surrogatepass")).digest()
