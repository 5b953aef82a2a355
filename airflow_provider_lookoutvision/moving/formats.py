"""Which kind of source a source is, and the reader of that kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from airflow_provider_lookoutvision.moving import archive
from airflow_provider_lookoutvision.moving.errors import MovingError, some
from airflow_provider_lookoutvision.moving.readers import coco, folders, ground_truth, label_studio, table
from airflow_provider_lookoutvision.moving.reading import Options, Reading, split
from airflow_provider_lookoutvision.moving.sources import (
    ArchiveSource,
    FolderSource,
    S3Source,
    Source,
    parse_s3_uri,
)

_JSON = ".json"
_WANTED = (
    "a manifest, the answers of ListDatasetEntries, the console's bucket, folders normal/ and anomaly/, "
    "MVTec's folders, COCO, an export of Label Studio as JSON, a CSV file, or an archive of "
    "`lookoutvision export`"
)

Read = Callable[[Source, Options], Reading]
# Of a folder, the most certain first.
_FOLDERS: tuple[tuple[str, Callable[[Source], bool], Read], ...] = (
    ("archive", archive.is_archive, archive.read_archive),
    ("console", ground_truth.is_console_bucket, ground_truth.read_console_bucket),
    ("mvtec", folders.has_mvtec, folders.read_mvtec),
    ("folders", folders.has_label_folders, folders.read_label_folders),
    ("manifest", ground_truth.has_manifests, ground_truth.read_manifests),
)


def open_source(place: str, s3: Callable[[], Any]) -> tuple[Source, str | None]:
    """The source at a path or an S3 URI, and the name of the file in it that is meant, if it is one file.

    :param s3: makes the client of S3.
    """
    if place.startswith("s3://"):
        bucket, key = parse_s3_uri(place)
        folder, _, name = key.rpartition("/")
        if not name or "." not in name:
            return S3Source(s3(), bucket, f"{key.rstrip('/')}/" if key else ""), None
        return S3Source(s3(), bucket, f"{folder}/" if folder else ""), name
    path = Path(place).expanduser()
    if path.is_dir():
        return FolderSource(path), None
    if not path.exists():
        raise MovingError(f"There is no {place}")
    if path.suffix.lower() == ".zip":
        return ArchiveSource(path), None
    return FolderSource(path.parent), path.name


def read(source: Source, name: str | None, options: Options, form: str | None = None) -> tuple[str, Reading]:
    """What kind of source it is, and its entries.

    :param name: the one file that is meant.
    :param form: the kind, where the source may be of several.
    :raises MovingError: when it is none of them.
    """
    kind, found = _read_file(source, name, options, form) if name else _read_folder(source, options, form)
    if not found.entries:
        raise MovingError(f"{source.uri}{name or ''} has no images, as {kind}")
    return kind, Reading(split(found.entries, options), found.remarks)


def _read_folder(source: Source, options: Options, form: str | None) -> tuple[str, Reading]:
    for kind, recognises, reads in _FOLDERS:
        if form == kind or (form is None and recognises(source)):
            return kind, reads(source, options)
    documents = {
        name: ground_truth.parsed(source.read(name).decode("utf-8-sig", "replace"), f"{source.uri}{name}")
        for name in source.sizes
        if name.lower().endswith(_JSON)
    }
    if found := {name: each for name, each in documents.items() if coco.is_coco(each)}:
        return "coco", coco.read_coco(source, found, options)
    others = [name for name, each in documents.items() if label_studio.is_label_studio(each)]
    others += [name for name in source.sizes if name.lower().endswith(table.NAMES)]
    if len(others) == 1:
        return _read_file(source, others[0], options, form)
    if others:
        raise MovingError(f"{source.uri} has {some(others)}: import one of them")
    raise MovingError(f"{source.uri} has {some(source.sizes)}, and is none of these: {_WANTED}")


def _read_file(source: Source, name: str, options: Options, form: str | None) -> tuple[str, Reading]:
    where = f"{source.uri}{name}"
    if source.size(name) is None:
        raise MovingError(f"There is no {where}")
    if form == "csv" or (form is None and name.lower().endswith(table.NAMES)):
        return "csv", table.read_table(source, name, options)
    if form in ("coco", "label-studio") or (form is None and name.lower().endswith(_JSON)):
        document = ground_truth.parsed(source.read(name).decode("utf-8-sig", "replace"), where)
        if form == "coco" or coco.is_coco(document):
            return "coco", coco.read_coco(source, {name: document}, options)
        if form == "label-studio" or label_studio.is_label_studio(document):
            return "label-studio", label_studio.read_label_studio(source, name, document, options)
        if not ground_truth.is_entries(document):
            raise MovingError(f"{where} is none of these: {_WANTED}")
    return "manifest", ground_truth.read_manifest(source, name, options)
