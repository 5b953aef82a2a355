"""The job that packages a model: a child process makes the component, which is written to its bucket.

The child alone loads the engine. It is killed when the job is lost, when the model is deleted or when the
worker stops; one that dies is replaced once, and then the job fails with the reason.
"""

from __future__ import annotations

import json
import logging
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import sqlalchemy as sa

from airflow_provider_lookoutvision.server.calls import idempotency
from airflow_provider_lookoutvision.server.calls.access import arn
from airflow_provider_lookoutvision.server.jobs.child_process import ChildProcess, ProcessDied
from airflow_provider_lookoutvision.server.jobs.errors import InvalidInput, ServiceFault
from airflow_provider_lookoutvision.server.jobs.queue import Job, Lease, WorkerStopping
from airflow_provider_lookoutvision.server.jobs.working_folders import WorkingFolderHandler
from airflow_provider_lookoutvision.server.packaging import component
from airflow_provider_lookoutvision.server.packaging.operations import (
    PACKAGE_JOB,
    RUNNING_MESSAGE,
    SUCCEEDED_MESSAGE,
    PackagingStatus,
    component_key,
    recipe_key,
)
from airflow_provider_lookoutvision.server.packaging.target import target
from airflow_provider_lookoutvision.server.storage.buckets import Buckets, Location
from airflow_provider_lookoutvision.server.storage.schema import (
    components,
    model_artifacts,
    models,
    packaging_jobs,
    projects,
)
from airflow_provider_lookoutvision.server.tags import DEFAULT_THRESHOLD, threshold_of_model

log = logging.getLogger("lookoutvision")

_PACKAGING_PROCESS = "airflow_provider_lookoutvision.server.packaging.packaging_process"
_TASK, _ARTIFACT, _ARCHIVE, _MANIFEST = "task.json", "artifact.zip", "component.zip", "manifest.json"
_POLL_SECONDS = 1.0


class _ProjectDeleted(Exception):
    """There is nobody left to do the job for."""


class Packager(WorkingFolderHandler):
    """Does packaging jobs."""

    kinds: ClassVar[tuple[str, ...]] = (PACKAGE_JOB,)
    noun: ClassVar[str] = "packaging"

    def handle(self, job: Job, lease: Lease) -> None:
        """Make a component of a model, and publish it."""
        self.delete_leftovers()
        try:
            self._package(job, lease)
        except _ProjectDeleted:
            with lease.finish():
                log.info("a packaging ends: its project has been deleted", extra={"job": job.id})
        except OSError as error:
            raise ServiceFault(f"the data directory can't be used: {error.strerror}") from error

    def fail(self, job: Job, message: str) -> None:
        """Record why on the packaging job, and free the component's name and version."""
        with Lease(self.database, job).finish() as connection:
            _settle(connection, job.subject_id, PackagingStatus.FAILED, message)
            mine = components.c.packaging_job_id == job.subject_id
            connection.execute(components.delete().where(mine))
            idempotency.mark_failed(connection, job.account_id, job.region, job.operation, job.token)

    def _package(self, job: Job, lease: Lease) -> None:
        with lease.hold() as connection:
            packaging = self._find(connection, job)
            model = _model(connection, packaging)
            artifact = connection.execute(
                sa.select(model_artifacts.c.content).where(model_artifacts.c.model_id == model.id)
            ).scalar_one()
            _settle(connection, packaging.id, PackagingStatus.RUNNING, RUNNING_MESSAGE)
        greengrass = packaging.configuration["Greengrass"]
        output = greengrass["S3OutputLocation"]
        bucket, prefix = output["Bucket"], output.get("Prefix", "")
        buckets = Buckets(self.store, job.allowed_buckets)
        buckets.check(bucket)
        names = (packaging.component_name, packaging.component_version)
        archive_key = component_key(prefix, *names)
        with self.working_folder(job) as folder:
            manifest = self._make(job, lease, folder, _task(job, packaging, model), bytes(artifact))
            archive = (folder / _ARCHIVE).read_bytes()
        recipe = component.recipe(manifest, archive_uri=f"s3://{bucket}/{archive_key}")
        files = {archive_key.removeprefix(prefix): archive, recipe_key(""): recipe}
        files[component_key("", *names, "sha256")] = component.digests(files)
        self._check(job, lease)
        for name, content in files.items():
            buckets.write(Location(bucket, f"{prefix}{name}"), content)
        with lease.finish() as connection:
            # Deleted in this very moment: what lies in the bucket is no component of any model.
            _model(connection, self._find(connection, job))
            _settle(connection, packaging.id, PackagingStatus.SUCCEEDED, SUCCEEDED_MESSAGE)

    def _make(
        self, job: Job, lease: Lease, folder: Path, task: dict[str, Any], artifact: bytes
    ) -> dict[str, Any]:
        """Have a child process do it, another one if it dies, and return the manifest."""

        def package(work: Path) -> dict[str, Any]:
            (work / _TASK).write_text(json.dumps(task))
            (work / _ARTIFACT).write_bytes(artifact)
            self._watch(job, lease, work)
            (work / _ARCHIVE).rename(folder / _ARCHIVE)
            manifest: dict[str, Any] = json.loads((work / _MANIFEST).read_text())
            return manifest

        return self.with_restart(job, folder, package)

    def _watch(self, job: Job, lease: Lease, work: Path) -> None:
        """Run a child until it has ended, or until there is no use for what it makes."""
        begun_at = time.monotonic()
        with ChildProcess(_PACKAGING_PROCESS, work, self.settings) as child:
            over = False
            while not over:
                messages, over = child.messages(_POLL_SECONDS)
                for message in messages:
                    if "fault" in message:
                        raise ServiceFault(message["fault"])
                    if "packaged" in message:
                        return
                if self.stopping():
                    raise WorkerStopping
                # It reports nothing but its end, which comes within seconds.
                if not over and time.monotonic() - begun_at > self.settings.max_silent_minutes * 60:
                    raise ProcessDied(
                        f"a hang: it has not ended after {self.settings.max_silent_minutes:g} minutes, which "
                        "the service's setting max_silent_minutes allows"
                    )
                # A database that fails for a moment costs no packaging: if it lasts, the lease runs out.
                with suppress(sa.exc.DBAPIError):
                    self._check(job, lease)
            raise ProcessDied(child.exit_reason())

    def _check(self, job: Job, lease: Lease) -> None:
        """See that the job is still this worker's, and that its model is still there."""
        with lease.hold() as connection:
            _model(connection, self._find(connection, job))

    def _find(self, connection: sa.Connection, job: Job) -> sa.Row[Any]:
        """The packaging job with its project's name.

        :raises _ProjectDeleted: when it has gone with its project.
        """
        query = (
            sa.select(packaging_jobs, projects.c.name.label("project_name"))
            .join(projects, projects.c.id == packaging_jobs.c.project_id)
            .where(packaging_jobs.c.id == job.subject_id)
        )
        found = connection.execute(query).one_or_none()
        if found is None:
            raise _ProjectDeleted
        return found


def _model(connection: sa.Connection, packaging: sa.Row[Any]) -> sa.Row[Any]:
    query = sa.select(models, threshold_of_model()).where(models.c.id == packaging.model_id)
    model = connection.execute(query).one_or_none()
    if model is None:
        raise InvalidInput(f"the model {packaging.model_version} was deleted before it was packaged")
    return model


def _settle(connection: sa.Connection, packaging_id: int, status: PackagingStatus, message: str) -> None:
    connection.execute(
        packaging_jobs.update()
        .where(packaging_jobs.c.id == packaging_id)
        .values(status=status, status_message=message, updated_at=time.time_ns() // 1_000_000)
    )


def _task(job: Job, packaging: sa.Row[Any], model: sa.Row[Any]) -> dict[str, Any]:
    """What the manifest says that the child doesn't find out."""
    greengrass = packaging.configuration["Greengrass"]
    made_for = target(greengrass)
    project = packaging.project_name
    return {
        "component": {
            "name": packaging.component_name,
            "version": packaging.component_version,
            "description": greengrass.get("ComponentDescription"),
            "tags": greengrass.get("Tags") or [],
        },
        "model": {
            "arn": arn(job.region, job.account_id, f"model/{project}/{model.version}"),
            "project": project,
            "version": str(model.version),
        },
        "threshold": float(model.threshold or DEFAULT_THRESHOLD),
        "metrics": {"F1Score": model.f1, "Recall": model.recall, "Precision": model.precision},
        "target": {
            "os": "LINUX",
            "arch": made_for.arch,
            "accelerator": made_for.accelerator,
            "device": made_for.device,
            "compiler_options": dict(made_for.compiler_options),
        },
    }
