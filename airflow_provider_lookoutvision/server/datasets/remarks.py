"""What the StatusMessage of a dataset says beside its success, so that nobody finds out after a training.

Lines that were left out are counted, entries whose labels say nothing to the service and their classes, and
images that are in the other dataset of the project too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from airflow_provider_lookoutvision.server.datasets import manifest
from airflow_provider_lookoutvision.server.datasets.operations import USABLE
from airflow_provider_lookoutvision.server.storage.schema import dataset_entries, datasets

_SHOWN_CLASSES = 10
_SHOWN_IMAGES = 3
_BATCH = 1000


def remarks(connection: sa.Connection, dataset: sa.Row[Any], folders: Sequence[str]) -> str:
    """Sentences to follow the message of success, each after a space; often none.

    :param folders: what the lines that were left out name.
    """
    found = [*_left_out(folders), *_unused_labels(connection, dataset.id), *_in_both(connection, dataset)]
    return "".join(f" {sentence}" for sentence in found)


def in_both_datasets(source_refs: Sequence[str], count: int) -> str:
    """The warning that images are trained on and tested with.

    :param source_refs: of some of them.
    """
    named = ", ".join(source_refs[:_SHOWN_IMAGES]) + (", ..." if count > _SHOWN_IMAGES else "")
    return (
        f"{_images(count, 'is', 'are')} in both the training and the test dataset, so that the metrics are "
        f"too good: {named}"
    )


def _left_out(folders: Sequence[str]) -> list[str]:
    if not folders:
        return []
    lines = "1 line was" if len(folders) == 1 else f"{len(folders)} lines were"
    named = ", ".join(folders[:_SHOWN_IMAGES]) + (", ..." if len(folders) > _SHOWN_IMAGES else "")
    return [f"{lines} left out, for a folder is no image: {named}."]


def _unused_labels(connection: sa.Connection, dataset_id: int) -> list[str]:
    columns = dataset_entries.c
    query = sa.select(columns.line).where(columns.dataset_id == dataset_id, columns.label.is_(None))
    classes: Counter[str] = Counter()
    other_class = no_class = 0
    for row in connection.execute(query).yield_per(_BATCH):
        names = manifest.class_names(row.line)
        known = {name for name in names if name is not None}
        classes.update(known)
        other_class += bool(known)
        no_class += bool(names and not known)
    sentences = []
    if classes:
        named = ", ".join(f"{manifest.shown(name)} ({n})" for name, n in classes.most_common(_SHOWN_CLASSES))
        more = f" and {len(classes) - _SHOWN_CLASSES} more" if len(classes) > _SHOWN_CLASSES else ""
        sentences.append(
            f"{_images(other_class, 'has', 'have')} a class that is neither normal nor anomaly, and no label "
            f"for that: {named}{more}."
        )
    if no_class:
        sentences.append(
            f"{_images(no_class, 'has', 'have')} a label without a class-name, which is no label."
        )
    return sentences


def _images(count: int, one: str, many: str) -> str:
    return f"1 image {one}" if count == 1 else f"{count} images {many}"


def _in_both(connection: sa.Connection, dataset: sa.Row[Any]) -> list[str]:
    here, there = dataset_entries.alias(), dataset_entries.alias()
    other = sa.select(datasets.c.id).where(
        datasets.c.project_id == dataset.project_id,
        datasets.c.id != dataset.id,
        datasets.c.status.in_(USABLE),
    )
    shared = (
        sa.select(here.c.source_ref)
        .join(there, there.c.source_ref == here.c.source_ref)
        .where(here.c.dataset_id == dataset.id, there.c.dataset_id.in_(other))
    )
    count = connection.execute(sa.select(sa.func.count()).select_from(shared.subquery())).scalar_one()
    if not count:
        return []
    some = connection.execute(shared.order_by(here.c.id).limit(_SHOWN_IMAGES)).scalars().all()
    return [in_both_datasets(some, count)]
