"""The pool of one hosted model on the cluster, with the interface of ``hosting.pool``.

A model is an application of Ray Serve without a route: units are its replicas, on any node, added while
requests wait and removed after a while with nothing to do. The first API process that sees the model as
hosted deploys it, all of them reach it, and whichever sees it stopped deletes it. None of them holds it: an
API process that ends takes no model down.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable
from typing import Any, cast

import anyio.to_thread
import ray
from ray import serve
from ray.exceptions import RayError
from ray.serve._private.common import ReplicaState
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.schema import ApplicationStatus

from airflow_provider_lookoutvision.server.cluster.applications import Applications
from airflow_provider_lookoutvision.server.cluster.connection import name_of
from airflow_provider_lookoutvision.server.cluster.hosted_models import hosted_models
from airflow_provider_lookoutvision.server.hosting.errors import (
    ANSWER_SECONDS,
    checked,
    model_stopped,
    not_answered,
    not_ready,
    queue_is_full,
)
from airflow_provider_lookoutvision.server.hosting.frames import DEPTH, Answer, Options
from airflow_provider_lookoutvision.server.hosting.pool import AS_TRAINED, Load, PoolConfig
from airflow_provider_lookoutvision.server.protocol.errors import InternalServerException
from airflow_provider_lookoutvision.server.settings import Settings

log = logging.getLogger("lookoutvision")


class RemotePool:
    """The units of one hosted model, wherever they are.

    :param applications: of the cluster, which this process watches.
    :param on_change: called when the model is ready, or can't be loaded.
    """

    def __init__(
        self,
        settings: Settings,
        applications: Applications,
        config: PoolConfig,
        on_change: Callable[[], None],
    ) -> None:
        self.fault: str | None = None
        self.units = 0
        self._settings, self._config, self._on_change = settings, config, on_change
        self._applications = applications
        self._application = name_of(settings, *config.deployment)
        self._handle: Any = None
        self._closed = False
        self._under_way = 0
        self._working: asyncio.Task[None] | None = None
        applications.watch(self._application, self)

    @property
    def start_fault(self) -> str | None:
        """Why no unit becomes ready: Serve gives up by itself."""
        return self.fault

    @property
    def ready(self) -> bool:
        """Whether ``min_units`` units are ready."""
        return self._handle is not None and self.units >= self._config.min_units

    @property
    def load(self) -> Load:
        """The units of the whole cluster, and what they have to do for this process."""
        busy = min(self._under_way, self.units * DEPTH)
        return Load(self.units, busy, self._under_way - busy)

    async def detect(self, image: bytes, options: Options = AS_TRAINED) -> Answer:
        """The answer of a unit; raises what ``Pool.detect`` does."""
        if self._closed:
            raise model_stopped(self._config.name)
        if self._handle is None:
            raise not_ready(self._config.name)
        self._under_way += 1
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return checked(self._config.name, await self._answer(image, options))
        except TimeoutError:
            raise not_answered(self._config.name) from None
        except BackPressureError:
            raise queue_is_full(self._config.name, 1) from None
        except (RayError, RayServeException):
            raise InternalServerException(
                f"Inference units of the model {self._config.name} were lost while they processed this "
                "image; the service's log may say why",
                RetryAfterSeconds=1,
            ) from None
        finally:
            self._under_way -= 1

    async def _answer(self, image: bytes, options: Options) -> Answer:
        """The answer of a unit, or of another one if the first is lost."""
        try:
            return cast("Answer", await self._handle.detect.remote(image, options))
        except BackPressureError:
            raise
        except (RayError, RayServeException) as error:
            extra = {"model": self._config.name, "reason": str(error).partition("\n")[0]}
            log.error("an inference unit of the cluster is lost", extra=extra)
            return cast("Answer", await self._handle.detect.remote(image, options))

    def maintain(self) -> None:
        """Nothing: Serve checks the health of units, and how many there are."""

    async def close(self) -> None:
        """The model is stopped: end all units, on all nodes."""
        await self.release()
        await anyio.to_thread.run_sync(self._delete)

    async def release(self) -> None:
        """Leave the units to the other processes: this one ends."""
        self._closed = True
        await self._applications.forget(self._application)
        if self._working is not None:  # or what it deploys would be there after it was deleted
            await self._working

    def see(self, application: Any) -> None:
        """Take note of how the application is, and deploy it if it isn't there; called every second."""
        before = self.ready, self.fault
        if application is None:
            self.units = 0
            self._start(self._deploy)
        else:
            states = [deployment.replica_states for deployment in application.deployments.values()]
            self.units = sum(state.get(ReplicaState.RUNNING, 0) for state in states)
            if self._handle is None and application.status is ApplicationStatus.DEPLOY_FAILED:
                messages = [deployment.message for deployment in application.deployments.values()]
                reasons = filter(None, [*messages, application.message])
                self.fault = next(reasons, "the cluster gives no reason")
            elif self._handle is None and self.units:
                self._start(self._find)
        if (self.ready, self.fault) != before:
            self._on_change()

    def _start(self, work: Callable[[], None]) -> None:
        """Do work in a thread, unless some is being done."""
        if self._working is None or self._working.done():
            self._working = asyncio.get_running_loop().create_task(self._work(work))

    async def _work(self, work: Callable[[], None]) -> None:
        before = self.ready
        try:
            await anyio.to_thread.run_sync(work)
        except Exception:  # it is done again when the application is seen the next time
            log.exception("the cluster doesn't answer", extra={"model": self._config.name})
        if self.ready != before:
            self._on_change()

    def _deploy(self) -> None:
        config = dataclasses.replace(self._config, artifact=b"")
        ray.get(hosted_models(self._settings).deploy.remote(self._application, config))

    def _find(self) -> None:
        self._handle = serve.get_app_handle(self._application)

    def _delete(self) -> None:
        try:
            serve.delete(self._application, _blocking=False)
        except Exception:
            log.exception("a model of the cluster can't be ended", extra={"model": self._config.name})
