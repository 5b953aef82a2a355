"""Training and hosting on a Ray cluster, if the setting ``cluster`` names one; only then is Ray imported."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from airflow_provider_lookoutvision.server.cluster.connection import connect

if TYPE_CHECKING:
    from airflow_provider_lookoutvision.server.hosting.fleet import OpenPool
    from airflow_provider_lookoutvision.server.models.trainer import Trainer
    from airflow_provider_lookoutvision.server.settings import Settings

__all__ = ["connect", "open_pool", "trainer"]


def open_pool(settings: Settings) -> OpenPool:
    """The function that hosts a model on the cluster; its batches find the models from now on."""
    from airflow_provider_lookoutvision.server.cluster.applications import Applications
    from airflow_provider_lookoutvision.server.cluster.hosted_models import hosted_models
    from airflow_provider_lookoutvision.server.cluster.remote_pool import RemotePool

    hosted_models(settings)
    return partial(RemotePool, settings, Applications(settings))


def trainer() -> type[Trainer]:
    """The handler of training jobs that trains on the cluster."""
    from airflow_provider_lookoutvision.server.cluster.trainer import RemoteTrainer

    return RemoteTrainer
