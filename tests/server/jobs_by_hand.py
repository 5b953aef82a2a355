"""The jobs of a service without a worker, done when a test chooses to; trainings without an engine."""

from __future__ import annotations

from dataclasses import dataclass

from manifest_lines import line, manifest
from service_reference import TrainingEnd
from services import Storage

from airflow_provider_lookoutvision.server.datasets.importer import Importer
from airflow_provider_lookoutvision.server.datasets.operations import IMPORT_JOB, UPDATE_JOB
from airflow_provider_lookoutvision.server.jobs import queue
from airflow_provider_lookoutvision.server.jobs.queue import Lease
from airflow_provider_lookoutvision.server.models.status import ModelStatus
from airflow_provider_lookoutvision.server.models.trainer import Trainer
from airflow_provider_lookoutvision.server.models.training_entries import (
    TRAIN_JOB,
    import_ended,
    update_training,
)
from airflow_provider_lookoutvision.server.settings import Settings
from airflow_provider_lookoutvision.server.storage.schema import model_artifacts
from airflow_provider_lookoutvision.server.storage.stores import store
from airflow_provider_lookoutvision.testing.service import Service

CONTENTS: dict[str, dict[str, str | None] | None] = {
    "good": {"1.png": "normal", "2.png": "anomaly", "3.png": None},
    "other": {"2.png": "normal", "4.png": "anomaly"},
    "bad": None,
}


@dataclass(frozen=True)
class JobsByHand:
    """The service, without a worker, and what does its jobs."""

    service: Service
    storage: Storage
    settings: Settings

    def finish_imports(self) -> None:
        importer = Importer(
            self.storage.database, store(self.settings), self.settings, lambda: False, import_ended
        )
        while job := queue.claim(self.storage.database, "machine", (IMPORT_JOB, UPDATE_JOB)):
            importer.run(job)

    def finish_trainings(self, end: TrainingEnd) -> None:
        trainer = Trainer(self.storage.database, store(self.settings), self.settings, lambda: False)
        metrics = {"f1": 1.0, "recall": 1.0, "precision": 1.0, "evaluated_at": 1}
        while job := queue.claim(self.storage.database, "machine", (TRAIN_JOB,)):
            if end == "fails":
                trainer.fail(job, "Service fault: the machine says so")
                continue
            with Lease(self.storage.database, job).finish() as connection:
                trained = {"status": ModelStatus.TRAINED, "status_message": "trained"}
                update_training(connection, job.subject_id, **trained, **metrics)
                if end == "succeeds":
                    connection.execute(
                        model_artifacts.insert().values(model_id=job.subject_id, content=b"{}")
                    )

    def manifest(self, content: str) -> bytes:
        labels = CONTENTS[content]
        return b"{\n" if labels is None else manifest(*(line(key, label) for key, label in labels.items()))
