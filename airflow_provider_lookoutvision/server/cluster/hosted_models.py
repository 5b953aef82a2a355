"""The actor that deploys models, and reads them from the database for their units and for batches.

There is one for the services on one database, so two API processes that see a model at once deploy it
once. It outlives them, and Ray restarts it: it keeps nothing.
"""

from __future__ import annotations

from typing import Any

import ray
import sqlalchemy as sa
from ray import serve

from airflow_provider_lookoutvision.server.calls.access import arn
from airflow_provider_lookoutvision.server.cluster.connection import NAMESPACE, models_name
from airflow_provider_lookoutvision.server.cluster.unit import Unit
from airflow_provider_lookoutvision.server.hosting.frames import DEPTH
from airflow_provider_lookoutvision.server.hosting.pool import IDLE_SECONDS, PoolConfig
from airflow_provider_lookoutvision.server.models.artifacts import read_artifact
from airflow_provider_lookoutvision.server.models.operations import resource_id
from airflow_provider_lookoutvision.server.settings import Settings
from airflow_provider_lookoutvision.server.storage.database import Database
from airflow_provider_lookoutvision.server.storage.schema import models, projects
from airflow_provider_lookoutvision.server.tags import DEFAULT_THRESHOLD, threshold_of_model

_UPSCALE_SECONDS = 1.0
_HEALTH_SECONDS = 5.0
_GRACE_SECONDS = 5.0


class HostedModels:
    """The actor.

    :param name: its own, by which units find it.
    """

    def __init__(self, name: str, database_url: str) -> None:
        self._name = name
        self._database = Database(database_url, connections=2)

    def read(self, model_id: int) -> bytes | None:
        """The artifact of a model, or None when it is gone."""
        return read_artifact(self._database, model_id)

    def find(self, model_arn: str, created_at: int) -> tuple[int, str, bytes, float] | None:
        """The ID, the name, the artifact and the threshold of a model; None when this service hasn't it.

        :param created_at: in milliseconds since 1970: another service may have a model of the same ARN.
        """
        query = (
            sa.select(
                models.c.id,
                models.c.version,
                projects.c.name,
                projects.c.account_id,
                projects.c.region,
                threshold_of_model(),
            )
            .join(projects, projects.c.id == models.c.project_id)
            .where(models.c.created_at == created_at)
        )
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        for row in rows:
            if arn(row.region, row.account_id, f"model/{row.name}/{row.version}") == model_arn:
                artifact = self.read(row.id)
                threshold = float(row.threshold or DEFAULT_THRESHOLD)
                name = resource_id(row.name, row.version)
                return None if artifact is None else (row.id, name, artifact, threshold)
        return None

    def deploy(self, application: str, config: PoolConfig) -> None:
        """Deploy a model, unless it is there, and don't wait for its units.

        :param config: without the artifact, which the units read.
        """
        if application in serve.status().applications:
            return
        unit = serve.deployment(
            Unit,
            name="unit",
            autoscaling_config={
                "min_replicas": config.min_units,
                "max_replicas": config.max_units,
                "initial_replicas": config.min_units,
                "target_ongoing_requests": DEPTH,
                "upscale_delay_s": _UPSCALE_SECONDS,
                "downscale_delay_s": IDLE_SECONDS,
            },
            max_ongoing_requests=DEPTH,
            max_queued_requests=config.queue_per_unit * config.max_units,
            ray_actor_options={"num_cpus": 1},
            health_check_period_s=_HEALTH_SECONDS,
            graceful_shutdown_timeout_s=_GRACE_SECONDS,
        )
        target = serve.RunTarget(unit.bind(self._name, config), name=application, route_prefix=None)
        serve.run_many([target], wait_for_applications_running=False)


def hosted_models(settings: Settings) -> Any:
    """The actor, which is started if it isn't there."""
    name = models_name(settings)
    actor = ray.remote(HostedModels).options(
        name=name,
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        num_cpus=0,
        max_restarts=-1,
        max_task_retries=-1,
    )
    return actor.remote(name, settings.url)
