"""Adding images to a dataset: files from the browser, a prefix of a bucket, or a manifest's lines.

Files go into a bucket one by one, each whole; what is there already with the same bytes isn't sent again, so
that an upload that was interrupted goes on where it ended. Then the entries are added, some at a time.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from starlette.responses import JSONResponse, Response

from airflow_provider_lookoutvision.server.calls.call import Call
from airflow_provider_lookoutvision.server.console.objects import folder_of, location_of
from airflow_provider_lookoutvision.server.console.visit import Visit
from airflow_provider_lookoutvision.server.datasets import gallery, labels, manifest
from airflow_provider_lookoutvision.server.datasets.operations import find_dataset
from airflow_provider_lookoutvision.server.protocol.errors import ValidationException
from airflow_provider_lookoutvision.server.storage.buckets import Location

MOST_AT_ONCE = 1000
_IMAGE = re.compile(r".*\.(jpe?g|png)", re.IGNORECASE | re.DOTALL)
_STARTS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")


def show_form(visit: Visit) -> Response:
    """The page on which images are added."""
    name, kind = visit.path["project"], visit.path["kind"]
    dataset = visit.call("DescribeDataset", ProjectName=name, DatasetType=kind)["DatasetDescription"]
    bucket = visit.look("ListDatasetEntries", name, lambda call: _bucket(call, name, kind))
    buckets = visit.objects.buckets() if bucket is None else []
    return visit.render(
        "add.html",
        project=name,
        kind=kind,
        dataset=dataset,
        bucket=bucket or _proposed(visit, name, buckets),
        fixed=bucket is not None,
        buckets=buckets,
        prefix=f"{name}/{kind}/",
    )


def find_uploaded(visit: Visit) -> Response:
    """Which of some files are in the bucket already: ``key``, ``size`` and ``crc32`` of each.

    :raises ValidationException: when there is no such bucket: no file of an upload could go there.
    """
    files = visit.document.get("files")
    if not isinstance(files, list) or len(files) > MOST_AT_ONCE:
        raise ValidationException(f"Ask for at most {MOST_AT_ONCE} files at a time")
    bucket = str(visit.document.get("bucket", ""))
    visit.objects.check_writable(bucket)
    there = []
    for file in files:
        content = visit.objects.find(Location(bucket, str(file["key"])))
        if content is not None and len(content) == file["size"] and zlib.crc32(content) == file["crc32"]:
            there.append(file["key"])
    return JSONResponse({"there": there})


def put_file(visit: Visit) -> Response:
    """Write one file, the body, into a bucket."""
    place = location_of(f"s3://{visit.query.get('bucket', '')}/{visit.query.get('key', '')}")
    if not visit.body.startswith(_STARTS):
        raise ValidationException("it is neither a JPEG nor a PNG, whatever its name says")
    if problem := _problem(str(place)):
        raise ValidationException(problem)
    visit.objects.write(place, visit.body)
    return JSONResponse({"ref": str(place)})


def add_entries(visit: Visit) -> Response:
    """Add entries of images in buckets; those that the dataset has already stay as they are.

    The body: ``token``, ``at``, ``refs``, and ``label``, which all of them get.
    """
    document = visit.document
    references, label = document.get("refs"), document.get("label") or None
    if not isinstance(references, list) or not 0 < len(references) <= MOST_AT_ONCE:
        raise ValidationException(f"Add 1 to {MOST_AT_ONCE} images at a time")
    if label is not None and label not in labels.LABELS:
        raise ValidationException(f"The label is {label!r}; it must be normal, anomaly or null")
    moment = str(document.get("at") or datetime.now(UTC).isoformat(timespec="milliseconds"))
    try:
        lines = {ref: labels.new_entry(str(ref), label, moment) for ref in references}
    except manifest.InvalidLine as problem:
        raise ValidationException(f"An image can't be added: {problem}") from None
    return JSONResponse({"added": _add(visit, lines, str(document.get("token", "")))})


def add_prefix(visit: Visit) -> Response:
    """Add what lies below a prefix of a bucket: ``prefix``, ``label``, and ``after``, to go on.

    A label of ``folder`` is that of the folder ``normal`` or ``anomaly`` that an image is in.
    """
    document = visit.document
    source = folder_of(str(document.get("prefix", "")))
    bucket, prefix = source.bucket, source.key
    keys = [
        key
        for key in visit.objects.keys(bucket, prefix, visit.settings.max_train_images + 1)
        if _IMAGE.fullmatch(key) and "/masks/" not in f"/{key}"
    ]
    start = int(document.get("after") or 0)
    some = keys[start : start + MOST_AT_ONCE]
    if not keys:
        raise ValidationException(f"There are no .jpg, .jpeg or .png below s3://{bucket}/{prefix}")
    moment = str(document.get("at") or datetime.now(UTC).isoformat(timespec="milliseconds"))
    label = document.get("label") or None
    try:
        lines = {
            ref: labels.new_entry(ref, _folder_label(ref) if label == "folder" else label, moment)
            for ref in (f"s3://{bucket}/{key}" for key in some)
        }
    except manifest.InvalidLine as problem:
        raise ValidationException(f"An image can't be added: {problem}") from None
    added = _add(visit, lines, str(document.get("token", "")))
    following = start + len(some)
    return JSONResponse(
        {
            "added": added,
            "done": following,
            "total": len(keys),
            "after": following if following < len(keys) else None,
        }
    )


def _add(visit: Visit, lines: dict[str, str], token: str) -> int:
    """Add the entries that aren't there; how many that were."""
    name, kind = visit.path["project"], visit.path["kind"]
    there = visit.look("ListDatasetEntries", name, lambda call: gallery.find(call, name, kind, lines))
    new = [line for reference, line in lines.items() if reference not in there]

    def check(call: Call) -> None:
        # Somebody else may have added some of them meanwhile, and labelled them.
        found = gallery.find(call, name, kind, lines)
        if found.keys() - there.keys():
            raise ValidationException("Somebody else is adding images to this dataset: try again")

    if new:
        visit.call(
            "UpdateDatasetEntries",
            check,
            ProjectName=name,
            DatasetType=kind,
            Changes="\n".join(new).encode(),
            ClientToken=token or visit.new_token(),
        )
    return len(new)


def _bucket(call: Call, project: str, kind: str) -> str | None:
    """The bucket of the images that the dataset has: all must be in one."""
    find_dataset(call, project, kind)
    found = gallery.page(call, project, kind, gallery.Filter(), 0, 1).entries
    return Location.of(found[0].source_ref).bucket if found else None


def _proposed(visit: Visit, project: str, buckets: Sequence[str]) -> str:
    """The only bucket there is; or one to be made, where the console can make any."""
    if visit.settings.buckets == "s3" or len(buckets) == 1:
        return buckets[0] if buckets else ""
    return project.lower().replace("_", "-")[:63]


def _folder_label(reference: str) -> str | None:
    parts = [part.lower() for part in reference.split("/")[3:-1]]
    return next((part for part in reversed(parts) if part in labels.LABELS), None)


def _problem(reference: str) -> str | None:
    try:
        labels.new_entry(reference, None, "")
    except manifest.InvalidLine as problem:
        return str(problem)
    return None


_DATASET = "/projects/{project}/datasets/{kind}"
PAGES: dict[tuple[str, str], Any] = {
    ("GET", f"{_DATASET}/add"): show_form,
    ("POST", f"{_DATASET}/uploaded"): find_uploaded,
    ("PUT", f"{_DATASET}/file"): put_file,
    ("POST", f"{_DATASET}/entries"): add_entries,
    ("POST", f"{_DATASET}/prefix"): add_prefix,
}
