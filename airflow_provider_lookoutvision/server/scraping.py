"""Metrics for Prometheus: what this process counts, and what the database and the disk say at the moment.

``/metrics`` is served at the API's address to access keys of the first account that may
``lookoutvision:GetMetrics``, by HTTP's basic authentication (the key's ID and secret), and without a key at
an address of its own if one is set. What comes from the database is the same in each service process on it.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import logging
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import anyio.to_thread
import sqlalchemy as sa
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

from airflow_provider_lookoutvision.server import metrics
from airflow_provider_lookoutvision.server.calls import access
from airflow_provider_lookoutvision.server.jobs import heartbeat
from airflow_provider_lookoutvision.server.settings import DEFAULT_ACCOUNT, Settings, SettingsError
from airflow_provider_lookoutvision.server.storage.database import Database
from airflow_provider_lookoutvision.server.storage.encryption import Cipher
from airflow_provider_lookoutvision.server.storage.schema import (
    client_tokens,
    datasets,
    jobs,
    models,
    now,
    packaging_jobs,
    projects,
    workers,
)
from airflow_provider_lookoutvision.server.storage.wildcards import matches

ACTION = f"{access.SERVICE}:getmetrics"

log = logging.getLogger("lookoutvision")


class Metrics:
    """The metrics of a service process."""

    def __init__(self, settings: Settings, database: Database, cipher: Cipher) -> None:
        self._settings, self._database, self._cipher = settings, database, cipher
        self._registry = CollectorRegistry()
        self._registry.register(_Joined(metrics.REGISTRY, _Stored(settings, database)))

    async def answer(self, request: Request) -> Response:
        """Answer ``GET /metrics``."""
        return await anyio.to_thread.run_sync(self._answer, request.headers.get("authorization", ""))

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Serve them inside the block at the address of the setting ``metrics_address``, if there is one.

        :raises SettingsError: when nothing can listen there.
        """
        if not self._settings.metrics_address:
            yield
            return
        host, _, port = self._settings.metrics_address.rpartition(":")
        try:
            server, thread = start_http_server(int(port), host.strip("[]"), self._registry)
        except (OSError, ValueError) as error:
            raise SettingsError(
                f"metrics_address is {self._settings.metrics_address!r}, where nothing can listen: {error}"
            ) from None
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def _answer(self, authorization: str) -> Response:
        if not self._may_read(authorization):
            challenge = {"www-authenticate": 'Basic realm="metrics"'}
            return Response("An access key that may lookoutvision:GetMetrics\n", 401, challenge)
        return Response(generate_latest(self._registry), headers={"content-type": CONTENT_TYPE_LATEST})

    def _may_read(self, authorization: str) -> bool:
        scheme, _, encoded = authorization.partition(" ")
        try:
            name, _, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return False
        if scheme.lower() != "basic" or not name:
            return False
        with self._database.read() as connection:
            stored = access.find_key(connection, self._cipher, name)
        expected = stored.secret if stored else ""
        proven = hmac.compare_digest(secret.encode(), expected.encode()) and bool(expected)
        if stored is None or not proven or stored.key.account_id != DEFAULT_ACCOUNT:
            return False
        return matches([pattern.lower() for pattern in stored.key.allowed_actions], ACTION)


class _Joined(Collector):
    def __init__(self, *parts: Collector) -> None:
        self._parts = parts

    def collect(self) -> Iterable[GaugeMetricFamily]:
        for part in self._parts:
            yield from part.collect()  # type: ignore[misc]


class _Stored(Collector):
    """What the database and the disk say."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings, self._database = settings, database

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Read it; a database that doesn't answer is a metric too."""
        begun = time.perf_counter()
        families: list[GaugeMetricFamily] = []
        try:
            with self._database.read() as connection:
                families = [*self._rows(connection), *self._jobs(connection), *self._workers(connection)]
                families.append(_gauge("database_bytes", "Size of the database.", self._size(connection)))
        except Exception as error:
            log.warning("the database can't be read for metrics", extra={"reason": type(error).__name__})
            families = []
        yield _gauge("database_up", "Whether the database answers.", float(bool(families)))
        yield _gauge("database_seconds", "How long these reads took.", time.perf_counter() - begun)
        yield from families
        disk = shutil.disk_usage(self._settings.data_dir)
        yield _gauge("disk_free_bytes", "Free on the disk of the data directory.", disk.free)
        yield _gauge("disk_bytes", "Size of the disk of the data directory.", disk.total)

    def _rows(self, connection: sa.Connection) -> Iterator[GaugeMetricFamily]:
        for name, text, column in (
            ("datasets", "Datasets by status.", datasets.c.status),
            ("models", "Models by status.", models.c.status),
            ("packaging_jobs", "Model packaging jobs by status.", packaging_jobs.c.status),
            ("client_tokens", "Client tokens that are kept, by state.", client_tokens.c.state),
        ):
            family = _family(name, text, column.name)
            for value, count in connection.execute(sa.select(column, sa.func.count()).group_by(column)):
                family.add_metric([value], count)
            yield family
        count = connection.execute(sa.select(sa.func.count()).select_from(projects)).scalar_one()
        yield _gauge("projects", "Projects.", count)

    def _jobs(self, connection: sa.Connection) -> Iterator[GaugeMetricFamily]:
        running = sa.and_(jobs.c.owner.is_not(None), jobs.c.leased_until >= now())
        query = sa.select(
            jobs.c.kind,
            sa.func.count().filter(sa.not_(running)),
            sa.func.count().filter(running),
            sa.func.max(jobs.c.attempts),
            now() - sa.func.min(jobs.c.created_at),
        ).group_by(jobs.c.kind)
        states = _family("jobs", "Jobs that wait or run.", "kind", "state")
        attempts = _family("job_attempts", "The most attempts that a job of the kind has had.", "kind")
        ages = _family("job_age_seconds", "The age of the oldest job of the kind.", "kind")
        for kind, waiting, under_way, most, age in connection.execute(query):
            states.add_metric([kind, "waiting"], waiting)
            states.add_metric([kind, "running"], under_way)
            attempts.add_metric([kind], most)
            ages.add_metric([kind], max(0, age or 0) / 1000)
        yield from (states, attempts, ages)

    def _workers(self, connection: sa.Connection) -> Iterator[GaugeMetricFamily]:
        heard = workers.c.heard_at >= now() - int(heartbeat.MISSING_SECONDS * 1000)
        count = connection.execute(sa.select(sa.func.count()).select_from(workers).where(heard)).scalar_one()
        yield _gauge("workers", "Workers that were heard of within a minute.", count)
        silence = heartbeat.silence(connection)
        yield _gauge(
            "worker_heartbeat_seconds",
            "For how long no worker was heard of; infinite if there is none.",
            float("inf") if silence is None else silence,
        )

    def _size(self, connection: sa.Connection) -> float:
        if self._database.is_sqlite:
            pages = connection.execute(sa.text("PRAGMA page_count")).scalar_one()
            return float(pages * connection.execute(sa.text("PRAGMA page_size")).scalar_one())
        return float(connection.execute(sa.text("SELECT pg_database_size(current_database())")).scalar_one())


def _family(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"lookoutvision_{name}", text, labels=labels)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"lookoutvision_{name}", text, value=value)
