"""The job that trains a model: it checks what there is to learn from, has a child process learn, publishes.

The child is the leader of a process group of its own, so that a training can really be ended: when its model
is deleted the job is gone, the lease is lost, and the group is killed. A child that dies is replaced once;
then the training fails with the reason.
"""

from __future__ import annotations

import io
import json
import logging
import shutil
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

import sqlalchemy as sa

from airflow_provider_lookoutvision.server.calls import idempotency
from airflow_provider_lookoutvision.server.calls.access import arn
from airflow_provider_lookoutvision.server.jobs.child_process import Child
from airflow_provider_lookoutvision.server.jobs.handler import InvalidInput, JobHandler, ServiceFault
from airflow_provider_lookoutvision.server.jobs.queue import Job, Lease, Stopped
from airflow_provider_lookoutvision.server.models import evaluation
from airflow_provider_lookoutvision.server.models.operations import (
    TRAIN_JOB,
    TRAINED_MESSAGE,
    TRAINING_MESSAGE,
    UNCALIBRATED_MESSAGE,
    ModelStatus,
)
from airflow_provider_lookoutvision.server.models.training_set import Example, TrainingSet, training_set
from airflow_provider_lookoutvision.server.storage.buckets import BucketError, Buckets, Location
from airflow_provider_lookoutvision.server.storage.schema import (
    jobs,
    model_artifacts,
    models,
    projects,
    training_entries,
)

log = logging.getLogger("lookoutvision")

_CHILD = "airflow_provider_lookoutvision.server.models.training_process"
_TASK, _OUTCOME, _MODEL = "task.json", "outcome.json", "model"
_TELL_SECONDS = 1.0
_LIVES = 2


class _Died(Exception):
    """The child process ended without saying how; the message is the reason."""


class Trainer(JobHandler):
    """Does training jobs."""

    kinds: ClassVar[tuple[str, ...]] = (TRAIN_JOB,)
    noun: ClassVar[str] = "training"

    def do(self, job: Job, lease: Lease) -> None:
        """Train a model, try it, and publish how good it is."""
        self.tidy()
        try:
            self._train(job, lease)
        except OSError as error:
            raise ServiceFault(f"the data directory can't be used: {error.strerror}") from error

    def give_up(self, job: Job) -> None:
        """End a job that was begun too often, and clear away what its workers have left."""
        self.tidy()
        super().give_up(job)

    def tidy(self) -> None:
        """Delete the folders that dead workers have left."""
        left = list(self._root.iterdir()) if self._root.is_dir() else []
        with self.database.read() as connection:
            rows = connection.execute(sa.select(jobs.c.id, jobs.c.attempts))
            alive = {f"{row.id}-{row.attempts}" for row in rows}
        for path in left:
            if path.name not in alive:
                shutil.rmtree(path, ignore_errors=True)

    def _train(self, job: Job, lease: Lease) -> None:
        model, train, test = self._read(job, lease)
        buckets = Buckets(self.store, job.allowed_buckets)
        buckets.check(model.output_bucket)
        limits = self.settings.max_segmentation_train_images, self.settings.max_segmentation_test_images
        chosen = training_set(train, test, most_with_masks=limits)
        with self._scratch(job) as folder:
            outcome = self._learn(job, lease, folder, chosen)
            ended = time.time_ns() // 1_000_000
            name, version = model.project_name, model.version
            model_arn = arn(job.region, job.account_id, f"model/{name}/{version}")
            subject = evaluation.Subject(model_arn, name, version, ended)
            calibrated = outcome.pop("calibrated")
            figures = evaluation.Metrics(**outcome)
            where = (model.output_prefix, name, version)
            tested = [(example.source_ref, example.label) for example in chosen.test]
            buckets.write(
                Location(model.output_bucket, evaluation.manifest_key(*where)),
                evaluation.manifest(subject, tested, figures),
            )
            buckets.write(
                Location(model.output_bucket, evaluation.result_key(*where)),
                evaluation.result(subject, figures, len(chosen.train), len(chosen.test)),
            )
            artifact = _archive(folder / _MODEL)
        with lease.finish() as connection:
            connection.execute(model_artifacts.insert().values(model_id=model.id, content=artifact))
            _settle(
                connection,
                model.id,
                status=ModelStatus.TRAINED,
                status_message=TRAINED_MESSAGE if calibrated else UNCALIBRATED_MESSAGE,
                evaluated_at=ended,
                f1=figures.f1,
                recall=figures.recall,
                precision=figures.precision,
            )

    def _read(
        self, job: Job, lease: Lease
    ) -> tuple[sa.Row[Any], Sequence[Example], Sequence[Example] | None]:
        """The model, with its project's name, and the labelled images as they were when it was asked for."""
        columns = training_entries.c
        with lease.hold() as connection:
            query = sa.select(models, projects.c.name.label("project_name")).join(
                projects, projects.c.id == models.c.project_id
            )
            model = connection.execute(query.where(models.c.id == job.subject_id)).one()
            rows = connection.execute(
                sa.select(columns.type, columns.source_ref, columns.label, columns.line)
                .where(columns.model_id == model.id)
                .order_by(columns.entry_id)
            ).all()
        found: dict[str, list[Example]] = {kind: [] for kind in job.details["datasets"]}
        for row in rows:
            found[row.type].append(Example.of(row.source_ref, row.label, row.line))
        return model, found["train"], found.get("test")

    def _learn(self, job: Job, lease: Lease, folder: Path, chosen: TrainingSet) -> dict[str, Any]:
        """Have a child process do it, another one if it dies, and return the figures."""
        deadline = time.monotonic() + self.settings.max_training_hours * 3600
        for life in range(1, _LIVES + 1):
            work = folder / str(life)
            work.mkdir()
            (work / _TASK).write_text(json.dumps(_task(chosen, job)))
            try:
                self._watch(job, lease, work, deadline)
                (work / _MODEL).rename(folder / _MODEL)
                outcome: dict[str, Any] = json.loads((work / _OUTCOME).read_text())
            except _Died as death:
                told = {"job": job.id, "life": life, "reason": str(death)}
                log.error("a training process died", extra=told)
                shutil.rmtree(work)
                if life == _LIVES:
                    raise ServiceFault(
                        f"the training process ended {life} times, the last time by {death}"
                    ) from None
            else:
                return outcome
        raise AssertionError("a training that neither ended nor died")

    def _watch(self, job: Job, lease: Lease, work: Path, deadline: float) -> None:
        """Run a child until it has ended, and tell how far it is."""
        told = ""
        with Child(_CHILD, work, self.settings) as child:
            over = False
            while not over:
                messages, over = child.messages(_TELL_SECONDS)
                for message in messages:
                    if "invalid" in message:
                        raise InvalidInput(message["invalid"])
                    if "fault" in message:
                        raise ServiceFault(message["fault"])
                    if "unreachable" in message:
                        raise BucketError(message["unreachable"], input=False)
                    if "trained" in message:
                        return
                if self.stopping():
                    raise Stopped
                if time.monotonic() > deadline:
                    raise ServiceFault(
                        f"the training took longer than {self.settings.max_training_hours:g} hours, which "
                        "this service's setting max_training_hours allows"
                    )
                progress = _progress(messages[-1]) if messages else told
                # Asked even when there is nothing to tell: a model that has been deleted has lost its lease.
                # A database that fails for a moment costs no training: if it lasts, the lease runs out.
                with suppress(sa.exc.DBAPIError), lease.hold() as connection:
                    if progress != told:
                        _settle(connection, job.subject_id, status_message=progress)
                        told = progress
            raise _Died(child.reason())

    @contextmanager
    def _scratch(self, job: Job) -> Iterator[Path]:
        """A folder for this attempt, deleted after it."""
        folder = self._root / f"{job.id}-{job.attempts}"
        folder.mkdir(mode=0o700, parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @property
    def _root(self) -> Path:
        return self.settings.data_dir / "training"

    def fail(self, job: Job, message: str) -> None:
        """Tell the model."""
        with Lease(self.database, job).finish() as connection:
            _settle(connection, job.subject_id, status=ModelStatus.TRAINING_FAILED, status_message=message)
            idempotency.mark_failed(connection, job.account_id, job.region, job.operation, job.token)


def _settle(connection: sa.Connection, model_id: int, **values: Any) -> None:
    training = sa.and_(models.c.id == model_id, models.c.status == ModelStatus.TRAINING)
    connection.execute(models.update().where(training).values(**values))
    if "status" in values:
        connection.execute(training_entries.delete().where(training_entries.c.model_id == model_id))


def _progress(message: Mapping[str, Any]) -> str:
    return f"{TRAINING_MESSAGE} {message['progress']:.0%}, {message['doing']}"


def _task(chosen: TrainingSet, job: Job) -> dict[str, Any]:
    def examples(some: Sequence[Example]) -> list[dict[str, Any]]:
        return [
            {
                "source_ref": example.source_ref,
                "label": example.label,
                "mask_ref": example.mask.source_ref if example.mask else None,
            }
            for example in some
        ]

    return {
        "train": examples(chosen.train),
        "test": examples(chosen.test),
        "classes": chosen.classes,
        "refit": chosen.is_split,
        "patterns": list(job.allowed_buckets),
    }


def _archive(folder: Path) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, path.name)
    return content.getvalue()
