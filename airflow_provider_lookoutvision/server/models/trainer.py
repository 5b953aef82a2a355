"""The job that trains a model: it checks the training set, trains in a child process, publishes the result.

The child process has its own process group, so that a training can be cancelled: when its model is deleted
the job is deleted too, the lease is lost, and the group is killed. A child that dies is replaced once; then
the training fails with the reason.
"""

from __future__ import annotations

import io
import json
import shutil
import time
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import sqlalchemy as sa

from airflow_provider_lookoutvision.server.calls import idempotency
from airflow_provider_lookoutvision.server.calls.access import arn
from airflow_provider_lookoutvision.server.datasets.manifest import Mask
from airflow_provider_lookoutvision.server.datasets.remarks import in_both_datasets
from airflow_provider_lookoutvision.server.jobs.child_process import ChildProcess, Process, ProcessDied
from airflow_provider_lookoutvision.server.jobs.errors import InvalidInput, ServiceFault
from airflow_provider_lookoutvision.server.jobs.queue import Job, Lease, WorkerStopping
from airflow_provider_lookoutvision.server.jobs.working_folders import WorkingFolderHandler
from airflow_provider_lookoutvision.server.models import evaluation
from airflow_provider_lookoutvision.server.models.status import (
    TRAINED_MESSAGE,
    TRAINING_MESSAGE,
    UNCALIBRATED_MESSAGE,
    ModelStatus,
)
from airflow_provider_lookoutvision.server.models.training_entries import TRAIN_JOB, update_training
from airflow_provider_lookoutvision.server.models.training_set import Example, TrainingSet, training_set
from airflow_provider_lookoutvision.server.settings import NOT_WITH_A_BACKBONE
from airflow_provider_lookoutvision.server.storage.buckets import BucketError, Buckets, Location
from airflow_provider_lookoutvision.server.storage.schema import (
    model_artifacts,
    models,
    projects,
    training_entries,
)
from airflow_provider_lookoutvision.server.tags import effort_of_model

TRAINING_PROCESS = "airflow_provider_lookoutvision.server.models.training_process"
_TASK, _OUTCOME, _MODEL, _BACKBONE = "task.json", "outcome.json", "model", "backbone.onnx"
RESULTS = (_OUTCOME, _MODEL)
_PROGRESS_SECONDS = 1.0
# What the engine takes for background, unless it is a class's colour.
_BACKGROUND_COLORS = frozenset({"#FFFFFF", "#000000"})


class Trainer(WorkingFolderHandler):
    """Runs training jobs."""

    kinds: ClassVar[tuple[str, ...]] = (TRAIN_JOB,)
    noun: ClassVar[str] = "training"

    def handle(self, job: Job, lease: Lease) -> None:
        """Train a model, evaluate it, and publish the result."""
        self.delete_leftovers()
        try:
            self._train(job, lease)
        except OSError as error:
            raise ServiceFault(f"the data directory can't be used: {error.strerror}") from error

    def _train(self, job: Job, lease: Lease) -> None:
        model, train, test = self._read(job, lease)
        buckets = Buckets(self.store, job.allowed_buckets)
        buckets.check(model.output_bucket)
        effort = model.effort or self.settings.training_effort
        if effort == "thorough" and self.settings.backbone is not None:
            raise InvalidInput(f"{NOT_WITH_A_BACKBONE}: {self.settings.backbone.name}")
        limits = self.settings.max_segmentation_train_images, self.settings.max_segmentation_test_images
        chosen = training_set(train, test, max_with_masks=limits)
        with self.working_folder(job) as folder:
            task = _task(chosen, job, effort) | {"backbone": self.settings.backbone is not None}
            outcome = self._run_training(job, lease, folder, task)
            ended = time.time_ns() // 1_000_000
            name, version = model.project_name, model.version
            model_arn = arn(job.region, job.account_id, f"model/{name}/{version}")
            evaluated = evaluation.EvaluatedModel(model_arn, name, version, ended)
            calibrated = outcome.pop("calibrated")
            metrics = evaluation.Metrics(**outcome)
            place = (model.output_prefix, name, version)
            tested = [(example.source_ref, example.label) for example in chosen.test]
            buckets.write(
                Location(model.output_bucket, evaluation.manifest_key(*place)),
                evaluation.manifest(evaluated, tested, metrics),
            )
            buckets.write(
                Location(model.output_bucket, evaluation.result_key(*place)),
                evaluation.result(evaluated, metrics, len(chosen.train), len(chosen.test)),
            )
            artifact = _archive(folder / _MODEL)
        warning = f" {in_both_datasets(chosen.in_both, len(chosen.in_both))}" if chosen.in_both else ""
        with lease.finish() as connection:
            connection.execute(model_artifacts.insert().values(model_id=model.id, content=artifact))
            update_training(
                connection,
                model.id,
                status=ModelStatus.TRAINED,
                status_message=_message(calibrated, metrics) + warning,
                evaluated_at=ended,
                f1=metrics.f1,
                recall=metrics.recall,
                precision=metrics.precision,
            )

    def _read(
        self, job: Job, lease: Lease
    ) -> tuple[sa.Row[Any], Sequence[Example], Sequence[Example] | None]:
        """The model, with its project's name, and the labelled images as they were at CreateModel."""
        columns = training_entries.c
        with lease.hold() as connection:
            query = sa.select(models, projects.c.name.label("project_name"), effort_of_model()).join(
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

    def _run_training(self, job: Job, lease: Lease, folder: Path, task: Mapping[str, Any]) -> dict[str, Any]:
        """Train in a child process, in another one if it dies, and return the metrics."""
        deadline = time.monotonic() + self.settings.max_training_hours * 3600

        def train(work: Path) -> dict[str, Any]:
            (work / _TASK).write_text(json.dumps(task))
            if self.settings.backbone is not None:
                # In the folder, so that it comes along to a node of a cluster, and stays as it is.
                _copy_backbone(self.settings.backbone, work / _BACKBONE)
            self._run_child(job, lease, work, deadline)
            (work / _MODEL).rename(folder / _MODEL)
            outcome: dict[str, Any] = json.loads((work / _OUTCOME).read_text())
            return outcome

        return self.with_restart(job, folder, train)

    def _run_child(self, job: Job, lease: Lease, work: Path, deadline: float) -> None:
        """Run a child process until it ends, and write its progress to the model."""
        reported, heard_at = "", time.monotonic()
        with self.start_process(work) as child:
            over = False
            while not over:
                messages, over = child.messages(_PROGRESS_SECONDS)
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
                    raise WorkerStopping
                heard_at = time.monotonic() if messages else heard_at
                if not over and time.monotonic() - heard_at > self.settings.max_silent_minutes * 60:
                    raise ProcessDied(
                        f"a hang: it reported nothing for {self.settings.max_silent_minutes:g} minutes, "
                        "which is more than the service's setting max_silent_minutes allows"
                    )
                if time.monotonic() > deadline:
                    raise ServiceFault(
                        f"the training took longer than {self.settings.max_training_hours:g} hours, which "
                        "this service's setting max_training_hours allows"
                    )
                progress = _progress(messages[-1]) if messages else reported
                # Even without progress: if the model was deleted, the lease is lost.
                # A short failure of the database doesn't end the training: if it lasts, the lease expires.
                with suppress(sa.exc.DBAPIError), lease.hold() as connection:
                    if progress != reported:
                        update_training(connection, job.subject_id, status_message=progress)
                        reported = progress
            raise ProcessDied(child.exit_reason())

    def start_process(self, work: Path) -> Process:
        """The process that trains with what is in the folder, and leaves ``RESULTS`` there."""
        return ChildProcess(TRAINING_PROCESS, work, self.settings)

    def fail(self, job: Job, message: str) -> None:
        """Write the failure to the model."""
        with Lease(self.database, job).finish() as connection:
            update_training(
                connection, job.subject_id, status=ModelStatus.TRAINING_FAILED, status_message=message
            )
            idempotency.mark_failed(connection, job.account_id, job.region, job.operation, job.token)


def _progress(message: Mapping[str, Any]) -> str:
    return f"{TRAINING_MESSAGE} {message['progress']:.0%}, {message['doing']}"


def _message(calibrated: bool, metrics: evaluation.Metrics) -> str:
    parts = [TRAINED_MESSAGE if calibrated else UNCALIBRATED_MESSAGE, metrics.effort_message]
    if metrics.backbone:
        parts.append(f"Backbone: {metrics.backbone}.")
    return " ".join(filter(None, parts))


def _copy_backbone(path: Path, copy: Path) -> None:
    """Copy the ONNX file and the JSON file beside it."""
    try:
        shutil.copyfile(path, copy)
        shutil.copyfile(path.with_suffix(".json"), copy.with_suffix(".json"))
    except OSError as error:
        raise ServiceFault(
            f"the setting backbone is {path}, and {error.filename or path} can't be copied: {error.strerror}"
        ) from error


def _task(chosen: TrainingSet, job: Job, effort: str) -> dict[str, Any]:
    def examples(some: Sequence[Example]) -> list[dict[str, Any]]:
        return [
            {
                "source_ref": example.source_ref,
                "label": example.label,
                "mask_ref": example.mask.source_ref if example.mask else None,
                "mask_background": _unusual_background(example.mask, chosen.classes),
            }
            for example in some
        ]

    return {
        "train": examples(chosen.train),
        "test": examples(chosen.test),
        "classes": chosen.classes,
        "refit": chosen.is_split,
        "effort": effort,
        "patterns": list(job.allowed_buckets),
    }


def _unusual_background(mask: Mask | None, classes: Mapping[str, str]) -> list[str]:
    """The colours that are background in this mask and wouldn't be taken for it."""
    usual = _BACKGROUND_COLORS - set(classes.values())
    return [color for color in (mask.background if mask else ()) if color not in usual]


def _archive(folder: Path) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, path.name)
    return content.getvalue()
