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

from airflow_provider_lookoutvision.server.cluster.connection import (
    NAMESPACE,
    connect,
    log_as_the_service,
    name_of,
)
from airflow_provider_lookoutvision.server.cluster.hosted_models import HostedModels
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

_POLL_SECONDS = 1.0

log = logging.getLogger("lookoutvision")


class RemotePool:
    """The units of one hosted model, wherever they are.

    :param on_change: called when the model is ready, or can't be loaded.
    """

    def __init__(self, settings: Settings, config: PoolConfig, on_change: Callable[[], None]) -> None:
        self.fault: str | None = None
        self.failed_starts = 0
        self.units = 0
        self._settings, self._config, self._on_change = settings, config, on_change
        self._application = name_of(settings, *config.deployment)
        self._handle: Any = None
        self._connected = False
        self._closed = False
        self._under_way = 0
        self._watching = asyncio.get_running_loop().create_task(self._watch())

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
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            try:
                before = self.ready, self.fault
                if not await anyio.to_thread.run_sync(self._look):
                    await anyio.to_thread.run_sync(self._deploy)
                if (self.ready, self.fault) != before:
                    self._on_change()
            except Exception:  # the cluster may be back in a moment
                self._connected = False
                log.exception("the cluster doesn't answer")
            await asyncio.sleep(_POLL_SECONDS)

    def _deploy(self) -> None:
        name = name_of(self._settings, "models")
        models = ray.remote(HostedModels).options(
            name=name,
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            max_restarts=-1,
            max_task_retries=-1,
        )
        config = dataclasses.replace(self._config, artifact=b"")
        ray.get(models.remote(name, self._settings.url).deploy.remote(self._application, config))

    def _look(self) -> bool:
        """See how the application is; whether it is there."""
        if not self._connected:
            connect(self._settings)
            serve.start(proxy_location="Disabled")
            log_as_the_service()
            self._connected = True
        application = serve.status().applications.get(self._application)
        if application is None:
            self.units = 0
            return False
        states = [deployment.replica_states for deployment in application.deployments.values()]
        self.units = sum(state.get(ReplicaState.RUNNING, 0) for state in states)
        if application.status is ApplicationStatus.DEPLOY_FAILED and self._handle is None:
            messages = [deployment.message for deployment in application.deployments.values()]
            self.fault = next(filter(None, [*messages, application.message]), "the cluster gives no reason")
        if self.units and self._handle is None:
            self._handle = serve.get_app_handle(self._application)
        return True

    def _delete(self) -> None:
        try:
            serve.delete(self._application, _blocking=False)
        except Exception:
            log.exception("a model of the cluster can't be ended", extra={"model": self._config.name})
