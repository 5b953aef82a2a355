"""Batches that are interrupted, changed, repeated and throttled."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Mapping
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException
from airflow_instance import wait_for
from detection_runs import DetectionRuns, detecting, results_of
from service_processes import replicas
from task_context import context
from trained_models import Account, plate

from airflow_provider_lookoutvision.operators import adaptive_concurrency, batch
from airflow_provider_lookoutvision.testing.lossy_proxy import Exchange
from airflow_provider_lookoutvision.testing.service import running_service

pytest_plugins = ["detection_fixtures"]
pytestmark = pytest.mark.timeout(3600)


def test_after_a_success_a_retry_asks_nothing_and_a_clear_everything(
    runs: DetectionRuns, folder: str
) -> None:
    first = runs.run(folder)
    assert runs.detections == 12
    assert runs.run(folder) == first
    assert runs.detections == 12
    assert runs.run(folder, cleared=1) == first
    assert runs.detections == 24


def test_results_of_other_images_are_not_taken(runs: DetectionRuns, folder: str, s3: Any) -> None:
    """As after a run that was deleted and created again under its ID, before Airflow 3.3."""
    assert runs.run(folder)["total"] == 12
    s3.put_object(Bucket="images", Key=f"{folder}12.png", Body=plate(12, True))
    found = runs.run(folder)
    assert (found["total"], found["anomalous"]) == (13, 5)
    assert runs.detections == 25

    s3.put_object(Bucket="images", Key=f"{folder}00.png", Body=plate(50))  # one replaced by a clean one
    assert runs.run(folder)["anomalous"] == 4
    s3.delete_object(Bucket="images", Key=f"{folder}12.png")
    found = runs.run(folder)
    assert (found["total"], found["anomalous"]) == (12, 3)
    assert runs.run(folder) == found
    assert runs.detections == 25 + 13 + 12


def losing_after(count: int) -> Any:
    seen = 0

    def drop(exchange: Exchange) -> bool:
        nonlocal seen
        seen += detecting(exchange)
        return detecting(exchange) and seen > count

    return drop


@pytest.mark.parametrize("cleared", [0, 1], ids=["a retry", "a clear"])
def test_an_interrupted_batch_goes_on(
    runs: DetectionRuns, folder: str, s3: Any, cleared: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Meanwhile one image is replaced, one added and one deleted."""
    monkeypatch.setattr(adaptive_concurrency, "GIVE_UP_SECONDS", 0)
    monkeypatch.setattr(batch, "PART_RESULTS", 2)
    runs.drop = losing_after(7)
    with pytest.raises(AirflowException, match="has accepted no request"):
        runs.run(folder, max_workers=1)
    assert runs.detections == 7
    assert len(runs.parts(folder)) == 4

    runs.drop = lambda _: False
    s3.put_object(Bucket="images", Key=f"{folder}00.png", Body=plate(40))
    s3.put_object(Bucket="images", Key=f"{folder}02a.png", Body=plate(41, spotted=True))
    s3.delete_object(Bucket="images", Key=f"{folder}04.png")
    found = runs.run(folder, cleared)
    assert runs.detections == 7 + 5 + 2
    assert [line["source-ref"].rpartition("/")[2] for line in runs.lines(folder) if line["IsAnomalous"]] == [
        "02a.png",
        "03.png",
        "06.png",
        "09.png",
    ]
    assert (found["total"], found["failed"]) == (12, 0)
    assert runs.parts(folder) == []


def test_a_task_that_is_asked_to_stop_saves_its_results(runs: DetectionRuns, folder: str) -> None:
    """First the results that it has, since it may have no time for the response that is on its way."""
    operator = runs.operator(
        images_s3_prefix=f"s3://images/{folder}", results_s3_uri=results_of(folder), max_workers=1
    )
    seen = losing_after(5)
    saved: list[str] = []

    def be_slow_after_five(exchange: Exchange) -> bool:
        if seen(exchange):
            operator.on_kill()
            saved.extend(wait_for(lambda: runs.parts(folder), 300, "the results to be saved"))
        return False

    runs.drop = be_slow_after_five
    with pytest.raises(AirflowException, match="asked to stop"):
        operator.execute(context(folder))
    assert saved
    assert runs.detections == 6
    runs.run(folder)
    assert runs.detections == 12


def test_two_tries_at_once(runs: DetectionRuns, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "PART_RESULTS", 1)
    found: list[Mapping[str, Any]] = []
    tries = [threading.Thread(target=lambda: found.append(runs.run(folder, max_workers=2))) for _ in range(2)]
    for each in tries:
        each.start()
    for each in tries:
        each.join()
    assert len(found) == 2
    assert found[0] == found[1]
    assert [line["IsAnomalous"] for line in runs.lines(folder)] == [n % 3 == 0 for n in range(12)]


def test_unusable_images_fail_the_task_at_the_end_and_a_clear_asks_about_them_only(
    runs: DetectionRuns, folder: str, s3: Any
) -> None:
    s3.put_object(Bucket="images", Key=f"{folder}05.png", Body=b"hello")
    with pytest.raises(AirflowFailException, match=r"05\.png: Its content is neither.*clear this task"):
        runs.run(folder, on_invalid_image="fail")
    assert runs.detections == 11
    assert len(runs.lines(folder)) == 12
    s3.put_object(Bucket="images", Key=f"{folder}05.png", Body=plate(5))
    assert runs.run(folder, cleared=1, on_invalid_image="fail")["normal"] == 8
    assert runs.detections == 12
    assert runs.parts(folder) == []


def test_a_busy_service_gets_fewer_requests(s3: Any, connect: Any, folder: str) -> None:
    with running_service(flags=["--queue-per-unit", "1"]) as service:
        account = Account.of(service)
        account.project()
        version = account.train()
        runs = DetectionRuns(account, s3, connect)
        with runs.proxy:
            with pytest.raises(AirflowFailException, match="start it, and wait until it is HOSTED"):
                runs.run(folder)
            name = {"ProjectName": "plates", "ModelVersion": version}
            account.client.start_model(**name, MinInferenceUnits=1)
            [unit] = wait_for(lambda: replicas(service), 300, "the inference unit to begin")
            os.kill(unit, signal.SIGSTOP)
            with pytest.raises(AirflowException, match=r"STARTING_HOSTING.* let the task retry") as raised:
                runs.run(folder)
            assert not isinstance(raised.value, AirflowFailException)
            os.kill(unit, signal.SIGCONT)
            account.wait("model_hosted", "plates", version)

            def wake_up_when_it_is_busy(exchange: Exchange) -> bool:
                if exchange.status == 429:
                    os.kill(unit, signal.SIGCONT)
                return False

            runs.drop = wake_up_when_it_is_busy
            os.kill(unit, signal.SIGSTOP)
            assert runs.run(folder, max_workers=12)["failed"] == 0
            statuses = [exchange.status for exchange in runs.proxy.exchanges if detecting(exchange)]
    assert statuses.count(200) == 12
    assert statuses.count(429) > 0
