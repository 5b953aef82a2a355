"""Datasets in real Airflow tasks: made once, waited for in the task and in a triggerer."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow_and_service import ATTEMPTS_OF_A_TRY, Deployment, LossyConnection, client_of, the_first
from airflow_instance import Run
from moto_s3 import running_s3

from airflow_provider_lookoutvision.idempotency import client_token
from airflow_provider_lookoutvision.testing.lossy_proxy import Exchange
from airflow_provider_lookoutvision.testing.service import running_service

pytestmark = [pytest.mark.timeout(3600), pytest.mark.usefixtures("_trigger_all")]


def line(key: str, label: str = "normal") -> str:
    metadata = {"class-name": label, "type": "groundtruth/image-classification"}
    return json.dumps({"source-ref": f"s3://images/{key}", "label": 0, "label-metadata": metadata}) + "\n"


def write_manifest(deployment: Deployment, name: str, text: str) -> str:
    bucket = deployment.service.data_dir / "buckets" / "images"
    bucket.mkdir(parents=True, exist_ok=True)
    (bucket / name).write_text(text)
    return f"s3://images/{name}"


@pytest.fixture(scope="module")
def manifest(deployment: Deployment) -> str:
    text = "".join(line(f"{number}.png", "anomaly" if number % 3 == 0 else "normal") for number in range(30))
    return write_manifest(deployment, "thirty.manifest", text)


def creating_dataset(exchange: Exchange) -> bool:
    return exchange.method == "POST" and exchange.path.endswith("/datasets")


STATS = {"Total": 30, "Labeled": 30, "Normal": 20, "Anomaly": 10}


@pytest.fixture(scope="module")
def run_in_the_task(deployment: Deployment, manifest: str) -> Run:
    return deployment.airflow.run(
        "create_dataset", conn_id=deployment.conn_id, project_name="2026_10", manifest_s3_uri=manifest
    )


def test_waits_and_returns_the_description(run_in_the_task: Run) -> None:
    run_in_the_task.wait_for_success()

    description = run_in_the_task.xcom("create")
    assert description["Status"] == "CREATE_COMPLETE"
    assert description["ProjectName"] == "2026_10", "the DAG renders native objects: a number, 202610"
    assert description["ImageStats"] == STATS
    assert description["CreationTimestamp"].endswith("+00:00")
    assert run_in_the_task.xcom("create", "ImageStats") == STATS


@pytest.fixture(scope="module")
def run_deferred(deployment: Deployment, manifest: str) -> Iterator[Run]:
    """The poll of the task is lost, so that it is deferred however quick the import is."""
    with deployment.losing(the_first(ATTEMPTS_OF_A_TRY, "GET")) as lossy:
        yield deployment.airflow.run(
            "create_dataset",
            conn_id=lossy.conn_id,
            project_name=2026,
            manifest_s3_uri=manifest,
            deferrable=True,
        )


def test_waits_in_a_triggerer(run_deferred: Run) -> None:
    run_deferred.wait_for_success()

    assert run_deferred.xcom("create_deferred")["ImageStats"] == STATS
    assert run_deferred.xcom("create_deferred")["ProjectName"] == "2026"
    assert run_deferred.task("create_deferred").try_number == 1
    assert "Pausing task as DEFERRED" in run_deferred.log("create_deferred", 1)


def test_a_triggerer_does_without_aiobotocore_and_takes_over(
    deployment: Deployment, manifest: str, tmp_path: Path
) -> None:
    """The wait begins in one triggerer, which is killed, and ends in one that has no aiobotocore."""
    held = threading.Event()
    polled = threading.Event()
    polls = 0

    def drop(exchange: Exchange) -> bool:
        nonlocal polls
        if exchange.method == "GET" and exchange.path.endswith("/datasets/train"):
            polls += 1
            if polls > ATTEMPTS_OF_A_TRY:  # the task polls once before it defers
                polled.set()
            return not held.is_set()
        return False

    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['aiobotocore'] = None\n")
    with deployment.losing(drop) as lossy:
        run = deployment.airflow.run(
            "create_dataset",
            conn_id=lossy.conn_id,
            project_name="moved",
            manifest_s3_uri=manifest,
            deferrable=True,
        )
        polled.wait()
        deployment.airflow.restart("triggerer", {"PYTHONPATH": str(tmp_path)})
        held.set()
        run.wait_for_success()
        log = run.logs("create_deferred")  # on a busy machine Airflow may lose a try, and wait again
        tokens = {exchange.client_token for exchange in lossy.proxy.exchanges if creating_dataset(exchange)}
    deployment.airflow.restart("triggerer", {})

    assert run.xcom("create_deferred")["ImageStats"] == STATS
    assert tokens == {client_token(run.context("create_deferred"))}
    assert "polling with aiobotocore" in log
    _, _, taken_over = log.partition("polling with threads")
    age = re.search(r"CREATE_COMPLETE, after 0:(\d+):(\d+)", taken_over)
    assert age, taken_over
    assert 60 * int(age[1]) + int(age[2]) >= 10, (
        "each triggerer sleeps for five seconds before its first poll"
    )


@pytest.fixture(scope="module")
def run_with_lost_answers(deployment: Deployment, manifest: str) -> Iterator[tuple[Run, LossyConnection]]:
    lost = 0

    def drop(exchange: Exchange) -> bool:
        nonlocal lost
        lost += creating_dataset(exchange)
        return creating_dataset(exchange) and lost <= ATTEMPTS_OF_A_TRY

    with deployment.losing(drop) as lossy:
        run = deployment.airflow.run(
            "create_dataset", conn_id=lossy.conn_id, project_name="lost-dataset", manifest_s3_uri=manifest
        )
        yield run, lossy


def test_a_lost_answer_makes_one_dataset(run_with_lost_answers: tuple[Run, LossyConnection]) -> None:
    run, lossy = run_with_lost_answers
    run.wait_for_success()

    assert run.task("create").try_number == 2
    requests = [exchange for exchange in lossy.proxy.exchanges if creating_dataset(exchange)]
    assert [exchange.dropped for exchange in requests] == [True, True, False]
    assert "This is a retry" not in run.log("create", 1)
    assert "This is a retry" in run.log("create", 2)
    assert "An earlier try created it at 20" in run.log("create", 2)
    assert len({exchange.client_token for exchange in requests}) == 1
    assert len({exchange.answer for exchange in requests}) == 1
    assert run.xcom("create")["ImageStats"] == STATS


@pytest.mark.parametrize("deferrable", [False, True], ids=["in the task", "deferred"])
def test_a_bad_manifest_fails_at_once_and_then_its_mend_works(
    deployment: Deployment, deferrable: bool
) -> None:
    name = f"mended-{deferrable}".lower()
    manifest = write_manifest(deployment, f"{name}.manifest", line("1.png") + "{}\n")
    run = deployment.airflow.run(
        "create_dataset",
        conn_id=deployment.conn_id,
        project_name=name,
        manifest_s3_uri=manifest,
        deferrable=deferrable,
    )
    task_id = "create_deferred" if deferrable else "create"
    assert run.wait() == "failed"
    assert run.task(task_id).try_number == 1
    assert "line 2: it has no source-ref" in run.log(task_id, 1)

    write_manifest(deployment, f"{name}.manifest", line("1.png"))
    run.clear(task_id)
    run.wait_for_success()
    assert run.xcom(task_id)["ImageStats"]["Total"] == 1


@pytest.fixture(scope="module")
def run_with_an_unreachable_store(deployment: Deployment) -> Iterator[Run]:
    flags = ["--buckets", "s3", "--s3-endpoint-url", "http://127.0.0.1:9"]
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}
    with running_service(flags=flags, environ=keys) as service:
        conn_id = deployment.airflow.connection(service.endpoint_url, service)
        yield deployment.airflow.run("create_dataset", conn_id=conn_id, project_name="unreachable")


def test_a_fault_of_the_service_is_tried_again(run_with_an_unreachable_store: Run) -> None:
    run = run_with_an_unreachable_store
    assert run.wait() == "failed"

    assert run.task("create").try_number == 2
    for try_number in (1, 2):
        assert "Service fault: s3://images/train.manifest can't be reached" in run.log("create", try_number)


@pytest.fixture(scope="module")
def run_to_clear(deployment: Deployment, manifest: str) -> Run:
    return deployment.airflow.run(
        "create_dataset", conn_id=deployment.conn_id, project_name="cleared-dataset", manifest_s3_uri=manifest
    )


def test_a_cleared_task_finds_its_dataset(run_to_clear: Run) -> None:
    run_to_clear.wait_for_success()
    made = run_to_clear.xcom("create", "CreationTimestamp")

    run_to_clear.clear("create")
    run_to_clear.wait_for_success()
    assert run_to_clear.task("create").try_number == 2
    assert run_to_clear.xcom("create", "CreationTimestamp") == made
    assert "created dataset cleared-dataset/train before its clear" in run_to_clear.log("create", 2)


@pytest.mark.parametrize(
    ("if_exists", "state"), [("fail", "failed"), ("skip", "success"), ("use", "success")]
)
def test_somebody_elses_dataset(deployment: Deployment, manifest: str, if_exists: str, state: str) -> None:
    name = f"others-{if_exists}"
    client = client_of(deployment.service)
    client.create_project(ProjectName=name)
    client.create_dataset(ProjectName=name, DatasetType="train")
    run = deployment.airflow.run(
        "create_dataset",
        conn_id=deployment.conn_id,
        project_name=name,
        manifest_s3_uri=manifest,
        if_exists=if_exists,
    )
    assert run.wait() == state
    assert run.task("create").try_number == 1
    assert (
        client.describe_dataset(ProjectName=name, DatasetType="train")["DatasetDescription"]["ImageStats"][
            "Total"
        ]
        == 0
    )


@pytest.fixture(scope="module")
def s3(deployment: Deployment) -> Iterator[str]:
    with running_s3("changes") as client:
        changes = line("from-s3.png") + line("0.png")
        client.put_object(Bucket="changes", Key="new.jsonl", Body=changes.encode())
        yield client.meta.endpoint_url


@pytest.fixture(scope="module")
def run_of_a_whole_life(deployment: Deployment, manifest: str, s3: str) -> Run:
    services = {
        "lookoutvision": {"endpoint_url": deployment.service.endpoint_url},
        "s3": {"endpoint_url": s3},
    }
    conn_id = deployment.airflow.connection("", deployment.service, service_config=services)
    changes = [json.loads(line("new.png")), json.loads(line("1.png", "anomaly"))]
    return deployment.airflow.run(
        "update_and_delete_dataset",
        conn_id=conn_id,
        project_name="a-life",
        manifest_s3_uri=manifest,
        changes=changes,
    )


def test_a_whole_life(deployment: Deployment, run_of_a_whole_life: Run) -> None:
    run = run_of_a_whole_life
    run.wait_for_success()

    assert [run.xcom("create", "DatasetType", map_index=index) for index in (0, 1)] == ["train", "test"]
    assert run.xcom("update")["ImageStats"] == {"Total": 31, "Labeled": 31, "Normal": 20, "Anomaly": 11}
    assert "DEFERRED" not in run.log("update", 1), "short work is waited for in the task"
    assert run.xcom("update_from_s3")["ImageStats"] == {
        "Total": 32,
        "Labeled": 32,
        "Normal": 22,
        "Anomaly": 10,
    }
    assert "is already gone" in run.log("delete_again", 1)
    assert not deployment.projects("a-life")


@pytest.fixture(scope="module")
def run_of_the_example(deployment: Deployment, manifest: str) -> Run:
    return deployment.airflow.run(
        "example_lookoutvision_dataset",
        aws_conn_id=deployment.conn_id,
        project_name="example-dataset",
        train_manifest=manifest,
        test_manifest=manifest,
    )


def test_the_example_works(deployment: Deployment, run_of_the_example: Run) -> None:
    run_of_the_example.wait_for_success()

    assert run_of_the_example.xcom("report") == {"train": STATS, "test": STATS}
    assert not deployment.projects("example-dataset")


@pytest.fixture(scope="module")
def run_against_a_restarting_service(deployment: Deployment, manifest: str) -> Iterator[tuple[Run, Any]]:
    """The service is unreachable for DescribeDataset at first, as while it is restarted."""
    with deployment.losing(the_first(2 * ATTEMPTS_OF_A_TRY, "GET")) as lossy:
        yield (
            deployment.airflow.run(
                "create_dataset",
                conn_id=lossy.conn_id,
                project_name="restarting",
                manifest_s3_uri=manifest,
                deferrable=True,
            ),
            lossy,
        )


def test_a_restart_of_the_service_does_not_end_the_wait(
    run_against_a_restarting_service: tuple[Run, Any],
) -> None:
    run, _ = run_against_a_restarting_service
    run.wait_for_success()

    log = run.log("create_deferred", 1)
    assert "Connection was closed before we received a valid response" in log
    assert "restarting/train: CREATE_COMPLETE" in log
