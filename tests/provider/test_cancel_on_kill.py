"""Tasks killed while they wait, by a user or with their worker: what goes on, ends, or is saved."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from airflow.triggers.base import BaseTrigger
from airflow_and_service import Deployment
from airflow_instance import Run, wait_for
from airflow_rest import REST
from moto_s3 import running_s3
from trained_models import Account, plate

from airflow_provider_lookoutvision.testing.lossy_proxy import Exchange, LossyProxy
from airflow_provider_lookoutvision.testing.service import running_service

pytestmark = pytest.mark.timeout(3600)

# A busy machine takes long; this ends a test that would never end otherwise.
SECONDS = 900
IMAGES = 12
# Detections that are answered before the batch is killed, and those that its two threads have under way then.
BEFORE_THE_KILL, UNDER_WAY = 4, 2


@dataclass(frozen=True)
class Killed:
    """A run whose tasks have all been acted on, and what they worked on.

    :param idle: the account of the trainings, which never begin.
    :param hosting: the account of the project whose model is started.
    :param detections: how many detections of the batch have been answered.
    :param answer_all: lets the service answer the detections that it holds back.
    """

    run: Run
    idle: Account
    hosting: Account
    detections: Callable[[], int]
    answer_all: threading.Event


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    with running_s3("images", "reports") as client:
        for number in range(IMAGES):
            client.put_object(Bucket="images", Key=f"{number:02}.png", Body=plate(number))
        yield client


def detecting(exchange: Exchange) -> bool:
    return exchange.path.endswith("/detect")


@pytest.fixture(scope="module")
def killed(deployment: Deployment, s3: Any) -> Iterator[Killed]:
    hosting = Account.of(deployment.service)
    hosting.project()
    hosting.train()
    hosting.start("plates", hosting.train())
    answer_all, begun = threading.Event(), itertools.count(1)

    def hold_back(exchange: Exchange) -> bool:
        if detecting(exchange) and next(begun) > BEFORE_THE_KILL:
            answer_all.wait()
        return False

    with (
        running_service(flags=["--no-worker", "--max-trainings", "9"]) as service,
        LossyProxy(service.endpoint_url, lambda _: False) as idling,
        # Never answers that the model is hosted.
        LossyProxy(deployment.service.endpoint_url, lambda exchange: exchange.method == "GET") as deaf,
        LossyProxy(deployment.service.endpoint_url, hold_back) as slow,
    ):
        idle = Account.of(service)
        for name in ("train", "train_and_cancel", "train_and_cancel_deferred", "train_and_retry"):
            idle.client.create_project(ProjectName=name)
            idle.client.create_dataset(ProjectName=name, DatasetType="train")
        services = {"lookoutvision": slow.endpoint_url, "s3": s3.meta.endpoint_url}
        run = deployment.airflow.run(
            "be_killed",
            idle=deployment.airflow.connection(idling.endpoint_url, idle.key),
            deaf=deployment.airflow.connection(deaf.endpoint_url, hosting.key),
            slow=deployment.airflow.connection(
                slow.endpoint_url,
                hosting.key,
                service_config={name: {"endpoint_url": url} for name, url in services.items()},
            ),
        )

        def polls(model: str) -> int:
            paths = [exchange.path for exchange in idling.exchanges if exchange.method == "GET"]
            return sum(path.endswith(model.replace("/", "/models/")) for path in paths)

        def detections() -> int:
            return sum(map(detecting, slow.exchanges))

        waiting = {
            "train": lambda: polls("train/1"),
            "train_and_cancel": lambda: polls("train_and_cancel/1"),
            "train_and_cancel_deferred": lambda: polls("train_and_cancel_deferred/1") > 1,  # by the trigger
            "train_and_retry": lambda: polls("train_and_retry/2"),
            "start_and_cancel": lambda: hosting.statuses()["1"] == "HOSTED",
            "detect": lambda: detections() == BEFORE_THE_KILL,
        }
        try:
            while waiting:
                ready = wait_for(lambda: [each for each in waiting if waiting[each]()], SECONDS, str(waiting))
                for task_id in ready:
                    del waiting[task_id]
                    mark_failed(run, task_id)
            yield Killed(run, idle, hosting, detections, answer_all)
        finally:
            answer_all.set()


def mark_failed(run: Run, task_id: str) -> None:
    body = {"new_state": "failed"} | ({"dry_run": False} if REST.api.endswith("v1") else {})
    path = f"/dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances/{task_id}"
    run.airflow.request("PATCH", path, json=body)


def test_a_training_goes_on(killed: Killed) -> None:
    line = "The task is killed; the work goes on, since cancel_on_kill isn't set"
    wait_for(lambda: line in killed.run.log("train", 1), SECONDS, "the task to be killed")
    assert killed.idle.statuses("train") == {"1": "TRAINING"}


def test_a_training_is_cancelled_if_that_is_wanted(killed: Killed) -> None:
    wait_for(lambda: not killed.idle.statuses("train_and_cancel"), SECONDS, "the training to be cancelled")
    assert killed.run.task("train_and_cancel").state == "failed"


def test_a_deferred_training_is_cancelled_where_airflow_kills_triggers(killed: Killed) -> None:
    name = "train_and_cancel_deferred"
    if hasattr(BaseTrigger, "on_kill"):
        wait_for(lambda: not killed.idle.statuses(name), SECONDS, "the training to be cancelled")
    else:
        assert killed.idle.statuses(name) == {"1": "TRAINING"}
    assert killed.run.task(name).state == "failed"


def test_a_retry_trains_anew(killed: Killed) -> None:
    """The first try's process got a SIGTERM; the second try was marked as failed."""
    wait_for(lambda: not killed.idle.statuses("train_and_retry"), SECONDS, "the trainings to be cancelled")
    assert killed.run.task("train_and_retry").try_number == 2
    line = "An earlier try was killed, and has cancelled the training of model train_and_retry/1"
    assert line in killed.run.log("train_and_retry", 2)


def test_a_model_is_stopped_if_that_is_wanted(killed: Killed) -> None:
    wait_for(lambda: killed.hosting.statuses()["1"] == "TRAINED", SECONDS, "the model to be stopped")


def test_a_batch_stops_and_keeps_its_results(killed: Killed, s3: Any) -> None:
    def saved() -> int:
        parts = s3.list_objects_v2(Bucket="reports", Prefix="killed.jsonl.parts/").get("Contents", ())
        bodies = [s3.get_object(Bucket="reports", Key=part["Key"])["Body"].read() for part in parts]
        return len({json.loads(line)[0] for body in bodies for line in body.splitlines()})

    assert killed.run.task("detect").state == "failed"
    line = "The task ends early: the results so far are saved"
    wait_for(lambda: line in killed.run.log("detect", 1), SECONDS, "the batch to be killed")
    killed.answer_all.set()
    wait_for(lambda: saved() >= BEFORE_THE_KILL, SECONDS, "the results to be saved")
    assert killed.detections() <= BEFORE_THE_KILL + UNDER_WAY < IMAGES
