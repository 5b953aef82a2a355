"""The waits of one event loop: they share a client and a rate limit, and all of them back off together."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from airflow_and_service import client_of

from airflow_provider_lookoutvision.hooks.lookoutvision import LookoutVisionHook
from airflow_provider_lookoutvision.testing.service import Service, running_service
from airflow_provider_lookoutvision.waiters import polling
from airflow_provider_lookoutvision.waiters.polling import RateLimiter, shared_polling_client
from airflow_provider_lookoutvision.waiters.transient import Backoff
from airflow_provider_lookoutvision.waiters.waiter import WaiterSpec

DATASET = {"ProjectName": "p", "DatasetType": "train"}
LOG = logging.getLogger(__name__)


def throttled(**headers: str) -> dict[str, Any]:
    return {
        "Error": {"Code": "ThrottlingException", "Message": "too much"},
        "ResponseMetadata": {"HTTPHeaders": headers},
    }


# -- the rate limit and the pauses -----------------------------------------------------------------------


def test_requests_are_sent_in_order_and_no_faster_than_the_rate() -> None:
    async def run() -> tuple[list[int], float]:
        limiter, order = RateLimiter(), []

        async def one(number: int) -> None:
            await limiter.acquire(rate=50)
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
def test_a_transient_error_makes_all_requests_pause(headers: Mapping[str, str], least: float) -> None:
    async def run() -> float:
        limiter = RateLimiter()
        await limiter.acquire(rate=1000)
        began = asyncio.get_running_loop().time()
        limiter.back_off(throttled(**headers))
        await asyncio.gather(limiter.acquire(rate=1000), limiter.acquire(rate=1000))
        return asyncio.get_running_loop().time() - began

    assert asyncio.run(run()) >= least


def pauses(backoff: Backoff, *responses: Mapping[str, Any]) -> list[float]:
    """The pauses after responses, each received when the pause before it has ended."""
    found, now = [], 1000.0
    for response in responses:
        if "Error" not in response:
            backoff.succeed()
            continue
        assert backoff.fail(response, now)
        found.append(backoff.resume_at - now)
        now = backoff.resume_at
    return found


def test_pauses_grow_until_a_success() -> None:
    found = pauses(Backoff(5.0), *[throttled()] * 5, {"ok": 1}, throttled())
    for pause, least in zip(found, (1, 2, 4, 5, 5, 1), strict=True):
        assert least <= pause <= 1.5 * least


def test_a_pause_is_at_least_as_long_as_the_service_says() -> None:
    after = {"retry-after": "20"}
    found = pauses(Backoff(60.0), throttled(**after), *[throttled()] * 5, throttled(**after))
    for pause, least in zip(found, (20, 2, 4, 8, 16, 32, 60), strict=True):
        assert least <= pause <= 1.5 * least


def test_errors_of_requests_under_way_belong_to_the_pause() -> None:
    backoff = Backoff(60.0)
    assert backoff.fail(throttled(), 1000.0)
    resume_at = backoff.resume_at
    assert not backoff.fail(throttled(), 1000.5)
    assert (backoff.failures, backoff.resume_at) == (1, resume_at)
    assert not backoff.fail(throttled(**{"retry-after": "30"}), 1000.5)
    assert (backoff.failures, backoff.resume_at) == (1, 1030.5)


# -- the client that is shared ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """A service with a project ``p`` that has an empty training dataset."""
    with running_service(flags=["--no-worker"]) as service:
        client = client_of(service)
        client.create_project(ProjectName="p")
        client.create_dataset(ProjectName="p", DatasetType="train")
        yield service


@pytest.fixture
def conn_id(service: Service, connect: Any) -> str:
    key = {"login": service.access_key_id, "password": service.secret_access_key}
    return str(connect(**key, endpoint_url=service.endpoint_url, requests_per_second=20))


def test_waits_on_one_connection_share(conn_id: str) -> None:
    def hook() -> LookoutVisionHook:
        return LookoutVisionHook(aws_conn_id=conn_id)

    async def run() -> None:
        async with shared_polling_client(hook, "one") as first:
            async with (
                shared_polling_client(hook, "one") as second,
                shared_polling_client(hook, "another") as other,
            ):
                assert first is second
                assert other is not first
            async with shared_polling_client(hook, "another") as later:
                assert later is not other
        async with shared_polling_client(hook, "one") as new:
            assert new is not first

    asyncio.run(run())


@pytest.mark.parametrize("way", ["aiobotocore", "threads"])
def test_many_waits_keep_the_rate_together(way: str, conn_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if way == "threads":
        monkeypatch.setattr(polling, "has_aiobotocore", lambda: False)
    spec = WaiterSpec("DatasetCreated", DATASET, delay=1, max_attempts=3600)

    async def run() -> float:
        began = time.monotonic()
        waits = [spec.run_async(lambda: LookoutVisionHook(conn_id), LOG, "key") for _ in range(30)]
        await asyncio.gather(*waits)
        return time.monotonic() - began

    assert asyncio.run(run()) >= 29 / 20
