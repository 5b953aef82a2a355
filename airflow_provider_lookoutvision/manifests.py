"""Ground Truth manifests from folders named after the labels, or from a table.

A manifest has a line for each image. The same images, labels and seed give the same bytes, so a retry of a
task writes the same manifest again.
"""

from __future__ import annotations

import csv
import hashlib
import json
import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

LABELS = ("normal", "anomaly")
_OWN_LABELS = dict(zip(LABELS, LABELS, strict=True))
IMAGE_NAMES = (".jpg", ".jpeg", ".png")
OTHER_IMAGE_NAMES = (".bmp", ".gif", ".heic", ".tif", ".tiff", ".webp")
WHITE = "#FFFFFF"
_LABEL, _MASK = "anomaly-label", "anomaly-mask-ref"
_COLUMNS = ("image", "label", "mask", "class")
_DELIMITERS = (",", ";", "\t")
_SHOWN = 5
_MASKS_ARE = "the mask of anomaly/<name>.jpg is masks/<class>/<name>.png"


class InvalidLayout(ValueError):
    """No manifest can be built from these folders or this table; the message says what to change."""


@dataclass(frozen=True)
class LabelledImage:
    """An image labelled ``normal`` or ``anomaly``, and its mask, of one class of defects."""

    source_ref: str
    label: str
    created: datetime
    mask_ref: str | None = None
    mask_class: str | None = None


def is_image(name: str) -> bool:
    """Whether an object is an image by its name; ``._a.png`` is what macOS keeps of a file ``a.png``."""
    return name.lower().endswith(IMAGE_NAMES) and not name.rpartition("/")[2].startswith("._")


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
            f"{root}: these masks have no image in anomaly/: {_some(sorted(unmatched))}; {_MASKS_ARE}"
        )
    if not images:
        raise InvalidLayout(f"{root} has no images in normal/ or anomaly/, only {_some(sorted(objects))}")
    return images


def _masks_by_stem(root: str, objects: Iterable[str]) -> dict[str, tuple[str, str]]:
    """The class and the name of each mask, by the name of its image without a suffix."""
    masks: dict[str, tuple[str, str]] = {}
    for name in sorted(objects):
        folder, _, rest = name.partition("/")
        if folder != "masks" or not (is_image(rest) or rest.lower().endswith(OTHER_IMAGE_NAMES)):
            continue
        _check_mask_name(f"{root}: {name}", rest)
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


def _check_mask_name(where: str, name: str) -> None:
    if not name.lower().endswith(".png"):
        raise InvalidLayout(
            f"{where} is a mask, and no PNG: save it as PNG, since JPEG changes the colours of its pixels"
        )


def from_table(
    lines: Iterable[str],
    root: str,
    created: datetime,
    *,
    labels: Mapping[str, str] = _OWN_LABELS,
    delimiter: str | None = None,
) -> list[LabelledImage]:
    """The images that a CSV file lists: columns ``image`` and ``label``, perhaps ``mask`` and ``class``.

    The first line names the columns. Without such a line, as AWS's scripts took it, they are in that order.

    :param root: where names without ``s3://`` are: ``s3://bucket/prefix/``; or empty, to leave them as they
        are.
    :param created: when the table was last changed.
    :param labels: what is written for ``normal`` and ``anomaly``, in lower case.
    :param delimiter: between columns; by default a comma, semicolon or tab.
    :raises InvalidLayout: naming the line.
    """
    images: dict[str, LabelledImage] = {}
    for number, row in _rows(list(lines), labels, (delimiter,) if delimiter else _DELIMITERS):
        where = f"line {number} of the table"
        name, written, mask, mask_class = (row.get(column, "").strip() for column in _COLUMNS)
        label = labels.get(written.lower())
        if label is None or not name:
            raise InvalidLayout(
                f"{where} has the image {name!r} and the label {written!r}; labels are {', '.join(labels)}"
            )
        if bool(mask) != bool(mask_class):
            raise InvalidLayout(f"{where} has a mask without a class, or the reverse")
        source_ref = _reference(where, root, name)
        mask_ref = _reference(where, root, mask) if mask else None
        if mask_ref:
            _check_mask_name(f"{where}: {mask}", mask)
        if source_ref in images:
            raise InvalidLayout(f"{where} repeats {source_ref}")
        images[source_ref] = LabelledImage(source_ref, label, created, mask_ref, mask_class or None)
    if not images:
        raise InvalidLayout("the table lists no images")
    if root:
        _check_buckets(images.values())
    return list(images.values())


def _rows(
    lines: Sequence[str], labels: Mapping[str, str], delimiters: Iterable[str]
) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a table with their line numbers, each by the names of its columns."""
    for delimiter in delimiters:
        reader = csv.reader(lines, delimiter=delimiter)
        first = [field.strip() for field in next(filter(None, reader), [])]
        names = [field.lower() for field in first]
        if set(_COLUMNS[:2]) <= set(names):
            break
        if len(first) > 1 and names[1] in labels:
            names = list(_COLUMNS)
            reader = csv.reader(lines, delimiter=delimiter)
            break
    else:
        raise InvalidLayout(
            f"the table's first line is {_some(lines[:1]).strip()!r}; it needs the columns image and label: "
            "name them there, or begin with an image and its label, separated by a comma, semicolon or tab"
        )
    for fields in reader:
        if any(field.strip() for field in fields):
            yield reader.line_num, dict(zip(names, fields, strict=False))


def _reference(where: str, root: str, name: str) -> str:
    """The URI of a name in a table."""
    if not root:
        return name
    if name.startswith("s3://"):
        bucket, _, key = name.removeprefix("s3://").partition("/")
        if bucket and key:
            return name
    parts = name.split("/")
    if ":" in parts[0] or "\\" in name or parts[0] == "":
        raise InvalidLayout(
            f"{where} has {name!r}; it must be s3://bucket/key, or a name below {root}: upload it there"
        )
    if {".", ".."}.isdisjoint(parts):
        return root + name
    bucket, _, folder = root.removeprefix("s3://").partition("/")
    key = posixpath.normpath(folder + name)
    if key.startswith(".."):
        raise InvalidLayout(f"{where} has {name!r}, which is above the bucket of {root}")
    return f"s3://{bucket}/{key}"


def _check_buckets(images: Iterable[LabelledImage]) -> None:
    references = (ref for image in images for ref in (image.source_ref, image.mask_ref) if ref)
    buckets = sorted({reference.split("/")[2] for reference in references})
    if len(buckets) > 1:
        raise InvalidLayout(
            f"the table's images and masks are in the buckets {_some(buckets)}; a dataset's are in one"
        )


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


def manifest(images: Iterable[LabelledImage], colors: Mapping[str, str]) -> str:
    """The images as JSON Lines in the Ground Truth format.

    :param colors: of the classes in their masks, ``#RRGGBB``.
    """
    lines = (
        entry(
            image.source_ref,
            image.label,
            mask_ref=image.mask_ref,
            colors={image.mask_class: colors[image.mask_class]} if image.mask_class else {},
            created=image.created,
        )
        for image in images
    )
    return "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)


def labelled(labels: Mapping[str, str], created: datetime) -> str:
    """Images and their labels as JSON Lines in the Ground Truth format.

    :param labels: ``normal`` or ``anomaly``, by the image's URI, ``s3://bucket/key``.
    :param created: when they were labelled.
    :raises InvalidLayout: naming the image.
    """
    images = []
    for uri, label in labels.items():
        if not uri.startswith("s3://") or str(label).strip().lower() not in LABELS:
            raise InvalidLayout(
                f"labels has {label!r} for {uri!r}; it must have normal or anomaly, for s3://bucket/key"
            )
        images.append(LabelledImage(uri, str(label).strip().lower(), created))
    return manifest(images, {})


def mask_colors(images: Iterable[LabelledImage], given: Mapping[str, str]) -> dict[str, str]:
    """The colour of each class in its masks: as given, or white if there is only one class.

    :raises InvalidLayout: when a class has no colour, or two have the same.
    """
    classes = sorted({image.mask_class for image in images if image.mask_class})
    colors = {name: given.get(name, WHITE if len(classes) == 1 else "").upper() for name in classes}
    if missing := [name for name, color in colors.items() if not color]:
        raise InvalidLayout(
            f"set mask_colors: which colour have {_some(missing)} in their masks? Each class needs its own"
        )
    if twice := [color for color, count in Counter(colors.values()).items() if count > 1]:
        raise InvalidLayout(f"mask_colors has {_some(twice)} for several classes; each needs its own")
    return colors


def entry(
    source_ref: str,
    label: str | None,
    *,
    mask_ref: str | None = None,
    colors: Mapping[str, str] | None = None,
    created: datetime | None = None,
    job_name: str = "airflow",
) -> dict[str, object]:
    """One image's line of a manifest.

    :param label: ``normal``, ``anomaly``, or None for an image without a label.
    :param mask_ref: the mask, whose classes have these ``colors``, ``#RRGGBB``.
    :param created: when the label was given, if that is known.
    """
    common: dict[str, object] = {"human-annotated": "yes"}
    if created:
        common["creation-date"] = created.strftime("%Y-%m-%dT%H:%M:%S")
    common["job-name"] = job_name
    line: dict[str, object] = {"source-ref": source_ref}
    if label:
        line[_LABEL] = int(label == "anomaly")
        line[f"{_LABEL}-metadata"] = {
            "confidence": 1,
            "class-name": label,
            "type": "groundtruth/image-classification",
            **common,
        }
    if mask_ref:
        line[_MASK] = mask_ref
        line[f"{_MASK}-metadata"] = {
            "internal-color-map": {
                str(number): {"class-name": name, "hex-color": color, "confidence": 1}
                for number, (name, color) in enumerate((colors or {}).items(), 1)
            },
            "type": "groundtruth/semantic-segmentation",
            **common,
        }
    return line


def split_lines(text: bytes, most: int) -> Iterator[bytes]:
    """Split JSON Lines into parts of at most ``most`` bytes, between lines."""
    part = b""
    for line in text.splitlines(keepends=True):
        if not line.strip():
            continue
        if part and len(part) + len(line) > most:
            yield part
            part = b""
        part += line
    if part:
        yield part


def _rank(seed: int, source_ref: str) -> bytes:
    return hashlib.sha256(f"{seed} {source_ref}".encode(errors="surrogatepass")).digest()


def _some(names: Sequence[str]) -> str:
    left = len(names) - _SHOWN
    return (", ".join(names[:_SHOWN]) or "nothing") + (f" and {left} more" if left > 0 else "")
