"""The hosted models of this process: it hosts what the database says, and nothing else.

The fleet reads the states of models every second, and at once when it is woken. It opens and closes pools,
and turns STARTING_HOSTING into HOSTED or HOSTING_FAILED and STOPPING_HOSTING into TRAINED. So a service that
was killed hosts its models again. Several services on one database each have replicas of their own, unless
they share those of a cluster.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

import anyio.to_thread
import sqlalchemy as sa

from airflow_provider_lookoutvision.server import metrics
from airflow_provider_lookoutvision.server.calls import idempotency
from airflow_provider_lookoutvision.server.calls.call import Inference
from airflow_provider_lookoutvision.server.hosting.errors import model_stopped, not_ready
from airflow_provider_lookoutvision.server.hosting.frames import Answer, Options
from airflow_provider_lookoutvision.server.hosting.operations import HOSTED_MESSAGE
from airflow_provider_lookoutvision.server.hosting.pool import Deployment, Load, Pool, PoolConfig
from airflow_provider_lookoutvision.server.jobs.handler import SERVICE_FAULT
from airflow_provider_lookoutvision.server.models.artifacts import read_artifact
from airflow_provider_lookoutvision.server.models.operations import resource_id
from airflow_provider_lookoutvision.server.models.status import IN_SERVICE, TRAINED_MESSAGE, ModelStatus
from airflow_provider_lookoutvision.server.protocol.errors import (
    ServiceError,
    ThrottlingException,
    ValidationException,
)
from airflow_provider_lookoutvision.server.settings import Settings
from airflow_provider_lookoutvision.server.storage.database import Database
from airflow_provider_lookoutvision.server.storage.schema import models, projects

POLL_SECONDS = 1.0
_POOL_WAIT_SECONDS = 10.0

log = logging.getLogger("lookoutvision")


class HostedModel(Protocol):
    """What the fleet needs of the pool of one hosted model, wherever its units are."""

    fault: str | None

    @property
    def start_fault(self) -> str | None:
        """Why no unit becomes ready: ``fault``, or that units end before they are."""

    @property
    def load(self) -> Load:
        """How many units are ready, and what they have to do for this process."""

    @property
    def ready(self) -> bool:
        """Whether as many units are ready as the model was started with."""

    async def detect(self, image: bytes, options: Options) -> Answer:
        """The answer of a unit."""

    def maintain(self) -> None:
        """Replace what hangs, and drop what is idle; called every second."""

    async def close(self) -> None:
        """The model is stopped."""

    async def release(self) -> None:
        """End what this process has of it; the model stays hosted."""


OpenPool = Callable[[PoolConfig, Callable[[], None]], HostedModel]


class Fleet:
    """The pools of this process, in its event loop.

    :param open_pool: hosts a model.
    """

    def __init__(self, settings: Settings, database: Database, open_pool: OpenPool = Pool) -> None:
        self._settings, self._database, self._open_pool = settings, database, open_pool
        self._pools: dict[Deployment, HostedModel] = {}
        self._desired: frozenset[Deployment] = frozenset()
        self._reconciliations = 0
        self._wakeup = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        for name, value in (("ready", "units"), ("busy", "busy"), ("waiting", "waiting")):
            metrics.INFERENCE.labels(name).set_function(partial(self._total, value))

    async def run(self) -> None:
        """Host models until cancelled, then end all replicas; the states stay HOSTED for the next process."""
        self._loop = asyncio.get_running_loop()
        try:
            while True:
                try:
                    await self._reconcile()
                except Exception:
                    log.exception("error in the fleet; it continues")
                try:
                    async with asyncio.timeout(POLL_SECONDS):
                        await self._wakeup.wait()
                except TimeoutError:
                    pass
                self._wakeup.clear()
        finally:
            with anyio.CancelScope(shield=True):
                await asyncio.gather(*(pool.release() for pool in self._pools.values()))

    def wake(self) -> None:
        """Read the states now; from any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._wakeup.set)

    async def detect(self, inference: Inference) -> Mapping[str, Any]:
        """The members of DetectAnomalies' answer."""
        deployment = Deployment(inference.model_id, inference.hosting)
        if deployment not in self._pools:  # this process has just started, or another one started the model
            await self._wait_for_pool(deployment, inference.resource_id)
        options = Options(inference.threshold, inference.anomaly_map)
        try:
            answer = await self._pools[deployment].detect(inference.image, options)
        except ThrottlingException:
            metrics.THROTTLES.labels("queue_per_unit").inc()
            raise
        except ServiceError as error:
            metrics.IMAGES.labels("invalid" if isinstance(error, ValidationException) else "failed").inc()
            raise
        metrics.IMAGES.labels("answered").inc()
        pictures = {"AnomalyMask": answer.mask, "AnomalyMap": answer.anomaly_map}
        added = {name: picture for name, picture in pictures.items() if picture}
        return {"DetectAnomalyResult": {**answer.members, **added}}

    def load(self, model_id: int) -> Load | None:
        """What the replicas of a model have to do in this process, if it has any; from any thread."""
        pools = list(self._pools.items())
        return next((pool.load for deployment, pool in pools if deployment.model_id == model_id), None)

    def _total(self, name: str) -> float:
        return float(sum(getattr(pool.load, name) for pool in list(self._pools.values())))

    async def _wait_for_pool(self, deployment: Deployment, name: str) -> None:
        before = self._reconciliations
        self.wake()
        try:
            async with asyncio.timeout(_POOL_WAIT_SECONDS):
                while deployment not in self._pools:
                    # The first of two reconciliations may have begun before the model was hosted.
                    if self._reconciliations > before + 1 and deployment not in self._desired:
                        raise model_stopped(name)
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise not_ready(name) from None

    async def _reconcile(self) -> None:
        rows = await anyio.to_thread.run_sync(self._in_service)
        desired = {Deployment(row.id, row.hosting): row for row in rows}
        self._desired = frozenset(desired)
        for deployment in [deployment for deployment in self._pools if deployment not in desired]:
            await self._pools.pop(deployment).close()
        for deployment, row in desired.items():
            if row.status == ModelStatus.STOPPING_HOSTING:
                if pool := self._pools.pop(deployment, None):
                    await pool.close()
                await self._transition(
                    deployment, row, ModelStatus.TRAINED, row.training_message or TRAINED_MESSAGE
                )
            elif deployment not in self._pools:
                await self._open(deployment, row)
            else:
                self._pools[deployment].maintain()
                await self._update_status(deployment, row)
        self._reconciliations += 1

    async def _open(self, deployment: Deployment, row: sa.Row[Any]) -> None:
        artifact = await anyio.to_thread.run_sync(read_artifact, self._database, deployment.model_id)
        if artifact is None:
            fault = f"{SERVICE_FAULT}the trained model is missing from the database: train it again"
            await self._transition(deployment, row, ModelStatus.HOSTING_FAILED, fault, forget_start=True)
            return
        max_units = max(row.max_units or 0, row.min_units)
        config = PoolConfig(
            resource_id(row.name, row.version),
            deployment,
            artifact,
            self._settings.data_dir / "cache",
            row.min_units,
            max_units,
            max(1, len(os.sched_getaffinity(0)) // max_units),
            self._settings.queue_per_unit,
        )
        self._pools[deployment] = self._open_pool(config, self.wake)

    async def _update_status(self, deployment: Deployment, row: sa.Row[Any]) -> None:
        pool, starting = self._pools[deployment], row.status == ModelStatus.STARTING_HOSTING
        if fault := pool.start_fault if starting else pool.fault:
            await self._pools.pop(deployment).close()
            await self._transition(
                deployment, row, ModelStatus.HOSTING_FAILED, SERVICE_FAULT + fault, forget_start=True
            )
        elif starting and pool.ready:
            await self._transition(deployment, row, ModelStatus.HOSTED, HOSTED_MESSAGE)

    async def _transition(
        self,
        deployment: Deployment,
        row: sa.Row[Any],
        status: ModelStatus,
        message: str,
        *,
        forget_start: bool = False,
    ) -> None:
        def write() -> bool:
            this = sa.and_(
                models.c.id == deployment.model_id,
                models.c.hosting == deployment.number,
                models.c.status == row.status,
            )
            with self._database.write() as connection:
                changed = connection.execute(
                    models.update().where(this).values(status=status, status_message=message)
                )
                if forget_start and changed.rowcount:
                    # So that the same token can start it again.
                    identity = resource_id(row.name, row.version)
                    idempotency.forget(connection, row.account_id, row.region, "StartModel", identity)
            return bool(changed.rowcount)

        if await anyio.to_thread.run_sync(write):
            log.info("a model is " + status, extra={"model": resource_id(row.name, row.version)})

    def _in_service(self) -> list[sa.Row[Any]]:
        query = (
            sa.select(models, projects.c.name, projects.c.account_id, projects.c.region)
            .join(projects, projects.c.id == models.c.project_id)
            .where(models.c.status.in_(IN_SERVICE))
        )
        with self._database.read() as connection:
            return list(connection.execute(query).all())
