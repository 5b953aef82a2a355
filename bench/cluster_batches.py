"""Throughput of a batch on Ray nodes that have a core each, beside one detector without Ray Data, in one run.

``python -m bench.cluster_batches some.manifest --images DIR`` or ``python -m bench.cluster_batches FOLDER``
(as ``bench.engine_data``). It trains once through the API, puts the images into the service's own S3 as often
as ``--count`` says, and lets three ways take turns, round by round: one detector on core 0; a Ray Data job on
the node of core 0; and one on the nodes of cores 0 and 1. A way is timed from the first results of all its
detectors to its last, so that its start doesn't count. Raylets, with all that they start, keep to their core;
the client, the head of the cluster and S3 have whatever is left of all cores.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import boto3
import psutil
import ray
import ray.cluster_utils

from airflow_provider_lookoutvision.batches.images import Image, list_images
from airflow_provider_lookoutvision.batches.job import Batch
from airflow_provider_lookoutvision.server.cluster import batch_job
from airflow_provider_lookoutvision.server.cluster.connection import NAMESPACE
from airflow_provider_lookoutvision.server.cluster.detectors import Detectors, TrainedModel
from airflow_provider_lookoutvision.testing.service import Service, running_service
from bench.engine_data import add_image_arguments, read_images
from bench.hosting import _artifact, _train
from bench.service import machine, new_client

_BUCKET, _PREFIX = "bench", "many/"
_FIRST = 50


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_image_arguments(parser)
    parser.add_argument("--count", type=int, default=500, help="images in a batch")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    whole = read_images(options)
    versions = f"Python {platform.python_version()}, Ray {ray.__version__}"
    print(f"{datetime.now(UTC):%Y-%m-%d}, {machine()}, {versions}")
    with (
        tempfile.TemporaryDirectory(prefix="lookoutvision-bench-") as temporary,
        running_service(Path(temporary) / "data") as service,
    ):
        _train(new_client(service), service.data_dir, whole)
        for name, value in _environment(service, Path(temporary)).items():
            os.environ[name] = value
        s3 = boto3.Session().client("s3", endpoint_url=service.endpoint_url)
        for number in range(options.count):
            content = whole.images[number % len(whole.images)].read_bytes()
            s3.put_object(Bucket=_BUCKET, Key=f"{_PREFIX}{number:06}.jpg", Body=content)
        images = list(list_images(s3, _BUCKET, _PREFIX))
        model = TrainedModel(1, "bench/1", _artifact(service.data_dir), 0.5)
        rates: dict[str, list[float]] = {"one detector": [], "1 node": [], "2 nodes": []}
        for _ in range(options.rounds):
            with _cluster(1):
                rates["one detector"].append(_one_detector(_batch(service, 1), model, images))
                rates["1 node"].append(_on_cluster(_batch(service, 1), model, images))
            with _cluster(2):
                rates["2 nodes"].append(_on_cluster(_batch(service, 2), model, images))
    print("\n| | images a second | of one detector's | of one node's |")
    print("| --- | ---: | ---: | ---: |")
    for name, each in rates.items():
        ratios = [
            statistics.median(mine / its for mine, its in zip(each, rates[other], strict=True))
            for other in ("one detector", "1 node")
        ]
        print(f"| {name} | {statistics.median(each):.1f} | {ratios[0]:.2f} | {ratios[1]:.2f} |")


def _environment(service: Service, folder: Path) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": service.access_key_id,
        "AWS_SECRET_ACCESS_KEY": service.secret_access_key,
        "AWS_DEFAULT_REGION": "us-east-1",
        "LOOKOUTVISION_DATA_DIR": str(folder / "node"),
        "RAY_AUTH_MODE": "disabled",
    }


def _batch(service: Service, detectors: int) -> Batch:
    return Batch(
        "",
        "",
        _BUCKET,
        _PREFIX,
        _BUCKET,
        "",
        (),
        (),
        None,
        None,
        detectors,
        service.endpoint_url,
        "us-east-1",
    )


@contextmanager
def _cluster(nodes: int) -> Iterator[None]:
    cluster = ray.cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        for core in range(nodes):
            node = cluster.add_node(num_cpus=1)
            raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
            for process in [raylet, *raylet.children(recursive=True)]:
                process.cpu_affinity([core])
        ray.init(address=cluster.address, namespace=NAMESPACE, log_to_driver=False, logging_level="warning")
        yield
    finally:
        ray.shutdown()
        cluster.shutdown()


def _one_detector(batch: Batch, model: TrainedModel, images: Sequence[Image]) -> float:
    """Images a second."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, [0])  # which its child process inherits
    try:
        detectors = Detectors(batch, [ray.put(model)])
        keys = [image.key for image in images]
        detectors({"key": keys[:_FIRST]})
        begun = time.perf_counter()
        detectors({"key": keys[_FIRST:]})
        return (len(images) - _FIRST) / (time.perf_counter() - begun)
    finally:
        os.sched_setaffinity(0, before)


def _on_cluster(batch: Batch, model: TrainedModel, images: Sequence[Image]) -> float:
    begun, number = 0.0, 0
    for number, _ in enumerate(batch_job._detect(batch, ray.put(model), images), start=1):
        if number == _FIRST * batch.detectors:
            begun = time.perf_counter()
    return (number - _FIRST * batch.detectors) / (time.perf_counter() - begun)


if __name__ == "__main__":
    main()
