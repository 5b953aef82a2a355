"""Waits that share a client and a pace, and end when they should, a triggerer's restart or not."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import pytest

from airflow_provider_lookoutvision import asking
from airflow_provider_lookoutvision.asking import Pace, asker
from airflow_provider_lookoutvision.hooks.lookoutvision import LookoutVisionHook
from airflow_provider_lookoutvision.model import teach
from airflow_provider_lookoutvision.testing.service import Service, running_service
from airflow_provider_lookoutvision.triggers.lookoutvision import LookoutVisionWaiterTrigger
from airflow_provider_lookoutvision.waiting import Wait, WaitFailed

DATASET = {"ProjectName": "p", "DatasetType": "train"}
LOG = logging.getLogger(__name__)


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """A service with a project ``p`` that has an empty training dataset."""
    with running_service(flags=["--no-worker"]) as service:
        session = boto3.Session(service.access_key_id, service.secret_access_key, region_name="eu-central-1")
        client = teach(session).client("lookoutvision", endpoint_url=service.endpoint_url)
        client.create_project(ProjectName="p")
        client.create_dataset(ProjectName="p", DatasetType="train")
        yield service


@pytest.fixture
def conn_id(service: Service, connect: Any) -> str:
    key = {"login": service.access_key_id, "password": service.secret_access_key}
    return str(connect(**key, endpoint_url=service.endpoint_url, requests_per_second=20))


@pytest.fixture(params=["aiobotocore", "threads"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "threads":
        monkeypatch.setattr(asking, "has_aiobotocore", lambda: False)
    return str(request.param)


def throttled(**headers: str) -> dict[str, Any]:
    return {
        "Error": {"Code": "ThrottlingException", "Message": "too much"},
        "ResponseMetadata": {"HTTPHeaders": headers},
    }


def test_turns_come_in_order_and_no_faster_than_the_rate() -> None:
    async def run() -> tuple[list[int], float]:
        pace, order = Pace(rate=50), []

        async def one(number: int) -> None:
            await pace.turn()
            order.append(number)

        began = asyncio.get_running_loop().time()
        await asyncio.gather(*map(one, range(10)))
        return order, asyncio.get_running_loop().time() - began

    order, seconds = asyncio.run(run())
    assert order == list(range(10))
    assert seconds >= 9 / 50


@pytest.mark.parametrize(
    ("headers", "least"), [({"retry-after": "1"}, 1.0), ({}, 1.0), ({"retry-after": "x"}, 1.0)]
)
def test_trouble_makes_everybody_pause(headers: Mapping[str, str], least: float) -> None:
    async def run() -> float:
        pace = Pace(rate=1000)
        await pace.turn()
        pace.heed(throttled(**headers))
        began = asyncio.get_running_loop().time()
        await asyncio.gather(pace.turn(), pace.turn())
        return asyncio.get_running_loop().time() - began

    assert asyncio.run(run()) >= least


def test_an_answer_ends_the_trouble() -> None:
    async def run() -> list[float]:
        pace, pauses = Pace(rate=1000), []
        for answer in (throttled(), throttled(), {"ok": 1}, throttled()):
            pace.heed(answer)
            pauses.append(pace._pause)
        return pauses

    assert asyncio.run(run()) == [1, 2, 0, 1]


def test_waits_on_one_connection_share(conn_id: str) -> None:
    hook = LookoutVisionHook(aws_conn_id=conn_id)

    async def run() -> None:
        async with asker(hook, "one") as first:
            async with asker(hook, "one") as second, asker(hook, "another") as other:
                assert first is second
                assert other is not first
            async with asker(hook, "another") as later:
                assert later is not other
        async with asker(hook, "one") as new:
            assert new is not first

    asyncio.run(run())


def test_many_waits_keep_the_pace_together(way: str, conn_id: str) -> None:
    async def one(trigger: LookoutVisionWaiterTrigger) -> Any:
        return [event.payload async for event in trigger.run()]

    async def run() -> tuple[list[Any], float]:
        began = time.monotonic()
        triggers = [
            LookoutVisionWaiterTrigger(
                waiter="DatasetCreated",
                arguments=DATASET,
                waiter_delay=1,
                waiter_max_attempts=60,
                aws_conn_id=conn_id,
            )
            for _ in range(30)
        ]
        return await asyncio.gather(*map(one, triggers)), time.monotonic() - began

    events, seconds = asyncio.run(run())
    assert events == [[{"status": "success"}]] * 30
    assert seconds >= 29 / 20


def test_a_wait_ends_at_its_time_however_slow_the_pace(conn_id: str) -> None:
    wait = Wait("DatasetUpdated", DATASET, delay=0.2, max_attempts=10_000)
    hook = LookoutVisionHook(aws_conn_id=conn_id)
    with pytest.raises(WaitFailed, match="asked 1 times"):
        asyncio.run(wait.run_async(hook, LOG, "key", ends_at=time.time() - 1))


def test_a_trigger_that_is_made_again_ends_when_it_would_have(conn_id: str) -> None:
    fields: dict[str, Any] = {
        "waiter": "DatasetCreated",
        "arguments": DATASET,
        "waiter_delay": 5,
        "waiter_max_attempts": 720,
        "aws_conn_id": conn_id,
    }
    path, made = LookoutVisionWaiterTrigger(**fields).serialize()
    assert time.time() + 3500 < made["ends_at"] < time.time() + 3601
    assert LookoutVisionWaiterTrigger(**made).serialize() == (path, made)
    assert Path(path).suffix == ".LookoutVisionWaiterTrigger"
