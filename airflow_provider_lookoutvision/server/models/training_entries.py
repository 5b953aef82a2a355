"""The labelled entries that a training learns from, and trainings that wait for them.

CreateModel copies the entries of the project's datasets: from then on, changes of the datasets don't affect
the training. A dataset whose import or update is in progress is copied when that ends, in the same
transaction, and the training waits for it. If it fails, the training fails with its message.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from airflow_provider_lookoutvision.server.calls import idempotency
from airflow_provider_lookoutvision.server.calls.call import Call
from airflow_provider_lookoutvision.server.datasets.operations import IN_PROGRESS
from airflow_provider_lookoutvision.server.jobs import queue
from airflow_provider_lookoutvision.server.models.status import TRAINING_MESSAGE, ModelStatus
from airflow_provider_lookoutvision.server.storage.schema import (
    dataset_entries,
    datasets,
    jobs,
    models,
    training_entries,
)

TRAIN_JOB = "train-model"
# A training that waits for datasets: no worker claims it.
WAITING_JOB = "train-model-later"


def waiting_message(sources: Sequence[sa.Row[Any]]) -> str:
    """The StatusMessage of a training that waits for these datasets."""
    names = " and ".join(f"the {dataset.type} dataset" for dataset in sources)
    return f"{TRAINING_MESSAGE} 0%, waiting until the import of {names} has ended"


def queue_training(call: Call, model_id: int, sources: Sequence[sa.Row[Any]]) -> None:
    """Copy the entries of the datasets, which are locked, and queue the training on them."""
    awaited = [dataset.id for dataset in sources if dataset.status in IN_PROGRESS]
    _freeze(call.connection, model_id, [dataset.id for dataset in sources if dataset.id not in awaited])
    details: dict[str, Any] = {"datasets": [dataset.type for dataset in sources]}
    if awaited:
        queue.enqueue(call, WAITING_JOB, model_id, {**details, "awaited": awaited})
    else:
        queue.enqueue(call, TRAIN_JOB, model_id, details)


def import_ended(connection: sa.Connection, dataset: sa.Row[Any], failure: str | None) -> None:
    """Go on with the trainings that wait for a dataset, in the transaction in which its import ends.

    The dataset's row is written before, which waits for a CreateModel that has just seen it in progress.

    :param failure: its message, if it failed.
    """
    waiting = (
        sa.select(jobs)
        .join(models, models.c.id == jobs.c.subject_id)
        .where(jobs.c.kind == WAITING_JOB, models.c.project_id == dataset.project_id)
        .with_for_update(of=jobs)
    )
    for job in connection.execute(waiting).all():
        awaited = [other for other in job.details["awaited"] if other != dataset.id]
        if len(awaited) == len(job.details["awaited"]):
            continue
        if failure is not None:
            cause, _, reason = failure.partition(": ")
            message = f"{cause}: the import of the {dataset.type} dataset failed: {reason}"
            update_training(
                connection, job.subject_id, status=ModelStatus.TRAINING_FAILED, status_message=message
            )
            idempotency.mark_failed(connection, job.account_id, job.region, job.operation, job.token)
            connection.execute(jobs.delete().where(jobs.c.id == job.id))
            continue
        _freeze(connection, job.subject_id, [dataset.id])
        values: dict[str, Any] = {"details": {**job.details, "awaited": awaited}}
        if not awaited:
            values["kind"] = TRAIN_JOB
            update_training(connection, job.subject_id, status_message=TRAINING_MESSAGE)
        connection.execute(jobs.update().where(jobs.c.id == job.id).values(values))


def update_training(connection: sa.Connection, model_id: int, **values: Any) -> None:
    """Write to a model that is being trained; with a new status, its entries are not needed any more."""
    training = sa.and_(models.c.id == model_id, models.c.status == ModelStatus.TRAINING)
    connection.execute(models.update().where(training).values(**values))
    if "status" in values:
        connection.execute(training_entries.delete().where(training_entries.c.model_id == model_id))


def _freeze(connection: sa.Connection, model_id: int, dataset_ids: Sequence[int]) -> None:
    columns = dataset_entries.c
    # Another dataset's entries may have had the same IDs: SQLite gives those of a deleted one again.
    last = sa.select(sa.func.coalesce(sa.func.max(training_entries.c.entry_id), 0))
    last = last.where(training_entries.c.model_id == model_id)
    labelled = (
        sa.select(
            sa.literal(model_id, sa.BigInteger),
            columns.id + last.scalar_subquery(),
            datasets.c.type,
            columns.source_ref,
            columns.label,
            columns.line,
        )
        .join(datasets, datasets.c.id == columns.dataset_id)
        .where(columns.dataset_id.in_(dataset_ids), columns.label.is_not(None))
    )
    names = ["model_id", "entry_id", "type", "source_ref", "label", "line"]
    connection.execute(training_entries.insert().from_select(names, labelled))
