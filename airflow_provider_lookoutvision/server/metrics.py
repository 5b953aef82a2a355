"""What this process counts, for Prometheus: requests, images, throttles, inference units.

No label has the name of an account, a project or a key. ``scraping`` adds what the database knows, and serves
it all. Counters are of one process, from its start on; each service process is a target of its own.
"""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
)

from airflow_provider_lookoutvision import __version__

REGISTRY = CollectorRegistry(auto_describe=True)
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

Info("lookoutvision", "The service.", registry=REGISTRY).info({"version": __version__})
REQUESTS = Counter(
    "lookoutvision_requests",
    "Answered requests; of S3 as s3:PutObject, and without an operation as unknown.",
    ["operation", "status"],
    registry=REGISTRY,
)
ERRORS = Counter(
    "lookoutvision_errors", "Refused and failed requests by their error code.", ["code"], registry=REGISTRY
)
LATENCY = Histogram(
    "lookoutvision_request_seconds",
    "From the request's head until its answer begins.",
    ["operation"],
    buckets=_SECONDS,
    registry=REGISTRY,
)
THROTTLES = Counter(
    "lookoutvision_throttles",
    "Requests that were refused for now: requests_per_second, or queue_per_unit of a hosted model.",
    ["limit"],
    registry=REGISTRY,
)
IMAGES = Counter(
    "lookoutvision_images",
    "Images of DetectAnomalies: answered, invalid or failed.",
    ["outcome"],
    registry=REGISTRY,
)
INFERENCE = Gauge(
    "lookoutvision_inference",
    "Of this process: inference units that are ready, and images that they are busy with, or that wait.",
    ["state"],
    registry=REGISTRY,
)
UNIT_ENDS = Counter(
    "lookoutvision_inference_unit_ends",
    "Inference units that ended though nobody stopped them.",
    registry=REGISTRY,
)


def count_request(operation: str | None, status: int | None, error: str | None, seconds: float) -> None:
    """Count an answered request."""
    name = operation or "unknown"
    REQUESTS.labels(name, str(status or 0)).inc()
    LATENCY.labels(name).observe(seconds)
    if error is not None:
        ERRORS.labels(error).inc()
