"""What an import would do, without doing it: the datasets, the uploads, what is missing."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from airflow_provider_lookoutvision.moving.errors import MovingError, some
from airflow_provider_lookoutvision.moving.places import File, S3Object, locate
from airflow_provider_lookoutvision.moving.reading import (
    MASK,
    Entry,
    Painting,
    check_project_name,
    colors_of,
    label_of,
    references_of,
)
from airflow_provider_lookoutvision.moving.sources import Source, object_size, objects_below, parse_s3_uri

AT_A_TIME = 8
LARGEST_IMAGE = 8 * 1024 * 1024  # that the service trains with
_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}

Item = TypeVar("Item")


class Progress(Protocol):
    """Shows how far something is, while it is gone through."""

    def __call__(self, items: Iterable[Item], total: int, what: str) -> Iterable[Item]:
        """The items."""


def quiet(items: Iterable[Item], total: int, what: str) -> Iterable[Item]:  # noqa: ARG001
    """Show nothing."""
    return items


def in_threads(
    function: Callable[[Item], Any], items: Sequence[Item], progress: Progress, what: str
) -> list[Any]:
    """The results of some requests, several at a time. After an error no further one begins."""
    with ThreadPoolExecutor(AT_A_TIME) as threads:
        try:
            return list(progress(threads.map(function, items), len(items), what))
        except BaseException:
            threads.shutdown(cancel_futures=True)
            raise


@dataclass(frozen=True)
class Upload:
    """An object that has to be written."""

    key: str
    content: File | Painting
    size: int

    def read(self) -> bytes:
        """Its bytes."""
        return (
            self.content.source.read(self.content.name)
            if isinstance(self.content, File)
            else self.content.png()
        )

    @property
    def content_type(self) -> str:
        """By its name."""
        return _TYPES.get(self.key[self.key.rfind(".") :].lower(), "application/octet-stream")


@dataclass(frozen=True)
class DatasetPlan:
    """A dataset to be."""

    project: str
    type: str
    lines: Sequence[Mapping[str, Any]]

    @property
    def id(self) -> str:
        """As the service names it."""
        return f"{self.project}/{self.type}"

    @property
    def members(self) -> dict[str, str]:
        """As the API's calls name it."""
        return {"ProjectName": self.project, "DatasetType": self.type}

    @property
    def manifest(self) -> bytes:
        """The lines, as a manifest."""
        return b"".join(
            json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
            for line in self.lines
        )

    def __str__(self) -> str:
        labels = Counter(label_of(line) or "without a label" for line in self.lines)
        masks = Counter(
            name for line in self.lines for name in colors_of(line) if name.lower() != "background"
        )
        shown = ", ".join(f"{count} {label}" for label, count in sorted(labels.items()))
        painted = ", ".join(f"{name} {count}" for name, count in sorted(masks.items()))
        text = f"{self.id}: {len(self.lines)} images, {shown}"
        return f"{text}; masks of {painted}" if masks else text


@dataclass
class Plan:
    """All that an import does.

    :param uploads: the objects to write, by key, without those that are there already.
    :param present: how many of them are there already.
    :param missing: what references lead to that isn't there, each with who refers to it.
    """

    bucket: str
    prefix: str
    datasets: list[DatasetPlan] = field(default_factory=list)
    uploads: dict[str, Upload] = field(default_factory=dict)
    present: int = 0
    missing: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def make_plan(
    source: Source,
    entries: Sequence[Entry],
    *,
    s3: Any,
    project: str | None,
    maps: Mapping[str, str],
    to: str | None,
    skip_missing: bool = False,
    overwrite: bool = False,
    progress: Progress = quiet,
) -> Plan:
    """Look for everything that the entries refer to, and plan the import.

    :param to: where what isn't in S3 goes, ``s3://bucket/prefix/``.
    :raises MovingError: when there is nothing to import, or it can't be imported as it is.
    """
    places: dict[tuple[int, str], S3Object | File] = {}
    for number, each in enumerate(entries):
        for key, reference in references_of(each.line).items():
            if not (each.painting and key == MASK):
                try:
                    places[number, key] = locate(reference, source, each.base, maps)
                except MovingError as error:
                    raise MovingError(f"{each.where}: {error}") from error
    absent = _absent(set(places.values()), s3, progress)
    missing = {number for (number, _), place in places.items() if place in absent}
    wanted = {place.uri: entries[number].where for (number, _), place in places.items() if place in absent}
    plan = Plan(*_target(to, places, entries))
    plan.missing = [f"{uri}  ({where})" for uri, where in wanted.items()]
    if missing:
        plan.remarks.append(f"{len(missing)} entries are left out: what they refer to is missing")
    if missing and not skip_missing:
        return plan
    lines: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for number, each in enumerate(entries):
        if number in missing:
            continue
        line = dict(each.line)
        for key in references_of(each.line):
            place = places.get((number, key))
            if isinstance(place, S3Object):
                line[key] = place.uri
            elif place:
                line[key] = _upload(plan, place)
        if each.painting:
            line[MASK] = _paint(plan, line["source-ref"], each.painting)
        name = project or each.project
        if name is None:
            raise MovingError("Which project is it for? --project NAME")
        check_project_name(name)
        lines.setdefault((name, each.dataset), {})[line["source-ref"]] = line
    plan.datasets = [DatasetPlan(name, kind, list(each.values())) for (name, kind), each in lines.items()]
    if not plan.datasets:
        raise MovingError("No image is left to import: all are missing")
    _check_buckets(plan)
    _leave_out_present(plan, s3, progress, overwrite=overwrite)
    return plan


def _absent(places: set[S3Object | File], s3: Any, progress: Progress) -> set[S3Object | File]:
    def is_absent(place: S3Object | File) -> bool:
        if isinstance(place, File):
            return place.source.size(place.name) is None
        return place.key.endswith("/") or object_size(s3, place.bucket, place.key) is None

    every = sorted(places, key=lambda place: place.uri)
    found = in_threads(is_absent, every, progress, "looking for images and masks")
    return {place for place, absent in zip(every, found, strict=True) if absent}


def _target(
    to: str | None, places: Mapping[Any, S3Object | File], entries: Sequence[Entry]
) -> tuple[str, str]:
    if to:
        bucket, prefix = parse_s3_uri(to)
        return bucket, prefix if not prefix or prefix.endswith("/") else f"{prefix}/"
    buckets = Counter(place.bucket for place in places.values() if isinstance(place, S3Object))
    local = any(isinstance(place, File) for place in places.values())
    if local or any(each.painting for each in entries) or not buckets:
        raise MovingError("Some of it is not in S3 yet: --to s3://bucket/prefix/ says where it goes")
    return buckets.most_common(1)[0][0], ""


def _upload(plan: Plan, file: File) -> str:
    key = f"{plan.prefix}{file.name}"
    there = plan.uploads.get(key)
    if there is None:
        plan.uploads[key] = Upload(key, file, file.source.size(file.name) or 0)
    elif there.content != file:
        raise MovingError(f"{there.content} and {file.uri} would both become s3://{plan.bucket}/{key}")
    return f"s3://{plan.bucket}/{key}"


def _paint(plan: Plan, image: str, painting: Painting) -> str:
    name = image.rpartition("/")[2].rpartition(".")[0]
    key = f"{plan.prefix}painted-masks/{name}-{painting.digest[:16]}.png"
    plan.uploads[key] = Upload(key, painting, 0)
    return f"s3://{plan.bucket}/{key}"


def _check_buckets(plan: Plan) -> None:
    for dataset in plan.datasets:
        buckets = {parse_s3_uri(line["source-ref"])[0] for line in dataset.lines}
        if len(buckets) > 1:
            raise MovingError(
                f"The images of {dataset.id} would be in the buckets {some(sorted(buckets))}; a dataset has "
                "one. --map and --to bring them into one"
            )
    large = [key for key, upload in plan.uploads.items() if upload.size > LARGEST_IMAGE]
    if large:
        plan.remarks.append(
            f"{len(large)} files have more than 8 MiB, with which no model can be trained: {some(large)}"
        )


def _leave_out_present(plan: Plan, s3: Any, progress: Progress, *, overwrite: bool) -> None:
    """Take what is in the bucket already out of the uploads: an earlier run wrote it.

    :raises MovingError: when other content is there, unless it may be overwritten.
    """
    if not plan.uploads:
        return
    there = objects_below(s3, plan.bucket, plan.prefix)

    def is_same(upload: Upload) -> bool | None:
        found = there.get(upload.key.removeprefix(plan.prefix))
        if found is None:
            return None
        if not isinstance(upload.content, File):
            return True  # its name has a digest of what it is made of
        size, etag = found
        if size != upload.size:
            return False
        content = upload.read()
        if etag == hashlib.md5(content, usedforsecurity=False).hexdigest():
            return True
        # An ETag need not be of the bytes: of an upload in parts, or an encrypted object, it isn't.
        answer = s3.get_object(Bucket=plan.bucket, Key=upload.key)
        return bool(answer["Body"].read() == content)

    every = list(plan.uploads.values())
    found = in_threads(is_same, every, progress, "comparing with the bucket")
    other = [upload.key for upload, same in zip(every, found, strict=True) if same is False]
    if other and not overwrite:
        raise MovingError(
            f"s3://{plan.bucket}/ has other objects under these names: {some(other)}. Choose another "
            "--to, or --overwrite them"
        )
    plan.present = sum(same is True for same in found)
    plan.uploads = {upload.key: upload for upload, same in zip(every, found, strict=True) if same is not True}
