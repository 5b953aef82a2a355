"""A CSV file of images and labels, with a line that names the columns or without."""

from __future__ import annotations

import csv
import io
from collections import Counter
from datetime import UTC, datetime

from airflow_provider_lookoutvision import manifests
from airflow_provider_lookoutvision.moving.errors import MovingError
from airflow_provider_lookoutvision.moving.reading import JOB, Entry, Options, Reading, unknown_labels
from airflow_provider_lookoutvision.moving.sources import Source

NAMES = (".csv", ".tsv")
_NEVER = datetime.fromtimestamp(0, UTC)


def read_table(source: Source, name: str, options: Options) -> Reading:
    """The images of a table. Names in it without ``s3://`` are below its folder."""
    where = f"{source.uri}{name}"
    try:
        text = source.read(name).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MovingError(f"{where} is not UTF-8: {error}. Save it as UTF-8") from error
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    labels = options.every_label
    _check_labels(text, delimiter, labels, where)
    try:
        images = manifests.from_table(
            io.StringIO(text, newline=""), "", _NEVER, labels=labels, delimiter=delimiter
        )
        colors = {} if options.mask_class else manifests.mask_colors(images, options.colors)
    except (manifests.InvalidLayout, csv.Error) as error:
        raise MovingError(f"{where}: {error}") from error
    entries = []
    for image in images:
        mask = image.mask_ref if options.masks else None
        own = {}
        if mask and image.mask_class:
            own = options.one_class(manifests.WHITE) or {image.mask_class: colors[image.mask_class]}
        line = manifests.entry(image.source_ref, image.label, mask_ref=mask, colors=own, job_name=JOB)
        base = name[: name.rfind("/") + 1]
        entries.append(Entry(options.dataset or "train", line, f"{where}: {image.source_ref}", base))
    return Reading(entries)


def _check_labels(text: str, delimiter: str, labels: dict[str, str], where: str) -> None:
    """Refuse labels that mean nothing here, all at once."""
    rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if len(row) > 1]
    names = [cell.strip().lower() for cell in rows[0]] if rows else []
    column = names.index("label") if "label" in names else 1
    named = rows[1:] if "label" in names else rows
    unknown = Counter(
        row[column].strip()
        for row in named
        if len(row) > column and row[column].strip().lower() not in labels
    )
    if unknown and (named is not rows or len(unknown) < len(named)):
        raise unknown_labels(unknown, where)
