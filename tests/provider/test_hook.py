"""The hook's client, its configuration, and what it adds to the client."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from botocore.config import Config
from botocore.exceptions import SSLError
from hook_calls import ELSEWHERE, both, list_projects
from recording_server import RecordingServer, certificate, recording_server

from airflow_provider_lookoutvision.hooks.lookoutvision import LookoutVisionHook


@pytest.fixture
def service() -> Iterator[RecordingServer]:
    with recording_server() as service:
        yield service


def test_makes_one_client(connect: Any) -> None:
    hook = LookoutVisionHook(connect(endpoint_url=ELSEWHERE))
    assert hook.conn is hook.conn
    assert hook.get_conn() is hook.conn


def test_its_own_region_and_configuration_come_before_the_connections(
    service: RecordingServer, connect: Any
) -> None:
    conn_id = connect(endpoint_url=service.url, config_kwargs={"retries": {"total_max_attempts": 9}})
    hook = LookoutVisionHook(
        conn_id,
        region_name="us-east-2",
        config={"retries": {"total_max_attempts": 2}, "user_agent_extra": "x/1"},
    )

    hook.conn.list_projects()

    assert service.requests[0].credential[2] == "us-east-2"
    assert " x/1" in service.requests[0].headers["User-Agent"]
    assert hook.conn.meta.config.retries["total_max_attempts"] == 2


def test_the_connections_configuration_counts(connect: Any) -> None:
    hook = LookoutVisionHook(connect(endpoint_url=ELSEWHERE, config_kwargs={"read_timeout": 7}))
    assert hook.conn.meta.config.read_timeout == 7


@both
def test_goes_through_a_proxy(deferrable: bool, service: RecordingServer, connect: Any) -> None:
    target = "http://lookoutvision.plant.example:8320"
    hook = LookoutVisionHook(connect(endpoint_url=target, config_kwargs={"proxies": {"http": service.url}}))

    list_projects(hook, deferrable=deferrable)

    assert service.requests[0].target == f"{target}/2020-11-20/projects"


@both
@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_verifies_certificates_as_configured(deferrable: bool, connect: Any, tmp_path: Path) -> None:
    bundle = str(certificate(tmp_path))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(bundle)
    once = Config(retries={"total_max_attempts": 1})
    with recording_server(tls) as service:
        conn_id = connect(endpoint_url=service.url)
        with pytest.raises(SSLError):
            list_projects(LookoutVisionHook(conn_id, config=once), deferrable=deferrable)
        assert not service.requests

        list_projects(LookoutVisionHook(conn_id, verify=bundle), deferrable=deferrable)
        conn_id = connect(endpoint_url=service.url, verify=False)
        list_projects(LookoutVisionHook(conn_id), deferrable=deferrable)
        assert len(service.requests) == 2


def test_finds_our_waiters(connect: Any) -> None:
    hook = LookoutVisionHook(connect(endpoint_url=ELSEWHERE))

    assert {"model_trained", "model_hosted"} <= set(hook.list_waiters())
    assert hook.get_waiter("model_trained").name == "ModelTrained"

    async def from_a_trigger() -> Any:
        async with await hook.get_async_conn() as client:
            return hook.get_waiter("model_trained", deferrable=True, client=client)

    waiter = asyncio.run(from_a_trigger())
    assert waiter.name == "ModelTrained"
    assert asyncio.iscoroutinefunction(waiter.wait)


def test_the_namespace_comes_from_the_connection(connect: Any) -> None:
    assert LookoutVisionHook(connect(client_token_namespace="plant-1")).client_token_namespace == "plant-1"
    assert LookoutVisionHook(connect()).client_token_namespace == ""
    assert LookoutVisionHook(None).client_token_namespace == ""


def test_the_polling_rate_comes_from_the_connection(connect: Any) -> None:
    assert LookoutVisionHook(connect(requests_per_second="0.5")).requests_per_second == 0.5
    assert LookoutVisionHook(connect()).requests_per_second == 5


@pytest.mark.parametrize("rate", ["0", 0, -1, "fast", "nan", "inf", []])
def test_an_invalid_rate_is_named(rate: Any, connect: Any) -> None:
    message = (
        f"requests_per_second of the connection 'lookoutvision_test' is {rate!r}; it must be a number above 0"
    )
    with pytest.raises(AirflowFailException, match=re.escape(message)):
        _ = LookoutVisionHook(connect(requests_per_second=rate)).requests_per_second


def test_tests_the_connection_by_calling_the_service(service: RecordingServer, connect: Any) -> None:
    hook = LookoutVisionHook(connect(endpoint_url=service.url))
    assert hook.test_connection() == (True, f"{service.url} answers in region eu-central-1.")
    assert service.requests[0].target == "/2020-11-20/projects?maxResults=1"


def test_says_why_the_connection_does_not_work(connect: Any) -> None:
    works, reason = LookoutVisionHook(connect()).test_connection()
    assert not works
    assert "2025-10-31" in reason
