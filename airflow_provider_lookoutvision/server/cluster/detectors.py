"""Detection in the actors of a Ray Data job: each has one detector, loaded once, in a child process.

Images are read from S3, and masks written to it, by the code of the operator; only the request to the service
is a message to the child. So the results are those of the service.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import boto3
import ray
from botocore.config import Config

from airflow_provider_lookoutvision.batches.image_detector import ImageDetector, InvalidImage
from airflow_provider_lookoutvision.batches.job import Batch
from airflow_provider_lookoutvision.server import settings
from airflow_provider_lookoutvision.server.cluster.unit import ready_pool
from airflow_provider_lookoutvision.server.hosting.frames import DEPTH, Options
from airflow_provider_lookoutvision.server.hosting.pool import Deployment, Pool, PoolConfig
from airflow_provider_lookoutvision.server.protocol.errors import ServiceError, ValidationException

_MAX_FAILURES = 5
_PAUSE_SECONDS = 1.0
# As many images as are in the child, and as many that are read or stored meanwhile.
_THREADS = 2 * DEPTH


@dataclass(frozen=True)
class TrainedModel:
    """A model as the service keeps it.

    :param name: project and version, for messages.
    :param threshold: of its verdicts.
    """

    id: int
    name: str
    artifact: bytes
    threshold: float


class Detectors:
    """What ``map_batches`` calls, an object in each actor.

    :param model: the reference of a ``TrainedModel``, which each node fetches once.
    """

    def __init__(self, batch: Batch, model: Any) -> None:
        found: TrainedModel = ray.get(model[0])  # in a list, or Ray would fetch it for each actor
        cache = settings.load({}).data_dir / "cache"
        cache.mkdir(parents=True, exist_ok=True)
        config = PoolConfig(
            found.name, Deployment(found.id, 0), found.artifact, cache, 1, 1, 1, queue_per_unit=_THREADS
        )
        options = Options(found.threshold, batch.heatmaps is not None)
        detector = _Detector(config, options)
        names = {"ProjectName": found.name, "ModelVersion": ""}
        self._images = ImageDetector(detector, s3_client(batch), names, detector, batch.masks, batch.heatmaps)
        self._bucket = batch.bucket
        self._threads = ThreadPoolExecutor(_THREADS)

    def __call__(self, block: Mapping[str, Any]) -> dict[str, list[str]]:
        """The results of the images with these keys, in their order."""
        keys = [str(key) for key in block["key"]]
        results = list(self._threads.map(lambda key: self._images.detect(self._bucket, key), keys))
        lines = [json.dumps([result.key, result.etag, result.line]) for result in results]
        return {"result": lines}


class _Detector:
    """A child process with the model, as the service of an ``ImageDetector``, and what repeats requests."""

    def __init__(self, config: PoolConfig, options: Options) -> None:
        self._options = options
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._pool: Pool = self._wait(ready_pool(config))
        self._maintained = asyncio.run_coroutine_threadsafe(self._maintain(), self._loop)

    def detect_anomalies(self, *, Body: bytes, **_: str) -> dict[str, Any]:  # noqa: N803 (of the API)
        """What the operation of the API answers."""
        try:
            answer = self._wait(self._pool.detect(Body, self._options))
        except ValidationException as error:
            raise InvalidImage(error.message) from None
        pictures = {"AnomalyMask": answer.mask, "AnomalyMap": answer.anomaly_map}
        found = {name: picture for name, picture in pictures.items() if picture}
        return {"DetectAnomalyResult": {**answer.members, **found}}

    def call(self, request: Callable[[], dict[str, Any]], name: str) -> dict[str, Any]:
        """Detect, and again if the child died or did not answer.

        :raises RuntimeError: when it fails five times.
        """
        for failures in range(1, _MAX_FAILURES + 1):
            try:
                return request()
            except ServiceError as error:
                fault = error.message
                time.sleep(_PAUSE_SECONDS * failures)
        raise RuntimeError(f"Detection failed {_MAX_FAILURES} times on {name}: {fault}")

    async def _maintain(self) -> None:
        while True:
            self._pool.maintain()
            await asyncio.sleep(_PAUSE_SECONDS)

    def _wait(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


def s3_client(batch: Batch) -> Any:
    """A client of the batch's S3, with the access of this node."""
    config = Config(max_pool_connections=_THREADS + 1, retries={"mode": "standard", "max_attempts": 10})
    return boto3.Session(region_name=batch.s3_region).client(
        "s3", endpoint_url=batch.s3_endpoint_url, config=config
    )
