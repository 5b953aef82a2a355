"""Datasets: CreateDataset, DescribeDataset, DeleteDataset, ListDatasetEntries, UpdateDatasetEntries.

A manifest is imported by a job, which ``importer`` runs; the request checks what it can, and queues the job.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from airflow_provider_lookoutvision.server.calls.access import Caller
from airflow_provider_lookoutvision.server.calls.call import Call
from airflow_provider_lookoutvision.server.jobs import queue
from airflow_provider_lookoutvision.server.projects import dataset_metadata, find_project
from airflow_provider_lookoutvision.server.protocol.errors import (
    AccessDeniedException,
    ConflictException,
    ResourceNotFoundException,
    ResourceType,
)
from airflow_provider_lookoutvision.server.storage.schema import dataset_entries, insert_new
from airflow_provider_lookoutvision.server.storage.schema import datasets as table

IMPORT_JOB = "import-manifest"
UPDATE_JOB = "update-entries"


class DatasetStatus(StrEnum):
    """The states of a dataset (the model's ``DatasetStatus``) that this service uses."""

    CREATE_IN_PROGRESS = "CREATE_IN_PROGRESS"
    CREATE_COMPLETE = "CREATE_COMPLETE"
    CREATE_FAILED = "CREATE_FAILED"
    UPDATE_IN_PROGRESS = "UPDATE_IN_PROGRESS"
    UPDATE_COMPLETE = "UPDATE_COMPLETE"
    UPDATE_FAILED_ROLLBACK_COMPLETE = "UPDATE_FAILED_ROLLBACK_COMPLETE"


USABLE = frozenset(
    {
        DatasetStatus.CREATE_COMPLETE,
        DatasetStatus.UPDATE_COMPLETE,
        DatasetStatus.UPDATE_FAILED_ROLLBACK_COMPLETE,
    }
)
IN_PROGRESS = frozenset({DatasetStatus.CREATE_IN_PROGRESS, DatasetStatus.UPDATE_IN_PROGRESS})

CREATED_MESSAGE = "The dataset was created successfully."
UPDATED_MESSAGE = "The dataset was updated successfully."


def create_dataset(
    call: Call, *, project_name: str, dataset_type: str, dataset_source: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Create a dataset: an empty one at once, one from a manifest by a job."""
    project = find_project(call, project_name, lock=True)
    manifest = ((dataset_source or {}).get("GroundTruthManifest") or {}).get("S3Object")
    if manifest:
        check_bucket(call.caller, call.operation, manifest["Bucket"])
    if call.effect.replaces == resource_id(project_name, dataset_type):
        _delete_failed(call, project.id, dataset_type)
    created = insert_new(
        call.connection,
        table,
        project_id=project.id,
        type=dataset_type,
        status=DatasetStatus.CREATE_IN_PROGRESS if manifest else DatasetStatus.CREATE_COMPLETE,
        status_message="The dataset is being created." if manifest else CREATED_MESSAGE,
        created_at=call.now,
        updated_at=call.now,
        total=0,
        normal=0,
        anomaly=0,
    )
    dataset = find_dataset(call, project_name, dataset_type)
    if not created:
        raise ConflictException(
            f"The project {project_name!r} already has a {dataset_type} dataset ({dataset.status}): "
            "to replace it, delete it first",
            resource_id=resource_id(project_name, dataset_type),
            resource_type=ResourceType.DATASET,
        )
    if manifest:
        queue.enqueue(call, IMPORT_JOB, dataset.id, manifest)
    call.created(ResourceType.DATASET, resource_id(project_name, dataset_type))
    return {"DatasetMetadata": dataset_metadata(dataset)}


def describe_dataset(call: Call, *, project_name: str, dataset_type: str) -> dict[str, Any]:
    """A dataset's state and statistics."""
    dataset = find_dataset(call, project_name, dataset_type)
    return {
        "DatasetDescription": {
            "ProjectName": project_name,
            **dataset_metadata(dataset),
            "LastUpdatedTimestamp": dataset.updated_at,
            "ImageStats": {
                "Total": dataset.total,
                "Labeled": dataset.normal + dataset.anomaly,
                "Normal": dataset.normal,
                "Anomaly": dataset.anomaly,
            },
        }
    }


def delete_dataset(call: Call, *, project_name: str, dataset_type: str) -> dict[str, Any]:
    """Delete a dataset and its entries, before the answer: clients create it again at once."""
    dataset = find_dataset(call, project_name, dataset_type, lock=True)
    if dataset.status in IN_PROGRESS:
        raise not_usable(dataset, project_name)
    _delete(call, dataset.id)
    call.deleted(ResourceType.DATASET, resource_id(project_name, dataset_type))
    return {}


def list_dataset_entries(
    call: Call,
    *,
    project_name: str,
    dataset_type: str,
    labeled: bool | None = None,
    anomaly_class: str | None = None,
    before_creation_date: datetime | None = None,
    after_creation_date: datetime | None = None,
    source_ref_contains: str | None = None,
    next_token: str | None = None,
    max_results: int | None = None,
) -> dict[str, Any]:
    """The entries as JSON Lines, in the order of their creation; all filters apply."""
    dataset = find_dataset(call, project_name, dataset_type)
    filters = [
        labeled,
        anomaly_class,
        str(before_creation_date),
        str(after_creation_date),
        source_ref_contains,
    ]
    page = call.page(["ListDatasetEntries", dataset.id, *filters], next_token, max_results)
    columns = dataset_entries.c
    query = sa.select(columns.id, columns.line).where(columns.dataset_id == dataset.id)
    if dataset.status in {DatasetStatus.CREATE_IN_PROGRESS, DatasetStatus.CREATE_FAILED}:
        query = query.where(sa.false())  # an unfinished import shows no entries
    if labeled is not None:
        query = query.where(columns.label.is_not(None) if labeled else columns.label.is_(None))
    if anomaly_class is not None:
        query = query.where(columns.label == anomaly_class)
    if before_creation_date is not None:
        query = query.where(columns.created_at < before_creation_date.timestamp() * 1000)
    if after_creation_date is not None:
        query = query.where(columns.created_at > after_creation_date.timestamp() * 1000)
    if source_ref_contains is not None:
        query = query.where(columns.source_ref.contains(source_ref_contains, autoescape=True))
    if page.after is not None:
        query = query.where(columns.id > page.after)
    rows, following = page.cut(
        call.connection.execute(query.order_by(columns.id).limit(page.size + 1)).all(), "id"
    )
    return {"DatasetEntries": [row.line for row in rows], "NextToken": following}


def update_dataset_entries(
    call: Call, *, project_name: str, dataset_type: str, changes: bytes
) -> dict[str, Any]:
    """Add and replace entries, all of them or none, by a job."""
    dataset = find_dataset(call, project_name, dataset_type, lock=True)
    if dataset.status not in USABLE:
        raise not_usable(dataset, project_name)
    status = DatasetStatus.UPDATE_IN_PROGRESS
    call.connection.execute(
        table.update()
        .where(table.c.id == dataset.id)
        .values(status=status, status_message="The dataset is being updated.", updated_at=call.now)
    )
    queue.enqueue(call, UPDATE_JOB, dataset.id, {}, changes)
    call.changed(ResourceType.DATASET, resource_id(project_name, dataset_type))
    return {"Status": status}


def find_dataset(call: Call, project_name: str, dataset_type: str, *, lock: bool = False) -> sa.Row[Any]:
    """The dataset of the caller's project.

    :raises ResourceNotFoundException: when there is no such project, or it has no such dataset.
    """
    project = find_project(call, project_name)
    query = table.select().where(table.c.project_id == project.id, table.c.type == dataset_type)
    if lock:
        query = query.with_for_update()
    dataset = call.connection.execute(query).one_or_none()
    if dataset is None:
        raise ResourceNotFoundException(
            f"The project {project_name!r} has no {dataset_type} dataset",
            resource_id=resource_id(project_name, dataset_type),
            resource_type=ResourceType.DATASET,
        )
    return dataset


def resource_id(project_name: str, dataset_type: str) -> str:
    """The ID of a dataset in errors and tokens: it has no ARN."""
    return f"{project_name}/{dataset_type}"


def check_bucket(caller: Caller, operation: str, bucket: str) -> None:
    """Refuse a bucket that the caller's key may not use.

    :raises AccessDeniedException: naming the bucket.
    """
    if not caller.sees_bucket(bucket):
        raise AccessDeniedException(
            f"User: {caller.user} is not authorized to perform: lookoutvision:{operation} on resource: "
            f"arn:aws:s3:::{bucket}"
        )


def not_usable(dataset: sa.Row[Any], project_name: str) -> ConflictException:
    """The error for a call that needs a dataset which is neither in progress nor failed."""
    remedy = "delete it" if dataset.status == DatasetStatus.CREATE_FAILED else "wait until that has ended"
    return ConflictException(
        f"The {dataset.type} dataset of project {project_name!r} is {dataset.status}: {remedy}",
        resource_id=resource_id(project_name, dataset.type),
        resource_type=ResourceType.DATASET,
    )


def _delete_failed(call: Call, project_id: int, dataset_type: str) -> None:
    query = sa.select(table.c.id).where(
        table.c.project_id == project_id,
        table.c.type == dataset_type,
        table.c.status == DatasetStatus.CREATE_FAILED,
    )
    if (failed := call.connection.execute(query).scalar_one_or_none()) is not None:
        _delete(call, failed)


def _delete(call: Call, dataset_id: int) -> None:
    call.connection.execute(dataset_entries.delete().where(dataset_entries.c.dataset_id == dataset_id))
    call.connection.execute(table.delete().where(table.c.id == dataset_id))
