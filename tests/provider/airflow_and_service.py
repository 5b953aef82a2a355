"""An Airflow with a service, and connections between them that lose answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
from airflow_instance import AirflowInstance
from airflow_metrics import Metrics

from airflow_provider_lookoutvision.model import register_service_model
from airflow_provider_lookoutvision.testing.lossy_proxy import Exchange, LossyProxy
from airflow_provider_lookoutvision.testing.service import Service

ATTEMPTS_OF_A_TRY = 2  # see AirflowInstance.connection


@dataclass
class Deployment:
    """Airflow, a service, an Airflow connection to the service, and the metrics that Airflow sends."""

    airflow: AirflowInstance
    service: Service
    conn_id: str
    metrics: Metrics

    def projects(self, prefix: str) -> list[dict[str, Any]]:
        """The projects whose names begin like this."""
        pages = client_of(self.service).get_paginator("list_projects").paginate()
        return [p for page in pages for p in page["Projects"] if p["ProjectName"].startswith(prefix)]

    @contextmanager
    def losing(
        self, drop: Callable[[Exchange], bool], service: Service | None = None
    ) -> Iterator[LossyConnection]:
        """A connection through a proxy that loses answers."""
        service = service or self.service
        with LossyProxy(service.endpoint_url, drop) as proxy:
            yield LossyConnection(proxy, self.airflow.connection(proxy.endpoint_url, service))


@dataclass
class LossyConnection:
    proxy: LossyProxy
    conn_id: str

    def tokens(self, method: str = "POST") -> list[str | None]:
        return [each.client_token for each in self.proxy.exchanges if each.method == method]


def client_of(service: Service) -> Any:
    session = boto3.Session(service.access_key_id, service.secret_access_key, region_name="eu-central-1")
    return register_service_model(session).client("lookoutvision", endpoint_url=service.endpoint_url)


def the_first(count: int, method: str = "POST") -> Callable[[Exchange], bool]:
    """Say yes to the first requests with this method."""
    seen = 0

    def drop(exchange: Exchange) -> bool:
        nonlocal seen
        seen += exchange.method == method
        return exchange.method == method and seen <= count

    return drop
