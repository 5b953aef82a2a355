"""Raw requests, and what the service logged of them; the databases and clients come from the folder above."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
from services import NewKey
from signed_http import Wire

from airflow_provider_lookoutvision.testing.service import Service, running_service

Logged = Callable[[str], dict[str, Any]]


@pytest.fixture
def wire(service: Service, new_key: NewKey) -> Wire:
    """Sends raw requests, signed with a key that may do everything in the test's account."""
    return Wire(service.endpoint_url, new_key())


@pytest.fixture
def logged(service: Service) -> Logged:
    """``logged(request_id)``: the service's log line of that request."""

    def logged(request_id: str) -> dict[str, Any]:
        lines = reversed(service.log_file.read_text().splitlines())
        return next(json.loads(line) for line in lines if request_id in line)  # type: ignore[no-any-return]

    return logged


@pytest.fixture(scope="session")
def start_twin(service: Service) -> Callable[[], Any]:
    """``with start_twin() as twin``: another process of ``service``, on the same data."""
    return lambda: running_service(service.data_dir, [*service.flags, "--no-worker"])


@pytest.fixture(scope="session")
def twin(
    database: str, start_twin: Callable[[], Any], _twins: dict[str, Service], _forever: ExitStack
) -> Service:
    if database not in _twins:
        _twins[database] = _forever.enter_context(start_twin())
    return _twins[database]


@pytest.fixture(scope="session")
def _twins() -> dict[str, Service]:
    return {}
