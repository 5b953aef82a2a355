"""Carrying out the plan of an import: objects, projects, datasets, each once however often it is begun again.

What an earlier run wrote into the bucket is left out of the plan. Projects and datasets have client tokens
that a second run has too, and the service keeps the token that made a resource for as long as that lives.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from botocore.exceptions import ClientError, WaiterError

from airflow_provider_lookoutvision import manifests
from airflow_provider_lookoutvision.moving.errors import MovingError, ServiceFault
from airflow_provider_lookoutvision.moving.plan import DatasetPlan, Plan, Progress, in_threads, quiet
from airflow_provider_lookoutvision.moving.reading import colors_of, label_of, references_of
from airflow_provider_lookoutvision.moving.sources import refusal

LARGEST_CHANGES = 10 * 1024 * 1024
_WAIT = {"Delay": 0.5, "MaxAttempts": 7200}

Token = Callable[..., str]
Say = Callable[[str], None]


def own_token(*purpose: str) -> str:
    """The client token of a change that has no other identity than itself."""
    return hashlib.sha256("\0".join(("lookoutvision import", *purpose)).encode()).hexdigest()[:64]


class Imported(NamedTuple):
    """A dataset after an import: its DatasetDescription, and whether the import has changed it."""

    description: Mapping[str, Any]
    changed: bool


def carry_out(
    plan: Plan,
    *,
    client: Any,
    s3: Any,
    if_exists: str = "fail",
    create_bucket: bool = False,
    token: Token = own_token,
    progress: Progress = quiet,
    say: Say = print,
) -> dict[str, Imported]:
    """Upload, create the projects and datasets, and wait until they are imported.

    :param if_exists: what to do about a dataset that has other entries: ``fail``; ``skip`` it; or ``update``
        it with the entries that it lacks or has otherwise, and leave its others.
    :param token: makes a client token for a change, of what is changed.
    :return: what became of each dataset, by ``<project>/<type>``.
    :raises MovingError: when a dataset can't be made; the same import can be begun again.
    """
    _check_bucket(s3, plan.bucket, create=create_bucket)

    def write(upload: Any) -> None:
        s3.put_object(Bucket=plan.bucket, Key=upload.key, Body=upload.read(), ContentType=upload.content_type)

    in_threads(write, list(plan.uploads.values()), progress, f"uploading to s3://{plan.bucket}/{plan.prefix}")
    for project in dict.fromkeys(dataset.project for dataset in plan.datasets):
        try:
            client.create_project(ProjectName=project, ClientToken=token("CreateProject", project))
            say(f"{project}: created")
        except client.exceptions.ConflictException:
            say(f"{project}: a project that was there")
    result: dict[str, Imported] = {}
    for dataset in plan.datasets:
        changed = _import(dataset, plan, client, s3, if_exists, token, say)
        description = client.describe_dataset(**dataset.members)["DatasetDescription"]
        result[dataset.id] = Imported(description, changed)
    return result


def _check_bucket(s3: Any, bucket: str, *, create: bool) -> None:
    try:
        s3.head_bucket(Bucket=bucket)
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("404", "NoSuchBucket"):
            raise refusal(error, f"The bucket {bucket} can't be used: ") from error
        if not create:
            raise MovingError(f"There is no bucket {bucket}: --create-bucket makes it") from error
        try:
            s3.create_bucket(Bucket=bucket)
        except ClientError as refused:
            raise refusal(refused, f"The bucket {bucket} can't be made: ") from refused


def _import(
    dataset: DatasetPlan, plan: Plan, client: Any, s3: Any, if_exists: str, token: Token, say: Say
) -> bool:
    """Make the dataset as planned; whether this import has changed it."""
    content = dataset.manifest
    digest = hashlib.sha256(content).hexdigest()[:16]
    key = f"{plan.prefix}manifests/{dataset.project}-{dataset.type}-{digest}.manifest"
    s3.put_object(Bucket=plan.bucket, Key=key, Body=content, ContentType="application/jsonlines")
    source = {"GroundTruthManifest": {"S3Object": {"Bucket": plan.bucket, "Key": key}}}
    reason = "it was changed since this import made it"
    untouched = "CREATE_COMPLETE"
    try:
        client.create_dataset(
            **dataset.members, DatasetSource=source, ClientToken=token("CreateDataset", dataset.id)
        )
    except client.exceptions.ConflictException as conflict:
        reason = f"the service: {conflict.response['Error']['Message']}"
        untouched = ""
    if _wait(client, "dataset_created", dataset) == untouched:
        say(f"{dataset.id}: imported")
        return True
    different = _different(dataset, client)
    if not different:
        say(f"{dataset.id}: has all these entries")
    elif if_exists == "skip":
        say(f"{dataset.id}: is there with other entries, and is left as it is")
    elif if_exists == "update":
        _update(dataset, different, client, token)
        say(f"{dataset.id}: {len(different)} entries added or replaced")
        return True
    else:
        raise MovingError(
            f"The dataset {dataset.id} is there, and of these {len(dataset.lines)} images it lacks "
            f"{len(different)}, or has them otherwise. --if-exists update adds and replaces them, "
            f"--if-exists skip leaves it; or delete it first. ({reason})"
        )
    return False


def _wait(client: Any, waiter: str, dataset: DatasetPlan) -> str:
    """Wait until a dataset can be used; its status then."""
    try:
        client.get_waiter(waiter).wait(**dataset.members, WaiterConfig=_WAIT)
    except WaiterError as error:
        shown = error.last_response.get("DatasetDescription", {})
        message = str(shown.get("StatusMessage") or error)
        kind = MovingError if message.startswith("Invalid input:") else ServiceFault
        raise kind(f"The dataset {dataset.id} is {shown.get('Status')}: {message}") from error
    status: str = client.describe_dataset(**dataset.members)["DatasetDescription"]["Status"]
    return status


def _different(dataset: DatasetPlan, client: Any) -> list[Mapping[str, Any]]:
    """The lines that the dataset hasn't, or has with another label or mask."""
    pages = client.get_paginator("list_dataset_entries").paginate(**dataset.members)
    there: set[tuple[Any, ...]] = set()
    for page in pages:
        for line in map(json.loads, page["DatasetEntries"]):
            there |= {_gist(line, colors_of(line)), _gist(line, dict.fromkeys(colors_of(line)))}
    return [line for line in dataset.lines if _gist(line, colors_of(line)) not in there]


def _gist(line: Mapping[str, Any], colors: Mapping[str, str | None]) -> tuple[Any, ...]:
    """What an entry says, without what the service writes in its own way: colours that a line leaves out."""
    return tuple(sorted(references_of(line).items())), label_of(line), tuple(sorted(colors.items()))


def _update(dataset: DatasetPlan, lines: list[Mapping[str, Any]], client: Any, token: Token) -> None:
    content = DatasetPlan(dataset.project, dataset.type, lines).manifest
    for part in manifests.split_lines(content, LARGEST_CHANGES):
        # What is changed back and forth is the same change twice, at another time.
        changed = client.describe_dataset(**dataset.members)["DatasetDescription"]["LastUpdatedTimestamp"]
        client.update_dataset_entries(
            **dataset.members,
            Changes=part,
            ClientToken=token(
                "UpdateDatasetEntries", dataset.id, str(changed), hashlib.sha256(part).hexdigest()
            ),
        )
        _wait(client, "dataset_updated", dataset)
