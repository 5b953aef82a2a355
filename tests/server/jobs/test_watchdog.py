"""Workers and processes that hang are noticed, told of, and ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from polling import until
from services import NewDatabase, NewService, Storage, client_of, first_key_of, storage_of

from airflow_provider_lookoutvision.server import worker as worker_module
from airflow_provider_lookoutvision.server.jobs import heartbeat, queue
from airflow_provider_lookoutvision.server.models import trainer
from airflow_provider_lookoutvision.server.models.trainer import Trainer
from airflow_provider_lookoutvision.server.models.training_entries import TRAIN_JOB
from airflow_provider_lookoutvision.server.models.training_set import TrainingSet
from airflow_provider_lookoutvision.server.settings import Settings
from airflow_provider_lookoutvision.server.storage.opening import opened
from airflow_provider_lookoutvision.server.storage.schema import workers
from airflow_provider_lookoutvision.server.storage.stores import store


def owners(storage: Storage) -> list[str]:
    with storage.database.read() as connection:
        return list(connection.execute(sa.select(workers.c.owner)).scalars())


def test_a_worker_is_heard_of_while_it_runs(new_service: NewService) -> None:
    service = new_service()
    with storage_of(service) as storage:
        [owner] = until(lambda: owners(storage), bool)
        with storage.database.read() as connection:
            assert heartbeat.silence(connection, owner) is not None
            assert heartbeat.silence(connection, "nobody") is None
        service.stop()
        assert owners(storage) == []


def test_a_worker_that_hangs_is_replaced(
    new_database: NewDatabase,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(heartbeat, "HANGING_SECONDS", 8.0)
    monkeypatch.setattr(worker_module, "_CHECK_SECONDS", 0.5)
    flags = new_database()
    settings = Settings(data_dir=tmp_path, database_url=flags[1] if flags else "")
    with opened(settings) as (database, cipher):
        storage, supervised = Storage(database, cipher), worker_module.WorkerProcess(settings, database)
        supervised.start()
        try:
            [first] = until(lambda: owners(storage), bool)
            process = supervised._process
            assert process
            with database.write():  # at a moment when it isn't writing
                os.kill(process.pid, signal.SIGSTOP)
            until(lambda: owners(storage), lambda found: set(found) - {first})
            assert process.wait() == -signal.SIGKILL
        finally:
            supervised.stop()
    assert "the worker hangs and is killed" in caplog.messages


HANG = """
import sys, time
from airflow_provider_lookoutvision.server import cli, worker
from airflow_provider_lookoutvision.server.jobs import heartbeat, queue
heartbeat.BEAT_SECONDS = 0.2
worker.Importer.handle = lambda self, job, lease: time.sleep(3600)
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.one_database
def test_a_job_that_hangs_ends_its_worker_which_says_where(new_service: NewService) -> None:
    service = new_service("--no-worker")
    client = client_of(service.endpoint_url, first_key_of(service))
    client.create_project(ProjectName="p")
    source = {"GroundTruthManifest": {"S3Object": {"Bucket": "images", "Key": "k"}}}
    client.create_dataset(ProjectName="p", DatasetType="train", DatasetSource=source)
    command = [sys.executable, "-c", HANG, "worker", "--data-dir", str(service.data_dir)]
    done = subprocess.run(
        [*command, "--max-silent-minutes", "0.1"], stderr=subprocess.PIPE, text=True, check=False
    )
    assert done.returncode == 3
    [told] = [json.loads(line) for line in done.stderr.splitlines() if "a job hangs" in line]
    [thread] = told["threads"]
    assert thread.startswith("import-manifest-")
    assert "self.handle(job, lease)" in told["stacks"][thread]


SILENT = """
import time
def main(folder, output):
    output.write('{"progress": 0.1, "doing": "something"}' + chr(10))
    output.flush()
    time.sleep(3600)
"""


@pytest.mark.one_database
def test_a_training_that_reports_nothing_is_ended(
    new_service: NewService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "silent_training.py").write_text(SILENT)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(trainer, "TRAINING_PROCESS", "silent_training")
    monkeypatch.setattr(trainer, "training_set", lambda *_, **__: TrainingSet([], [], {}, False))
    service = new_service("--no-worker")
    client = client_of(service.endpoint_url, first_key_of(service))
    client.create_project(ProjectName="p")
    client.create_dataset(ProjectName="p", DatasetType="train")
    client.create_model(ProjectName="p", OutputConfig={"S3Location": {"Bucket": "results", "Prefix": ""}})
    settings = Settings(data_dir=service.data_dir, max_silent_minutes=0.05)
    with storage_of(service) as storage:
        job = queue.claim(storage.database, "test", [TRAIN_JOB])
        assert job
        Trainer(storage.database, store(settings), settings, lambda: False).run(job)
    found = client.describe_model(ProjectName="p", ModelVersion="1")["ModelDescription"]
    assert found["Status"] == "TRAINING_FAILED"
    assert found["StatusMessage"] == (
        "Service fault: the training process ended 2 times, the last time by a hang: it reported nothing for "
        "0.05 minutes, which is more than the service's setting max_silent_minutes allows"
    )
