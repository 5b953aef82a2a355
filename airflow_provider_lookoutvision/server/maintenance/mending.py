"""What ``check --mend`` does: each mend is a transaction, and changes only what is still wrong in it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from airflow_provider_lookoutvision.server.calls.idempotency import ACTIVE_MILLISECONDS, TokenState
from airflow_provider_lookoutvision.server.datasets.operations import (
    IMPORT_JOB,
    IN_PROGRESS,
    UPDATE_JOB,
    DatasetStatus,
)
from airflow_provider_lookoutvision.server.jobs.handler import SERVICE_FAULT
from airflow_provider_lookoutvision.server.models.status import ModelStatus
from airflow_provider_lookoutvision.server.models.training_entries import TRAIN_JOB, WAITING_JOB
from airflow_provider_lookoutvision.server.packaging.operations import PACKAGE_JOB, PackagingStatus
from airflow_provider_lookoutvision.server.protocol.errors import ResourceType
from airflow_provider_lookoutvision.server.settings import Settings
from airflow_provider_lookoutvision.server.storage import data_directory
from airflow_provider_lookoutvision.server.storage.database import Database
from airflow_provider_lookoutvision.server.storage.schema import (
    client_tokens,
    components,
    dataset_entries,
    datasets,
    jobs,
    model_artifacts,
    models,
    packaging_jobs,
    projects,
    training_entries,
)

Mend = Callable[[Settings, Database], None]

# Which jobs are for the rows of which table.
SUBJECTS: tuple[tuple[tuple[str, ...], sa.Table], ...] = (
    ((TRAIN_JOB, WAITING_JOB), models),
    ((IMPORT_JOB, UPDATE_JOB), datasets),
    ((PACKAGE_JOB,), packaging_jobs),
)

_Column = sa.ColumnElement[Any]


def _of_project(account_id: _Column, region: _Column) -> sa.ColumnElement[bool]:
    return sa.and_(projects.c.account_id == account_id, projects.c.region == region)


def _project_exists(account_id: _Column, region: _Column, identity: _Column) -> sa.ColumnElement[bool]:
    return sa.exists().where(_of_project(account_id, region), projects.c.name == identity)


def _part_exists(table: sa.Table, name: sa.Column[Any]) -> Callable[..., sa.ColumnElement[bool]]:
    def exists(account_id: _Column, region: _Column, identity: _Column) -> sa.ColumnElement[bool]:
        own_identity = projects.c.name + "/" + sa.cast(name, sa.String)
        return sa.exists().where(
            _of_project(account_id, region), table.c.project_id == projects.c.id, own_identity == identity
        )

    return exists


# For each type of resource, the condition that one with this identity exists.
RESOURCES: dict[str, Callable[..., sa.ColumnElement[bool]]] = {
    ResourceType.PROJECT: _project_exists,
    ResourceType.DATASET: _part_exists(datasets, datasets.c.type),
    ResourceType.MODEL: _part_exists(models, models.c.version),
    ResourceType.MODEL_PACKAGE_JOB: _part_exists(packaging_jobs, packaging_jobs.c.name),
}


def fail_model(model_id: int, reason: str) -> Mend:
    """The model becomes TRAINING_FAILED, with neither job nor network; its token may train anew."""

    def write(connection: sa.Connection) -> None:
        busy = sa.select(jobs.c.id).where(
            jobs.c.kind.in_((TRAIN_JOB, WAITING_JOB)), jobs.c.subject_id == model_id
        )
        if connection.execute(busy).first():
            return
        for table in (model_artifacts, training_entries):
            connection.execute(table.delete().where(table.c.model_id == model_id))
        message = f"{SERVICE_FAULT}{reason}; found by a check. Train again"
        connection.execute(
            models.update()
            .where(models.c.id == model_id)
            .values(
                status=ModelStatus.TRAINING_FAILED,
                status_message=message,
                evaluated_at=None,
                f1=None,
                recall=None,
                precision=None,
            )
        )
        _fail_tokens(connection, ResourceType.MODEL, models, models.c.version, model_id)

    return _transaction(write)


def fail_dataset(dataset_id: int) -> Mend:
    """A dataset whose import or update nobody does ends as a failed one does."""

    def write(connection: sa.Connection) -> None:
        of_dataset = sa.and_(jobs.c.kind.in_((IMPORT_JOB, UPDATE_JOB)), jobs.c.subject_id == dataset_id)
        status = connection.execute(sa.select(datasets.c.status).where(datasets.c.id == dataset_id)).scalar()
        if status not in IN_PROGRESS or connection.execute(sa.select(jobs.c.id).where(of_dataset)).first():
            return
        creating = status == DatasetStatus.CREATE_IN_PROGRESS
        ended = DatasetStatus.CREATE_FAILED if creating else DatasetStatus.UPDATE_FAILED_ROLLBACK_COMPLETE
        if creating:
            connection.execute(dataset_entries.delete().where(dataset_entries.c.dataset_id == dataset_id))
        message = f"{SERVICE_FAULT}its job was lost; found by a check. It is safe to try again"
        connection.execute(
            datasets.update().where(datasets.c.id == dataset_id).values(status=ended, status_message=message)
        )
        _recount(connection, dataset_id)
        if creating:
            _fail_tokens(connection, ResourceType.DATASET, datasets, datasets.c.type, dataset_id)

    return _transaction(write)


def recount(dataset_id: int) -> Mend:
    """The counts become those of the entries."""
    return _transaction(lambda connection: _recount(connection, dataset_id))


def fail_packaging(packaging_id: int) -> Mend:
    """A packaging job that nobody does ends as a failed one does."""

    def write(connection: sa.Connection) -> None:
        busy = sa.select(jobs.c.id).where(jobs.c.kind == PACKAGE_JOB, jobs.c.subject_id == packaging_id)
        if connection.execute(busy).first():
            return
        unfinished = packaging_jobs.c.status.in_((PackagingStatus.CREATED, PackagingStatus.RUNNING))
        ended = connection.execute(
            packaging_jobs.update()
            .where(packaging_jobs.c.id == packaging_id, unfinished)
            .values(
                status=PackagingStatus.FAILED,
                status_message=f"{SERVICE_FAULT}its job was lost; found by a check",
            )
        )
        if ended.rowcount:
            connection.execute(components.delete().where(components.c.packaging_job_id == packaging_id))
            _fail_tokens(
                connection,
                ResourceType.MODEL_PACKAGE_JOB,
                packaging_jobs,
                packaging_jobs.c.name,
                packaging_id,
            )

    return _transaction(write)


def delete_job(job_id: int) -> Mend:
    """A job for something that isn't there any more is deleted."""

    def write(connection: sa.Connection) -> None:
        for kinds, table in SUBJECTS:
            gone = sa.and_(jobs.c.kind.in_(kinds), jobs.c.subject_id.not_in(sa.select(table.c.id)))
            connection.execute(jobs.delete().where(jobs.c.id == job_id, gone))

    return _transaction(write)


def end_token(account_id: str, region: str, resource_type: str, resource_id: str) -> Mend:
    """The token of something that isn't there any more is as after its deletion."""
    columns = client_tokens.c
    there = RESOURCES[resource_type](columns.account_id, columns.region, columns.resource_id)
    this = sa.and_(
        columns.account_id == account_id,
        columns.region == region,
        columns.resource_type == resource_type,
        columns.resource_id == resource_id,
        columns.state == TokenState.CREATED,
        ~there,
    )
    until = _now() + ACTIVE_MILLISECONDS
    gone = client_tokens.update().where(this).values(state=TokenState.GONE, expires_at=until)
    return _transaction(lambda connection: connection.execute(gone))


def tighten(path: Path) -> Mend:
    """Only the owner of a file may use it."""

    def change(_settings: Settings, _database: Database) -> None:
        data_directory.tighten(path)

    return change


def _transaction(write: Callable[[sa.Connection], object]) -> Mend:
    def mend(_settings: Settings, database: Database) -> None:
        with database.write() as connection:
            write(connection)

    return mend


def _fail_tokens(
    connection: sa.Connection, resource_type: str, table: sa.Table, name: sa.Column[Any], row_id: int
) -> None:
    """The tokens that created a resource may do it anew."""
    identity = projects.c.name + "/" + sa.cast(name, sa.String)
    query = sa.select(projects.c.account_id, projects.c.region, identity).where(
        table.c.id == row_id, table.c.project_id == projects.c.id
    )
    columns = client_tokens.c
    for account_id, region, resource_id in connection.execute(query).all():
        connection.execute(
            client_tokens.update()
            .where(columns.account_id == account_id, columns.region == region)
            .where(columns.resource_type == resource_type, columns.resource_id == resource_id)
            .where(columns.state == TokenState.CREATED)
            .values(state=TokenState.FAILED)
        )


def _recount(connection: sa.Connection, dataset_id: int) -> None:
    def count(*conditions: sa.ColumnElement[bool]) -> sa.ScalarSelect[Any]:
        query = sa.select(sa.func.count()).select_from(dataset_entries)
        return query.where(dataset_entries.c.dataset_id == dataset_id, *conditions).scalar_subquery()

    label = dataset_entries.c.label
    connection.execute(
        datasets.update()
        .where(datasets.c.id == dataset_id)
        .values(
            total=count(),
            normal=count(label == "normal"),
            anomaly=count(label == "anomaly"),
            updated_at=_now(),
        )
    )


def _now() -> int:
    return time.time_ns() // 1_000_000
