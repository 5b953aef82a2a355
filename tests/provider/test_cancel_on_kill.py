"""Tasks that a user or their worker's end kills while they wait: what goes on, what ends, what is kept."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from airflow.triggers.base import BaseTrigger
from airflow_and_service import Deployment
from airflow_instance import Run, wait_for
from airflow_rest import REST
from trained_models import Account, plate

from airflow_provider_lookoutvision.testing.lossy_proxy import Exchange, LossyProxy
from airflow_provider_lookoutvision.testing.s3 import running_s3
from airflow_provider_lookoutvision.testing.service import running_service

pytestmark = pytest.mark.timeout(1200)

SECONDS = 300
# More than are looked at, one a second in each of two threads, before the slowest machine tells the task.
IMAGES = 240


@dataclass(frozen=True)
class Killed:
    """A run whose tasks have all been acted on, and what they worked on.

    :param idle: the account of the trainings, which never begin.
    :param hosting: the account of the project whose model is started.
    :param detections: how many images the batch has asked about so far.
    """

    run: Run
    idle: Account
    hosting: Account
    detections: Callable[[], int]


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    with running_s3("images", "reports") as client:
        for number in range(IMAGES):
            client.put_object(Bucket="images", Key=f"{number:02}.png", Body=plate(number))
        yield client


def detecting(exchange: Exchange) -> bool:
    return exchange.path.endswith("/detect")


def slowly(exchange: Exchange) -> bool:
    if detecting(exchange):
        time.sleep(1.0)
    return False


@pytest.fixture(scope="module")
def killed(deployment: Deployment, s3: Any) -> Iterator[Killed]:
    hosting = Account.of(deployment.service)
    hosting.project()
    hosting.train()
    hosting.start("plates", hosting.train())
    with (
        running_service(flags=["--no-worker", "--max-trainings", "9"]) as service,
        LossyProxy(service.endpoint_url, lambda _: False) as idling,
        # Never tells that the model is hosted.
        LossyProxy(deployment.service.endpoint_url, lambda exchange: exchange.method == "GET") as deaf,
        LossyProxy(deployment.service.endpoint_url, slowly) as slow,
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

        def asked(model: str) -> int:
            paths = [exchange.path for exchange in idling.exchanges if exchange.method == "GET"]
            return sum(path.endswith(model.replace("/", "/models/")) for path in paths)

        def detections() -> int:
            return sum(map(detecting, slow.exchanges))

        waiting = {
            "train": lambda: asked("train/1"),
            "train_and_cancel": lambda: asked("train_and_cancel/1"),
            "train_and_cancel_deferred": lambda: asked("train_and_cancel_deferred/1") > 1,  # by the trigger
            "train_and_retry": lambda: asked("train_and_retry/2"),
            "start_and_cancel": lambda: hosting.statuses()["1"] == "HOSTED",
            "detect": lambda: detections() >= 4,
        }
        while waiting:
            for task_id in wait_for(lambda: [each for each in waiting if waiting[each]()], SECONDS, "tasks"):
                del waiting[task_id]
                mark_failed(run, task_id)
        yield Killed(run, idle, hosting, detections)


def mark_failed(run: Run, task_id: str) -> None:
    body = {"new_state": "failed"} | ({"dry_run": False} if REST.api.endswith("v1") else {})
    path = f"/dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances/{task_id}"
    run.airflow.request("PATCH", path, json=body)


def test_a_training_goes_on(killed: Killed) -> None:
    told = "The task is killed; the work goes on, since cancel_on_kill isn't set"
    wait_for(lambda: told in killed.run.log("train", 1), SECONDS, "the task to be killed")
    assert killed.idle.statuses("train") == {"1": "TRAINING"}


def test_a_training_is_cancelled_if_that_is_wanted(killed: Killed) -> None:
    wait_for(lambda: not killed.idle.statuses("train_and_cancel"), SECONDS, "the training to be cancelled")
    assert killed.run.task("train_and_cancel").state == "failed"


def test_a_deferred_training_is_cancelled_where_airflow_tells_triggers(killed: Killed) -> None:
    name = "train_and_cancel_deferred"
    if hasattr(BaseTrigger, "on_kill"):
        wait_for(lambda: not killed.idle.statuses(name), SECONDS, "the training to be cancelled")
    else:
        assert killed.idle.statuses(name) == {"1": "TRAINING"}
    assert killed.run.task(name).state == "failed"


def test_a_retry_trains_anew(killed: Killed) -> None:
    """The first try's worker was told to end; the second try was marked as failed."""
    wait_for(lambda: not killed.idle.statuses("train_and_retry"), SECONDS, "the trainings to be cancelled")
    assert killed.run.task("train_and_retry").try_number == 2
    told = "An earlier try was killed, and has cancelled the training of model train_and_retry/1"
    assert told in killed.run.log("train_and_retry", 2)


def test_a_model_is_stopped_if_that_is_wanted(killed: Killed) -> None:
    wait_for(lambda: killed.hosting.statuses()["1"] == "TRAINED", SECONDS, "the model to be stopped")


def test_a_batch_ends_soon_and_keeps_what_is_done(killed: Killed, s3: Any) -> None:
    def kept() -> int:
        parts = s3.list_objects_v2(Bucket="reports", Prefix="killed.jsonl.parts/").get("Contents", ())
        bodies = [s3.get_object(Bucket="reports", Key=part["Key"])["Body"].read() for part in parts]
        return len({json.loads(line)[0] for body in bodies for line in body.splitlines()})

    assert killed.run.task("detect").state == "failed"
    # While it goes on, there is always one under way.
    wait_for(lambda: kept() == killed.detections(), SECONDS, "the batch to end")
    assert killed.detections() < IMAGES
