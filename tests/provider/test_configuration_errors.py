"""A connection that can't work: it fails at once, and the message names the connection and the setting."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from recording_server import Answer, RecordingServer, recording_server
from task_context import context

from airflow_provider_lookoutvision.hooks.endpoint import LookoutVisionConfigurationError
from airflow_provider_lookoutvision.hooks.lookoutvision import LookoutVisionHook
from airflow_provider_lookoutvision.operators.lookoutvision import (
    LookoutVisionCreateProjectOperator,
    LookoutVisionDeleteDatasetOperator,
)
from airflow_provider_lookoutvision.sensors.lookoutvision import LookoutVisionModelSensor
from airflow_provider_lookoutvision.triggers import lookoutvision as triggers
from airflow_provider_lookoutvision.triggers.lookoutvision import LookoutVisionWaiterTrigger
from airflow_provider_lookoutvision.waiters import polling

PAGE = Answer("<!DOCTYPE html><title>Log in</title>", headers={"Content-Type": "text/html"})
ANOTHER_API = Answer('{"detail": "hello"}')
FOREIGN = [
    PAGE,
    ANOTHER_API,
    Answer('["hello"]'),
    Answer(""),
    Answer("<html>", 405, {"Content-Type": "text/html"}),
    Answer("", 302, {"Location": "/login"}),
    Answer("<html>", 501, {"Content-Type": "text/html"}),
    Answer("<html>", 404, {"Content-Type": "text/html"}),
]


@pytest.fixture
def server() -> Iterator[RecordingServer]:
    with recording_server() as server:
        yield server


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triggers, "_FIRST_SECONDS", 0.0)


def create(conn_id: str) -> None:
    operator = LookoutVisionCreateProjectOperator(task_id="t", project_name="p", aws_conn_id=conn_id)
    operator.execute(context("run"))


def delete(conn_id: str) -> None:
    operator = LookoutVisionDeleteDatasetOperator(
        task_id="t", project_name="p", dataset_type="train", aws_conn_id=conn_id
    )
    operator.execute(context("run"))


def sense(conn_id: str) -> None:
    LookoutVisionModelSensor(task_id="t", project_name="p", aws_conn_id=conn_id).poke({})  # type: ignore[typeddict-item]


def trigger_event(conn_id: str) -> dict[str, Any]:
    trigger = LookoutVisionWaiterTrigger(
        waiter_name="ModelTrained",
        waiter_args={"ProjectName": "p", "ModelVersion": "1"},
        waiter_delay=1,
        waiter_max_attempts=60,
        aws_conn_id=conn_id,
    )

    async def first() -> dict[str, Any]:
        return dict((await anext(trigger.run())).payload)

    return asyncio.run(first())


# DeleteDataset's output has no members: any JSON object may be its answer.
CASES = [(call, answer) for call in (create, delete, sense) for answer in FOREIGN]
CASES.remove((delete, ANOTHER_API))


@pytest.mark.parametrize(("call", "answer"), CASES)
def test_what_is_no_lookout_for_vision_service(
    call: Any, answer: Answer, server: RecordingServer, connect: Any
) -> None:
    server.answer = lambda _: answer
    with pytest.raises(AirflowFailException) as raised:
        call(connect(endpoint_url=server.url))
    assert "Lookout for Vision service" in str(raised.value) or str(answer.status) in str(raised.value)
    assert len(server.requests) <= 3


@pytest.mark.parametrize("aiobotocore", [True, False])
def test_a_trigger_does_not_wait_for_a_web_page(
    aiobotocore: bool, server: RecordingServer, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not aiobotocore:
        monkeypatch.setattr(polling, "has_aiobotocore", lambda: False)
    server.answer = lambda _: PAGE
    event = trigger_event(connect(endpoint_url=server.url))
    assert (event["status"], event["retryable"]) == ("error", False)
    assert "does not answer as a Lookout for Vision service" in event["message"]


def test_the_test_of_a_connection_says_so(server: RecordingServer, connect: Any) -> None:
    server.answer = lambda _: PAGE
    works, message = LookoutVisionHook(connect(endpoint_url=server.url)).test_connection()
    assert not works
    assert "does not answer as a Lookout for Vision service" in message


@pytest.mark.parametrize(
    ("connection", "said"),
    [
        ({"endpoint_url": "127.0.0.1:8320"}, "must be a URL with its scheme"),
        ({"region_name": None}, "No region is configured: set region_name"),
        ({"login": None, "password": None}, "set an access key"),
        ({"endpoint_url": "https://{plain}"}, "does the service speak http"),
    ],
)
@pytest.mark.parametrize("call", [create, sense])
def test_a_setting_that_is_missing_or_wrong(
    call: Any,
    connection: dict[str, Any],
    said: str,
    server: RecordingServer,
    connect: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    plain = server.url.removeprefix("http://")
    given = {name: value and value.format(plain=plain) for name, value in connection.items()}
    with pytest.raises(AirflowFailException, match=said):
        call(connect(**{"endpoint_url": server.url, **given}))


def test_a_connection_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(LookoutVisionConfigurationError, match="There is no connection 'nowhere'"):
        create("nowhere")
