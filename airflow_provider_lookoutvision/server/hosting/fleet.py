"""The hosted models of this process: what the database says is to be hosted, is, and nothing else.

The fleet looks at the models' states when it is woken, and else every second, makes and closes pools, and
turns STARTING_HOSTING into HOSTED or HOSTING_FAILED and STOPPING_HOSTING into TRAINED. So a service that was
killed hosts again what it hosted; and of several that share a database each has replicas of its own.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import anyio.to_thread
import sqlalchemy as sa

from airflow_provider_lookoutvision.server.calls import idempotency
from airflow_provider_lookoutvision.server.calls.call import Inference
from airflow_provider_lookoutvision.server.hosting.operations import HOSTED_MESSAGE
from airflow_provider_lookoutvision.server.hosting.pool import Pool, PoolConfig, stopped
from airflow_provider_lookoutvision.server.jobs.handler import SERVICE_FAULT
from airflow_provider_lookoutvision.server.models.operations import (
    IN_SERVICE,
    TRAINED_MESSAGE,
    ModelStatus,
    resource_id,
)
from airflow_provider_lookoutvision.server.protocol.errors import InternalServerException
from airflow_provider_lookoutvision.server.settings import Settings
from airflow_provider_lookoutvision.server.storage.database import Database
from airflow_provider_lookoutvision.server.storage.schema import model_artifacts, models, projects

POLL_SECONDS = 1.0
_FIND_SECONDS = 10.0
_MOST_FAILED_STARTS = 3

log = logging.getLogger("lookoutvision")


@dataclass(frozen=True)
class _Hosting:
    """One start of one model."""

    model_id: int
    number: int


class Fleet:
    """The pools of this process, in its event loop."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings, self._database = settings, database
        self._pools: dict[_Hosting, Pool] = {}
        self._wanted: frozenset[_Hosting] = frozenset()
        self._looks = 0
        self._woken = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def run(self) -> None:
        """Host until cancelled; then end every replica. The models stay hosted: the next process goes on."""
        self._loop = asyncio.get_running_loop()
        try:
            while True:
                try:
                    await self._reconcile()
                except Exception:
                    log.exception("the fleet met an error, and goes on")
                try:
                    async with asyncio.timeout(POLL_SECONDS):
                        await self._woken.wait()
                except TimeoutError:
                    pass
                self._woken.clear()
        finally:
            with anyio.CancelScope(shield=True):
                await asyncio.gather(*(pool.close() for pool in self._pools.values()))

    def wake(self) -> None:
        """Look at the states now; from any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._woken.set)

    async def detect(self, inference: Inference) -> Mapping[str, Any]:
        """The members of DetectAnomalies' answer."""
        hosting = _Hosting(inference.model_id, inference.hosting)
        if hosting not in self._pools:  # this process has just begun, or another one started the model
            await self._find(hosting, inference.resource_id)
        answer = await self._pools[hosting].detect(inference.image)
        mask = {"AnomalyMask": answer.mask} if answer.mask else {}
        return {"DetectAnomalyResult": {**answer.members, **mask}}

    async def _find(self, hosting: _Hosting, name: str) -> None:
        looks = self._looks
        self.wake()
        try:
            async with asyncio.timeout(_FIND_SECONDS):
                while hosting not in self._pools:
                    # The first of two looks may have begun before the model was hosted.
                    if self._looks > looks + 1 and hosting not in self._wanted:
                        raise stopped(name)
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise InternalServerException(
                f"The model {name} is not ready here yet", RetryAfterSeconds=1
            ) from None

    async def _reconcile(self) -> None:
        rows = await anyio.to_thread.run_sync(self._in_service)
        wanted = {_Hosting(row.id, row.hosting): row for row in rows}
        self._wanted = frozenset(wanted)
        for hosting in [hosting for hosting in self._pools if hosting not in wanted]:
            await self._pools.pop(hosting).close()
        for hosting, row in wanted.items():
            if row.status == ModelStatus.STOPPING_HOSTING:
                if pool := self._pools.pop(hosting, None):
                    await pool.close()
                await self._transition(hosting, row, ModelStatus.TRAINED, TRAINED_MESSAGE)
            elif hosting not in self._pools:
                await self._open(hosting, row)
            else:
                self._pools[hosting].maintain()
                await self._report(hosting, row)
        self._looks += 1

    async def _open(self, hosting: _Hosting, row: sa.Row[Any]) -> None:
        artifact = await anyio.to_thread.run_sync(self._artifact, hosting.model_id)
        if artifact is None:
            fault = f"{SERVICE_FAULT}what its training made is gone from the database: train it anew"
            await self._transition(hosting, row, ModelStatus.HOSTING_FAILED, fault, undoes=True)
            return
        most = row.max_units or row.min_units
        config = PoolConfig(
            resource_id(row.name, row.version),
            artifact,
            self._settings.data_dir / "cache",
            row.min_units,
            max(most, row.min_units),
            max(1, len(os.sched_getaffinity(0)) // most),
            self._settings.queue_per_unit,
        )
        self._pools[hosting] = Pool(config, self.wake)

    async def _report(self, hosting: _Hosting, row: sa.Row[Any]) -> None:
        pool, starting = self._pools[hosting], row.status == ModelStatus.STARTING_HOSTING
        fault = pool.fault
        if starting and pool.failed_starts >= _MOST_FAILED_STARTS:
            fault = fault or f"an inference unit ended {pool.failed_starts} times before it was ready"
        if fault:
            await self._pools.pop(hosting).close()
            await self._transition(
                hosting, row, ModelStatus.HOSTING_FAILED, SERVICE_FAULT + fault, undoes=True
            )
        elif starting and pool.ready:
            await self._transition(hosting, row, ModelStatus.HOSTED, HOSTED_MESSAGE)

    async def _transition(
        self,
        hosting: _Hosting,
        row: sa.Row[Any],
        status: ModelStatus,
        message: str,
        *,
        undoes: bool = False,
    ) -> None:
        def write() -> bool:
            this = sa.and_(
                models.c.id == hosting.model_id,
                models.c.hosting == hosting.number,
                models.c.status == row.status,
            )
            with self._database.write() as connection:
                changed = connection.execute(
                    models.update().where(this).values(status=status, status_message=message)
                )
                if undoes and changed.rowcount:
                    # The same token may start it again.
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

    def _artifact(self, model_id: int) -> bytes | None:
        query = sa.select(model_artifacts.c.content).where(model_artifacts.c.model_id == model_id)
        with self._database.read() as connection:
            return connection.execute(query).scalar_one_or_none()
