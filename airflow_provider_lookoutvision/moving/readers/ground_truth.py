"""Ground Truth manifests: as ListDatasetEntries returned them, as the console kept them, or alone.

The lines stay as they are. What is wrong in one the service finds, and names it by its number.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from airflow_provider_lookoutvision.moving.errors import MovingError
from airflow_provider_lookoutvision.moving.reading import Entry, Options, Reading, dataset_named
from airflow_provider_lookoutvision.moving.sources import LARGEST_TEXT, Source

NAMES = (".manifest", ".jsonl", ".ndjson")
_CONSOLE = re.compile(r"(?:(?:.*/)?([^/]+)/)?(train|test)/manifests/output/output\.manifest")


def is_console_bucket(source: Source) -> bool:
    """Whether there is ``<project>/<train|test>/manifests/output/output.manifest``."""
    return any(_CONSOLE.fullmatch(name) for name in source.sizes)


def read_console_bucket(source: Source, options: Options) -> Reading:
    """All projects that the console kept there, or the dataset of them that is wanted."""
    entries: list[Entry] = []
    own = source.uri.rstrip("/").rpartition("/")[2]
    for name in source.sizes:
        found = _CONSOLE.fullmatch(name)
        if found and options.dataset in (None, found[2]):
            entries += entries_of(source, name, found[2], found[1] or own)
    return Reading(entries)


def has_manifests(source: Source) -> bool:
    """Whether there are manifests in it."""
    return any(name.lower().endswith(NAMES) for name in source.sizes)


def read_manifests(source: Source, options: Options) -> Reading:
    """All manifests in it, each for the dataset that its path names."""
    names = [name for name in source.sizes if name.lower().endswith(NAMES)]
    entries: list[Entry] = []
    for name in names:
        dataset = options.dataset or dataset_named(name)
        if dataset is None and len(names) > 1:
            raise MovingError(
                f"{source.uri}{name} names no dataset: put train or test into its name, or import one "
                "manifest at a time, with --dataset"
            )
        entries += entries_of(source, name, dataset or "train", None)
    return Reading(entries)


def read_manifest(source: Source, name: str, options: Options) -> Reading:
    """One manifest."""
    return Reading(list(entries_of(source, name, options.dataset or dataset_named(name) or "train", None)))


def is_entries(document: Any) -> bool:
    """Whether a JSON document is an answer of ListDatasetEntries, or its list of lines."""
    lines = document.get("DatasetEntries") if isinstance(document, dict) else document
    if not isinstance(lines, list):
        return False
    first = lines[0] if lines else None
    return isinstance(first, str) or (isinstance(first, dict) and "source-ref" in first)


def entries_of(source: Source, name: str, dataset: str, project: str | None) -> Iterator[Entry]:
    """The entries of one manifest."""
    base = name[: name.rfind("/") + 1]
    for number, line in _lines(source, name):
        where = f"{source.uri}{name}, line {number}"
        if not isinstance(line, Mapping) or not isinstance(line.get("source-ref"), str):
            raise MovingError(f"{where}: it is no object with a source-ref, as a manifest's lines are")
        yield Entry(dataset, line, where, base, project)


def _lines(source: Source, name: str) -> Iterator[tuple[int, Any]]:
    where = f"{source.uri}{name}"
    if (source.size(name) or 0) > LARGEST_TEXT:
        raise MovingError(f"{where} has more than {LARGEST_TEXT} bytes, which is the most of a manifest")
    try:
        text = source.read(name).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MovingError(f"{where} is not UTF-8: {error}") from error
    lines: list[Any] = text.splitlines()
    if text.lstrip()[:1] == "[" or '"DatasetEntries"' in text[:1000]:
        document = parsed(text, where)
        if not is_entries(document):
            raise MovingError(f"{where} is neither a manifest nor an answer of ListDatasetEntries")
        lines = document["DatasetEntries"] if isinstance(document, dict) else document
    for number, line in enumerate(lines, 1):
        if not isinstance(line, str):
            yield number, line
        elif line.strip():
            yield number, parsed(line, f"{where}, line {number}")


def parsed(text: str, where: str) -> Any:
    """The JSON document.

    :raises MovingError: naming where it isn't one.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MovingError(f"{where} is not JSON: {error}") from error
