"""One inference unit on a node of the cluster: a replica of Ray Serve, with a pool of one replica beside it.

Images are decoded in that child process, as on one machine: one that ends or hangs is replaced by the pool,
and Serve replaces the unit when that doesn't help. The trained model comes from ``HostedModels``, so that no
process that handles images knows the database.
"""

from __future__ import annotations

import asyncio
import dataclasses

import ray

from airflow_provider_lookoutvision.server.cluster.connection import NAMESPACE
from airflow_provider_lookoutvision.server.hosting.frames import Answer, Options
from airflow_provider_lookoutvision.server.hosting.pool import Pool, PoolConfig
from airflow_provider_lookoutvision.server.protocol.errors import ServiceError

_CHECK_SECONDS = 1.0


class Unit:
    """A replica of Serve that answers images with one model.

    :param models: the name of the actor ``HostedModels``.
    :param config: of the pool, without the artifact.
    """

    _pool: Pool

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, models: str, config: PoolConfig
    ) -> None:
        source = ray.get_actor(models, namespace=NAMESPACE)
        artifact = await source.read.remote(config.deployment.model_id)
        if artifact is None:
            raise RuntimeError("the trained model is missing from the database: train it again")
        config.cache.mkdir(parents=True, exist_ok=True)
        self._pool = await ready_pool(
            dataclasses.replace(config, artifact=artifact, min_units=1, max_units=1)
        )

    async def detect(self, image: bytes, options: Options) -> Answer:
        """The answer to an image, also that it can't be used."""
        try:
            return await self._pool.answer(image, options)
        except ServiceError as error:
            return Answer({"error": error.message})

    async def check_health(self) -> None:
        """Replace what hangs; Serve calls it from time to time, and replaces the unit when it raises."""
        self._pool.maintain()
        _check(self._pool)


async def ready_pool(config: PoolConfig) -> Pool:
    """A pool whose replicas are ready.

    :raises RuntimeError: when the model can't be loaded, with the reason.
    """
    changed = asyncio.Event()
    pool = Pool(config, changed.set)
    while not pool.ready:
        _check(pool)
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                await changed.wait()
        except TimeoutError:
            continue
    return pool


def _check(pool: Pool) -> None:
    if pool.start_fault:
        raise RuntimeError(pool.start_fault)
