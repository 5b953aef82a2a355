"""How many requests a service that is busy, away or at fault gets, and when the task gives up."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException
from botocore.exceptions import ClientError, ConnectTimeoutError

from airflow_provider_lookoutvision.operators import adaptive_concurrency
from airflow_provider_lookoutvision.operators.adaptive_concurrency import AdaptiveConcurrency


def refusal(code: str, status: int, **headers: str) -> ClientError:
    answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": headers}}
    return ClientError(answer, "DetectAnomalies")


class Clock:
    """Time that passes only while a request waits."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(adaptive_concurrency, "time", SimpleNamespace(monotonic=lambda: self.now))
        self.concurrency = AdaptiveConcurrency(8)
        monkeypatch.setattr(self.concurrency._slots, "wait", self._wait)

    def _wait(self, timeout: float) -> None:
        self.now += timeout


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_a_pause_is_as_long_as_the_service_says(clock: Clock) -> None:
    answers = iter([refusal("ThrottlingException", 429, **{"retry-after": "20"}), "done"])
    assert clock.concurrency.call(lambda: answered(next(answers)), "it") == "done"
    assert 20 <= clock.now <= 30


def test_pauses_grow_until_it_gives_up(clock: Clock) -> None:
    sent: list[float] = []

    def away() -> None:
        sent.append(clock.now)
        raise ConnectTimeoutError(endpoint_url="http://localhost:9")

    with pytest.raises(AirflowException, match="has accepted no request for 300 s"):
        clock.concurrency.call(away, "it")
    assert 300 <= clock.now <= 345
    pauses = [later - earlier for earlier, later in pairwise(sent)]
    for pause, least in zip(pauses, (1, 2, 4, 8, 16, 30), strict=False):
        assert least <= pause <= 1.5 * least
    assert max(pauses) <= 45


def test_a_request_that_fails_again_and_again_is_given_up(clock: Clock) -> None:
    answers = [refusal("InternalServerException", 500)] * 5
    with pytest.raises(AirflowException, match=r"failed 5 times on s3://images/a\.png"):
        clock.concurrency.call(lambda: answered(answers.pop()), "s3://images/a.png")
    assert answers == []


def test_a_refusal_halves_what_is_under_way_and_successes_bring_it_back(clock: Clock) -> None:
    answers = iter([refusal("ThrottlingException", 429), *range(10_000)])
    limits = []
    for _ in range(500):
        clock.concurrency.call(lambda: answered(next(answers)), "it")
        limits.append(clock.concurrency._limit)
    assert sorted(limits) == limits
    assert (limits[0], limits[98], limits[99], limits[-1]) == (4, 4, 5, 8)


def answered(answer: Any) -> Any:
    if isinstance(answer, Exception):
        raise answer
    return answer
