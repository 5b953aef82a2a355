"""Folders named after the labels, perhaps in ``train/`` and ``test/``, and the layout of MVTec's datasets."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from airflow_provider_lookoutvision import manifests
from airflow_provider_lookoutvision.moving.errors import MovingError, some
from airflow_provider_lookoutvision.moving.painting import Recoloured, colors_in
from airflow_provider_lookoutvision.moving.reading import IMAGE_NAMES, JOB, Entry, Options, Reading
from airflow_provider_lookoutvision.moving.sources import Source

WHITE = manifests.WHITE
_NEVER = datetime.fromtimestamp(0, UTC)
_DATASETS = ("train", "test")


def has_label_folders(source: Source) -> bool:
    """Whether there is ``normal/`` or ``anomaly/``, or one of them in ``train/`` or ``test/``."""
    return bool(_roots(source))


def read_label_folders(source: Source, options: Options) -> Reading:
    """The images of these folders, and the masks beside them."""
    entries: list[Entry] = []
    for root in _roots(source):
        entries += _labelled(source, root, options, root.rstrip("/") or options.dataset or "train")
    used: set[Any] = {
        name for each in entries for name in (each.source_ref, each.line.get("anomaly-mask-ref"))
    }
    return Reading(entries, left_out(source, used))


def has_mvtec(source: Source) -> bool:
    """Whether there is ``train/good/`` and ``test/``, maybe for several products."""
    return bool(_products(source))


def read_mvtec(source: Source, options: Options) -> Reading:
    """Each product is a project, of ``train/good``, ``test/<defect>`` and ``ground_truth/<defect>``."""
    entries: list[Entry] = []
    used: set[str] = set()
    for root in _products(source):
        entries += _product(source, root, options, used)
    return Reading(entries, left_out(source, used))


def left_out(source: Source, used: set[Any]) -> list[str]:
    """A remark about the pictures of a source that no entry has."""
    other = (*IMAGE_NAMES, ".bmp", ".tif", ".tiff", ".webp", ".gif")
    unused = [name for name in source.sizes if name.lower().endswith(other) and name not in used]
    return [f"{len(unused)} pictures are left out: {some(unused)}"] if unused else []


def _roots(source: Source) -> list[str]:
    folders = {name.rpartition("/")[0] for name in source.sizes}
    tops = {"/".join(folder.split("/")[:depth]) for folder in folders for depth in (1, 2)}
    roots = ["", *(f"{dataset}/" for dataset in _DATASETS)]
    return [root for root in roots if any(f"{root}{label}" in tops for label in manifests.LABELS)]


def _labelled(source: Source, root: str, options: Options, dataset: str) -> Iterator[Entry]:
    below = {name.removeprefix(root): _NEVER for name in source.sizes if name.startswith(root)}
    flat = {name for name in below if name.startswith("masks/") and name.count("/") == 1}
    if flat and not any(name.startswith("masks/") and name.count("/") > 1 for name in below):
        yield from _with_painted_masks(source, root, below, flat, options, dataset)
        return
    kept = {name: at for name, at in below.items() if options.masks or not name.startswith("masks/")}
    try:
        images = manifests.from_folders("", kept)
        colors = {} if options.mask_class else manifests.mask_colors(images, options.colors)
    except manifests.InvalidLayout as error:
        raise MovingError(f"{source.uri}{root}{str(error).removeprefix(': ')}") from error
    for image in images:
        own = {}
        if image.mask_class:
            own = options.one_class(WHITE) or {image.mask_class: colors[image.mask_class]}
        mask = root + image.mask_ref if image.mask_ref else None
        line = manifests.entry(root + image.source_ref, image.label, mask_ref=mask, colors=own, job_name=JOB)
        yield Entry(dataset, line, f"{source.uri}{root}{image.source_ref}")


def _with_painted_masks(
    source: Source, root: str, below: dict[str, datetime], masks: set[str], options: Options, dataset: str
) -> Iterator[Entry]:
    """Masks in one folder, in each of which a colour says the class."""
    colors = {name: color.upper() for name, color in options.colors.items()}
    if options.masks and not colors:
        raise MovingError(
            f"{source.uri}{root}masks/ has no folder for each class. If the colours in the masks are "
            "the classes, say each, as --mask-color scratch=#FF0000; else put the masks into masks/<class>/"
        )
    unused = dict.fromkeys(masks)
    for image in manifests.from_folders("", {name: at for name, at in below.items() if name not in masks}):
        mask = f"masks/{image.source_ref.partition('/')[2].rpartition('.')[0]}.png"
        own: dict[str, str] = {}
        if options.masks and image.label == "anomaly" and mask in unused:
            del unused[mask]
            shown = colors_in(source.read(root + mask), f"{source.uri}{root}{mask}")
            own = {name: color for name, color in colors.items() if color in shown}
            if not own:
                raise MovingError(
                    f"{source.uri}{root}{mask} has none of the colours of --mask-color, but "
                    f"{some(sorted(shown))}"
                )
        line = manifests.entry(
            root + image.source_ref,
            image.label,
            mask_ref=root + mask if own else None,
            colors=own,
            job_name=JOB,
        )
        yield Entry(dataset, line, f"{source.uri}{root}{image.source_ref}")
    if options.masks and unused:
        raise MovingError(
            f"{source.uri}{root} has no image in anomaly/ for these masks: {some(sorted(unused))}"
        )


def _products(source: Source) -> list[str]:
    middle = "train/good/"
    roots = {name.partition(middle)[0] for name in source.sizes if f"/{middle}" in f"/{name}"}
    return sorted(root for root in roots if not root or root.endswith("/"))


def _product(source: Source, root: str, options: Options, used: set[str]) -> Iterator[Entry]:
    project = root.rstrip("/").rpartition("/")[2] or None
    images = [
        (name, *name.removeprefix(root).split("/", 2))
        for name in source.sizes
        if name.startswith(root)
        and name.lower().endswith(IMAGE_NAMES)
        and name.count("/") >= root.count("/") + 2
    ]
    masks = {
        f"{kind}/{file.rpartition('.')[0].removesuffix('_mask')}": name
        for name, part, kind, file in images
        if part == "ground_truth"
    }
    colors = options.palette(mask.partition("/")[0] for mask in masks)
    for name, part, kind, file in images:
        if part not in _DATASETS:
            continue
        used.add(name)
        label = options.every_label.get(kind.lower(), "anomaly")
        mask = (
            masks.get(f"{kind}/{file.rpartition('.')[0]}") if options.masks and label == "anomaly" else None
        )
        painting = None
        own = {}
        if mask:
            used.add(mask)
            # White means the one class, or the one of the file's folder: several need colours of their own.
            one = options.mask_class or (kind if len(colors) == 1 else None)
            own = options.one_class(WHITE) or ({one: WHITE} if one else {kind: colors[kind]})
            painting = None if one else Recoloured(source, mask, colors[kind])
        line = manifests.entry(name, label, mask_ref=mask, colors=own, job_name=JOB)
        yield Entry(part, line, f"{source.uri}{name}", project=project, painting=painting)
