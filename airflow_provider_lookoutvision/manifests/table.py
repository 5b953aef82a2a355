"""Labelled images from a CSV file."""

from __future__ import annotations

import csv
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime

from airflow_provider_lookoutvision.manifests.images import (
    LABELS,
    InvalidLayout,
    LabelledImage,
    check_mask_name,
    some,
)

_OWN_LABELS = dict(zip(LABELS, LABELS, strict=True))
_COLUMNS = ("image", "label", "mask", "class")
_DELIMITERS = (",", ";", "\t")


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
            check_mask_name(f"{where}: {mask}", mask)
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
            f"the table's first line is {some(lines[:1]).strip()!r}; it needs the columns image and label: "
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
            f"the table's images and masks are in the buckets {some(buckets)}; a dataset's are in one"
        )
