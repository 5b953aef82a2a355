"""The job that processes a batch on the cluster: ``python -m`` this module, with a ``batches.job.Batch``.

It lists the images, pairs them with the results that earlier tries have saved, and gives the others to a Ray
Data pipeline, whose actors have the detectors. It saves results while they come in, and writes the object of
all of them in the end: the same parts, the same object, the same digest as a batch through the API, so either
way goes on where the other ended.
"""

from __future__ import annotations

import itertools
import json
import logging
import math
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import ray
import ray.data
from botocore.exceptions import ClientError

from airflow_provider_lookoutvision.batches.images import Image, ListingDigest, Result, join, list_images
from airflow_provider_lookoutvision.batches.job import UNUSABLE, Batch
from airflow_provider_lookoutvision.batches.results import (
    PART_RESULTS,
    PART_SECONDS,
    Checkpoint,
    ResultsObject,
)
from airflow_provider_lookoutvision.server.cluster.connection import MODELS, NAMESPACE
from airflow_provider_lookoutvision.server.cluster.detectors import Detectors, TrainedModel, s3_client

# Images of one pipeline: its list is in memory, and its actors start anew with the next.
_PIPELINE_IMAGES = 50_000
# Of one task of an actor: a few seconds' work.
_BLOCK_IMAGES = 50
# Of S3, to this node.
_REFUSALS = frozenset({"AccessDenied", "InvalidAccessKeyId", "NoSuchBucket", "SignatureDoesNotMatch"})

log = logging.getLogger("lookoutvision.batch")


class ModelNotFound(Exception):
    """No service on this cluster has the model."""


def main(text: str) -> int:
    """Process the batch; 0 when its results are written, ``UNUSABLE`` when it can't be."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    log.setLevel(logging.INFO)
    batch = Batch.read(text)
    ray.init(namespace=NAMESPACE, log_to_driver=False, logging_level=logging.WARNING)
    try:
        _process(batch, find_model(batch))
    except (ClientError, ModelNotFound) as error:
        if isinstance(error, ClientError) and error.response["Error"]["Code"] not in _REFUSALS:
            raise
        log.error("%s", error)
        return UNUSABLE
    return 0


def find_model(batch: Batch) -> TrainedModel:
    """The trained model, from the service on this cluster that has it.

    :raises ModelNotFound: when none has.
    """
    created_at = round(datetime.fromisoformat(batch.model_created).timestamp() * 1000)
    for actor in ray.util.list_named_actors(all_namespaces=True):
        if actor["namespace"] == NAMESPACE and actor["name"].endswith(MODELS):
            models = ray.get_actor(actor["name"], namespace=NAMESPACE)
            found = ray.get(models.find.remote(batch.model_arn, created_at))
            if found is not None:
                return TrainedModel(*found)
    raise ModelNotFound(
        f"No service on this Ray cluster has the model {batch.model_arn} of {batch.model_created}: its "
        "service must run with --cluster, on the cluster that the batch's connection names"
    )


def _process(batch: Batch, model: TrainedModel) -> None:
    s3 = s3_client(batch)
    checkpoint = Checkpoint(s3, batch.results_bucket, batch.results_key, batch.tokens)
    digest = ListingDigest(batch.options)
    images = digest.track(list_images(s3, batch.bucket, batch.prefix))
    paired = join(images, checkpoint.load())
    reference, count = ray.put(model), 0
    with tempfile.TemporaryFile() as file:
        while some := list(itertools.islice(paired, _PIPELINE_IMAGES)):
            new = [image for image, saved in some if saved is None]
            if len(new) < len(some):
                log.info("%d results are there from earlier tries", len(some) - len(new))
            found = _saving(checkpoint, _detect(batch, reference, new))
            for _, saved in some:
                result = saved or next(found)
                file.write(json.dumps(result.line, ensure_ascii=False).encode() + b"\n")
            next(found, None)  # which saves the last
            count += len(some)
            log.info("%d images are processed", count)
        results = ResultsObject(s3, batch.results_bucket, batch.results_key, batch.tokens[0], batch.options)
        results.write(file, digest)


def _detect(batch: Batch, model: Any, images: Sequence[Image]) -> Iterator[Result]:
    """The results of the images in their order, while the cluster processes them."""
    if not images:
        return
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    blocks = math.ceil(len(images) / _BLOCK_IMAGES)
    keys = ray.data.from_items([{"key": image.key} for image in images], override_num_blocks=blocks)
    results = keys.map_batches(
        Detectors,
        fn_constructor_args=(batch, [model]),
        batch_size=None,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=batch.detectors),
        num_cpus=1,
    )
    for block in results.iter_batches(batch_size=None, prefetch_batches=0):
        for text in block["result"]:
            yield Result(*json.loads(str(text)))


def _saving(checkpoint: Checkpoint, results: Iterator[Result]) -> Iterator[Result]:
    """The results, which are saved while they come in, and also when the job ends in the middle."""
    unsaved: list[Result] = []
    saved_at = 0.0
    try:
        for result in results:
            if not unsaved:
                saved_at = time.monotonic()
            unsaved.append(result)
            if len(unsaved) >= PART_RESULTS or time.monotonic() - saved_at >= PART_SECONDS:
                checkpoint.save(unsaved)
                log.info("the results until %s are saved", result.key)
                unsaved.clear()
            yield result
    finally:
        checkpoint.save(unsaved)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
