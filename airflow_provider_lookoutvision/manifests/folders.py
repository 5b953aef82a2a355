"""Labelled images from folders named after the labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from airflow_provider_lookoutvision.manifests.images import (
    LABELS,
    OTHER_IMAGE_NAMES,
    InvalidLayout,
    LabelledImage,
    check_mask_name,
    is_image,
    some,
)

_MASKS_ARE = "the mask of anomaly/<name>.jpg is masks/<class>/<name>.png"


def unused(objects: Iterable[str]) -> list[str]:
    """The names below ``normal/`` and ``anomaly/`` that look like images, and are of no kind that is used."""
    return [
        name
        for name in sorted(objects)
        if name.partition("/")[0] in LABELS and name.lower().endswith(OTHER_IMAGE_NAMES)
    ]


def from_folders(root: str, objects: Mapping[str, datetime]) -> list[LabelledImage]:
    """The images below ``normal/`` and ``anomaly/``, with the masks below ``masks/<class>/``.

    A mask has the name of its image, with the suffix ``.png``.

    :param root: ``s3://bucket/prefix/``.
    :param objects: when each object below it was last changed, by its key after ``root``.
    :raises InvalidLayout: when there are no images, or masks and images don't match one to one.
    """
    masks = _masks_by_stem(root, objects)
    masked: dict[str, str] = {}
    images = []
    for label in LABELS:
        for name in sorted(objects):
            folder, _, rest = name.partition("/")
            if folder != label or not is_image(rest):
                continue
            stem = rest.rpartition(".")[0]
            mask_class, mask = masks.get(stem, ("", "")) if label == "anomaly" else ("", "")
            if mask and masked.setdefault(stem, name) != name:
                raise InvalidLayout(
                    f"{root}: {mask} is the mask of {masked[stem]} and of {name}: rename one of the images, "
                    "and its mask"
                )
            mask_ref = root + mask if mask else None
            images.append(LabelledImage(root + name, label, objects[name], mask_ref, mask_class or None))
    if unmatched := [mask for stem, (_, mask) in masks.items() if stem not in masked]:
        raise InvalidLayout(
            f"{root}: these masks have no image in anomaly/: {some(sorted(unmatched))}; {_MASKS_ARE}"
        )
    if not images:
        raise InvalidLayout(f"{root} has no images in normal/ or anomaly/, only {some(sorted(objects))}")
    return images


def _masks_by_stem(root: str, objects: Iterable[str]) -> dict[str, tuple[str, str]]:
    """The class and the name of each mask, by the name of its image without a suffix."""
    masks: dict[str, tuple[str, str]] = {}
    for name in sorted(objects):
        folder, _, rest = name.partition("/")
        if folder != "masks" or not (is_image(rest) or rest.lower().endswith(OTHER_IMAGE_NAMES)):
            continue
        check_mask_name(f"{root}: {name}", rest)
        mask_class, _, mask = rest.partition("/")
        if not mask:
            raise InvalidLayout(f"{root}: {name} is in no class's folder: {_MASKS_ARE}")
        stem = mask[: -len(".png")]
        if stem in masks:
            raise InvalidLayout(
                f"{root}: anomaly/{stem} has masks of {masks[stem][0]!r} and {mask_class!r}; a manifest "
                "has one mask for an image: paint both classes into one"
            )
        masks[stem] = mask_class, name
    return masks
