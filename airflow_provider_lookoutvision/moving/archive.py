"""Archives of projects: ``lookoutvision export`` writes one, ``lookoutvision import`` reads it, anywhere.

A ZIP archive, whose images are stored as they are::

    lookoutvision-export.json       the format, the project, its datasets
    train.manifest, test.manifest   the entries, their references as names of this archive
    images/<bucket>/<key>           the images and masks
    models/<version>/model.json     what DescribeModel and ListTagsForResource say
    models/<version>/...            its evaluation, and the components that were packaged of it

Nothing is unpacked when it is read: members are read one at a time, and go to S3 (see ``sources``).
"""

from __future__ import annotations

import hashlib
import itertools
import json
import posixpath
import zipfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from airflow_provider_lookoutvision import __version__
from airflow_provider_lookoutvision.moving.errors import MovingError
from airflow_provider_lookoutvision.moving.plan import AT_A_TIME, Progress, quiet
from airflow_provider_lookoutvision.moving.readers.ground_truth import entries_of, parsed
from airflow_provider_lookoutvision.moving.reading import Options, Reading, references_of
from airflow_provider_lookoutvision.moving.sources import Source, parse_s3_uri, refusal

CONTENTS = "lookoutvision-export.json"
FORMAT = 1
_DATASETS = ("train", "test")
_MOMENT = (1980, 1, 1, 0, 0, 0)  # the same project gives the same archive
_NOT_THERE = ("404", "NoSuchKey", "NoSuchBucket")


@dataclass
class Export:
    """What an export wrote.

    :param missing: what entries and models refer to that isn't there, each with who refers to it.
    """

    images: int = 0
    datasets: dict[str, int] = field(default_factory=dict)
    models: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def is_archive(source: Source) -> bool:
    """Whether a source is what an export wrote, packed or unpacked."""
    return source.size(CONTENTS) is not None


def read_archive(source: Source, options: Options) -> Reading:
    """The datasets of the project in it. Models can't be imported: the API has no call that would."""
    where = f"{source.uri}{CONTENTS}"
    contents = parsed(source.read(CONTENTS).decode("utf-8", "replace"), where)
    if not isinstance(contents, Mapping) or contents.get("format") != FORMAT:
        raise MovingError(f"{where} is of another version than {FORMAT}, which is the one known here")
    datasets, project = contents.get("datasets"), contents.get("project")
    if not isinstance(project, str) or not isinstance(datasets, list) or not set(datasets) <= set(_DATASETS):
        raise MovingError(f"{where} doesn't say which project and datasets there are")
    entries = [
        entry
        for kind in datasets
        if options.dataset in (None, kind)
        for entry in entries_of(source, f"{kind}.manifest", kind, project)
    ]
    models = sorted({name.split("/")[1] for name in source.sizes if name.startswith("models/")})
    remarks = [f"The models {', '.join(models)} stay in the archive: train anew on what is imported"]
    return Reading(entries, remarks if models else [])


def export(
    project: str,
    file: Path,
    *,
    client: Any,
    s3: Any,
    skip_missing: bool = False,
    report_missing: Callable[[str], None] = print,
    progress: Progress = quiet,
) -> Export:
    """Write a project with all that belongs to it into an archive, which appears whole or not at all.

    :param skip_missing: whether to leave out entries whose image or mask isn't there.
    :param report_missing: called with each thing that isn't there.
    :raises MovingError: when something is missing, or S3 refuses. There is no archive then.
    """
    done = Export()
    described = client.describe_project(ProjectName=project)["ProjectDescription"]
    partial = file.with_name(f"{file.name}.partial")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
            lines = {
                each["DatasetType"]: _entries(client, project, each["DatasetType"])
                for each in described["Datasets"]
            }
            names = _names(reference for each in lines.values() for reference in _references(each))
            absent = _write_images(archive, names, s3, done, progress)
            for kind, entries in lines.items():
                _write_manifest(archive, kind, entries, names, absent, done)
            _write_models(archive, project, client, s3, done)
            contents = {
                "format": FORMAT,
                "version": __version__,
                "project": project,
                "created": described["CreationTimestamp"].astimezone(UTC).isoformat(),
                "datasets": [kind for kind in _DATASETS if kind in lines],
            }
            _write(archive, CONTENTS, json.dumps(contents, indent=2).encode())
        for each in done.missing:
            report_missing(each)
        if absent and not skip_missing:
            raise MovingError(
                f"{len(absent)} images or masks are missing, listed above; --skip-missing leaves them out"
            )
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
    return done


def _entries(client: Any, project: str, kind: str) -> list[dict[str, Any]]:
    pages = client.get_paginator("list_dataset_entries").paginate(ProjectName=project, DatasetType=kind)
    return [json.loads(line) for page in pages for line in page["DatasetEntries"]]


def _references(lines: list[dict[str, Any]]) -> Iterator[str]:
    for line in lines:
        yield from references_of(line).values()


def _names(references: Iterator[str]) -> dict[str, str]:
    """A member's name for each reference: its bucket and key, unless that can be no name."""
    names = {}
    for reference in references:
        bucket, key = parse_s3_uri(reference)
        safe = posixpath.normpath(key) == key and not key.startswith(("/", "../")) and "\\" not in key
        digest = hashlib.sha256(key.encode()).hexdigest()[:32]
        names[reference] = f"images/{bucket}/{key if safe else digest + posixpath.splitext(key)[1]}"
    return names


def _write_images(
    archive: zipfile.ZipFile, names: Mapping[str, str], s3: Any, done: Export, progress: Progress
) -> set[str]:
    """Write the objects, some at a time; those that aren't there."""
    absent = set()
    shown = iter(progress(names, len(names), "exporting images and masks"))
    with ThreadPoolExecutor(AT_A_TIME) as threads:
        while references := list(itertools.islice(shown, AT_A_TIME)):
            contents = threads.map(lambda reference: _read(s3, *parse_s3_uri(reference)), references)
            for reference, content in zip(references, contents, strict=True):
                if content is None:
                    absent.add(reference)
                else:
                    _write(archive, names[reference], content)
                    done.images += 1
    return absent


def _write_manifest(
    archive: zipfile.ZipFile,
    kind: str,
    lines: list[dict[str, Any]],
    names: Mapping[str, str],
    absent: set[str],
    done: Export,
) -> None:
    written = []
    for number, line in enumerate(lines, 1):
        references = references_of(line)
        gone = [reference for reference in references.values() if reference in absent]
        done.missing += [f"{reference}  ({kind}, entry {number})" for reference in gone]
        if not gone:
            written.append({**line, **{key: names[each] for key, each in references.items()}})
    text = "".join(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n" for line in written)
    _write(archive, f"{kind}.manifest", text.encode())
    done.datasets[kind] = len(written)


def _write_models(archive: zipfile.ZipFile, project: str, client: Any, s3: Any, done: Export) -> None:
    components = _components(client, project)
    pages = client.get_paginator("list_models").paginate(ProjectName=project)
    for version in [model["ModelVersion"] for page in pages for model in page["Models"]]:
        model = client.describe_model(ProjectName=project, ModelVersion=version)["ModelDescription"]
        tags = client.list_tags_for_resource(ResourceArn=model["ModelArn"])["Tags"]
        folder = f"models/{version}/"
        text = json.dumps({**model, "Tags": tags}, indent=2, default=_plain)
        _write(archive, f"{folder}model.json", text.encode())
        places = [model[name] for name in ("EvaluationManifest", "EvaluationResult") if name in model]
        for place in (*places, *components.get(version, ())):
            content = _read(s3, place["Bucket"], place["Key"])
            if content is None:
                done.missing.append(f"s3://{place['Bucket']}/{place['Key']}  (model {version})")
            else:
                _write(archive, folder + place["Key"].rpartition("/")[2], content)
        done.models.append(version)


def _components(client: Any, project: str) -> dict[str, list[dict[str, str]]]:
    """Where the component of each model is that was packaged last, by version."""
    found: dict[str, list[dict[str, str]]] = {}
    pages = client.get_paginator("list_model_packaging_jobs").paginate(ProjectName=project)
    for job in [job for page in pages for job in page["ModelPackagingJobs"] if job["Status"] == "SUCCEEDED"]:
        described = client.describe_model_packaging_job(ProjectName=project, JobName=job["JobName"])
        description = described["ModelPackagingDescription"]
        output = description["ModelPackagingConfiguration"]["Greengrass"]["S3OutputLocation"]
        details = description["ModelPackagingOutputDetails"]["Greengrass"]
        name = f"{details['ComponentName']}-{details['ComponentVersion']}.zip"
        key = f"{output.get('Prefix', '')}{name}"
        found[description["ModelVersion"]] = [{"Bucket": output["Bucket"], "Key": key}]
    return found


def _read(s3: Any, bucket: str, key: str) -> bytes | None:
    try:
        content: bytes = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    except ClientError as error:
        if error.response["Error"]["Code"] in _NOT_THERE:
            return None
        raise refusal(error, f"s3://{bucket}/{key} can't be read: ") from error
    return content


def _write(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(name, _MOMENT), content)


def _plain(value: Any) -> str:
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else str(value)
