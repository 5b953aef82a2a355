"""What people see of a dataset: pages of its entries, back and forth, filtered; one entry; its classes.

ListDatasetEntries has a part of the filters and goes forward only. All functions here show what it may show.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from airflow_provider_lookoutvision.server.calls.call import Call
from airflow_provider_lookoutvision.server.datasets import labels, manifest
from airflow_provider_lookoutvision.server.datasets.operations import DatasetStatus, find_dataset
from airflow_provider_lookoutvision.server.storage.schema import dataset_entries as table

UNLABELLED = "none"
_MOST_PARAMETERS = 10_000
_HIDDEN = frozenset({DatasetStatus.CREATE_IN_PROGRESS, DatasetStatus.CREATE_FAILED})


@dataclass(frozen=True)
class Filter:
    """Which entries; a value that is empty or None leaves nothing out.

    :param label: ``normal``, ``anomaly`` or ``none``.
    :param anomaly_class: in their masks.
    :param contains: a part of the reference.
    :param references: these alone.
    """

    label: str = ""
    anomaly_class: str = ""
    contains: str = ""
    references: frozenset[str] | None = None


@dataclass(frozen=True)
class Entry:
    """One image of a dataset.

    :param version: changes whenever the entry does.
    :param mask: where its mask is, and the colours of the classes in it.
    """

    id: int
    source_ref: str
    label: str | None
    version: str
    line: str
    mask: manifest.Mask | None

    @property
    def name(self) -> str:
        """The last part of the reference."""
        return self.source_ref.rpartition("/")[2]


@dataclass(frozen=True)
class Page:
    """Some entries, and how many the filter lets through."""

    entries: Sequence[Entry]
    count: int


def page(call: Call, project_name: str, dataset_type: str, only: Filter, offset: int, size: int) -> Page:
    """The entries from ``offset`` on, at most ``size``, in the order of their creation.

    :raises ResourceNotFoundException: when there is no such dataset.
    """
    condition = _condition(call, project_name, dataset_type, only)
    query = _columns().where(condition).order_by(table.c.id).offset(offset).limit(size)
    if only == Filter():
        count = find_dataset(call, project_name, dataset_type).total
    else:
        counting = sa.select(sa.func.count()).select_from(table).where(condition)
        count = call.connection.execute(counting).scalar_one()
    return Page([_entry(row) for row in call.connection.execute(query)], count)


def position(call: Call, project_name: str, dataset_type: str, only: Filter, reference: str) -> int:
    """How many entries the filter lets through up to that image, which it may leave out itself."""
    condition = _condition(call, project_name, dataset_type, only)
    beside = _condition(call, project_name, dataset_type, Filter())
    of_image = sa.select(table.c.id).where(beside, table.c.source_ref == reference).scalar_subquery()
    counting = sa.select(sa.func.count()).select_from(table).where(condition, table.c.id <= of_image)
    return int(call.connection.execute(counting).scalar_one())


def find(call: Call, project_name: str, dataset_type: str, references: Iterable[str]) -> dict[str, Entry]:
    """The entries of these images, by their references; those that aren't there are left out."""
    wanted = sorted(set(references))
    condition = _condition(call, project_name, dataset_type, Filter())
    found: dict[str, Entry] = {}
    for start in range(0, len(wanted), _MOST_PARAMETERS):
        some = wanted[start : start + _MOST_PARAMETERS]
        query = _columns().where(condition, table.c.source_ref.in_(some))
        found |= {row.source_ref: _entry(row) for row in call.connection.execute(query)}
    return found


def neighbours(
    call: Call, project_name: str, dataset_type: str, only: Filter, entry: Entry
) -> tuple[str | None, str | None]:
    """The references of the images before and after one, among those that the filter lets through."""
    condition = _condition(call, project_name, dataset_type, only)
    query = sa.select(table.c.source_ref).where(condition).limit(1)
    before = query.where(table.c.id < entry.id).order_by(table.c.id.desc())
    after = query.where(table.c.id > entry.id).order_by(table.c.id)
    run = call.connection.execute
    return run(before).scalar_one_or_none(), run(after).scalar_one_or_none()


def classes(call: Call, project_name: str, dataset_type: str) -> dict[str, str]:
    """The classes in the masks of a dataset, each with its colour, by name."""
    dataset = find_dataset(call, project_name, dataset_type)
    key = (call.connection.engine.url, dataset.id, dataset.updated_at, dataset.total)
    if (known := _classes_of.get(key)) is not None:
        return known
    query = sa.select(table.c.line).where(
        table.c.dataset_id == dataset.id, table.c.line.contains(manifest.SEGMENTATION)
    )
    found: dict[str, str] = {}
    for line in call.connection.execute(query).scalars():
        if mask := manifest.mask_of(line):
            for name, color in mask.colors.items():
                found.setdefault(name, color)
    if len(_classes_of) >= _MOST_KNOWN:
        _classes_of.clear()
    _classes_of[key] = dict(sorted(found.items()))
    return _classes_of[key]


# By dataset and the moment of its last change.
_classes_of: dict[Any, dict[str, str]] = {}
_MOST_KNOWN = 256


def changed(
    call: Call, project_name: str, dataset_type: str, versions: Mapping[str, str | None]
) -> dict[str, Entry | None]:
    """Of the images whose version somebody saw, those that are another one now.

    :param versions: by reference; None for an image that wasn't there.
    """
    now = find(call, project_name, dataset_type, versions)
    return {
        reference: now.get(reference)
        for reference, seen in versions.items()
        if (now[reference].version if reference in now else None) != seen
    }


def _columns() -> sa.Select[Any]:
    return sa.select(table.c.id, table.c.source_ref, table.c.label, table.c.line)


def _condition(call: Call, project_name: str, dataset_type: str, only: Filter) -> sa.ColumnElement[bool]:
    dataset = find_dataset(call, project_name, dataset_type)
    conditions: list[sa.ColumnElement[bool]] = [table.c.dataset_id == dataset.id]
    if dataset.status in _HIDDEN:
        conditions.append(sa.false())  # an unfinished import shows no entries
    if only.label:
        conditions.append(
            table.c.label.is_(None) if only.label == UNLABELLED else table.c.label == only.label
        )
    if only.anomaly_class:
        name = json.dumps({"class-name": only.anomaly_class}, ensure_ascii=False, separators=(",", ":"))
        conditions.append(table.c.line.contains(name[1:-1], autoescape=True))
    if only.contains:
        conditions.append(table.c.source_ref.contains(only.contains, autoescape=True))
    if only.references is not None:
        conditions.append(table.c.source_ref.in_(sorted(only.references)))
    return sa.and_(*conditions)


def _entry(row: sa.Row[Any]) -> Entry:
    version, mask = _parsed(row.line)
    return Entry(row.id, row.source_ref, row.label, version, row.line, mask)


@lru_cache(maxsize=4096)
def _parsed(line: str) -> tuple[str, manifest.Mask | None]:
    return labels.version(line), manifest.mask_of(line)
