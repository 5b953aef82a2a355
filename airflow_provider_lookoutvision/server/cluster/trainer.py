"""The job that trains a model on the cluster: as on one machine, but for the place of the child process."""

from __future__ import annotations

from pathlib import Path

from airflow_provider_lookoutvision.server.cluster.remote_process import RemoteProcess
from airflow_provider_lookoutvision.server.jobs.child_process import Process
from airflow_provider_lookoutvision.server.models.trainer import RESULTS, TRAINING_PROCESS, Trainer


class RemoteTrainer(Trainer):
    """Runs training jobs, each on a node that has the CPUs and GPUs of the settings free."""

    def start_process(self, work: Path) -> Process:
        """The training process, on a node."""
        cpus, gpus = self.settings.training_cpus, self.settings.training_gpus
        return RemoteProcess(TRAINING_PROCESS, work, self.settings, RESULTS, cpus, gpus)
