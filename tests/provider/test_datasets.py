"""Datasets in real Airflow tasks: made once, waited for in the task and in a triggerer."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow_and_service import ATTEMPTS_OF_A_TRY, Faulty, World, client_of, the_first
from airflow_instance import Run

from airflow_provider_lookoutvision.testing.lossy_proxy import Exchange
from airflow_provider_lookoutvision.testing.s3 import running_s3
from airflow_provider_lookoutvision.testing.service import running_service

pytestmark = [pytest.mark.timeout(600), pytest.mark.usefixtures("_trigger_all")]


def line(key: str, label: str = "normal") -> str:
    metadata = {"class-name": label, "type": "groundtruth/image-classification"}
    return json.dumps({"source-ref": f"s3://images/{key}", "label": 0, "label-metadata": metadata}) + "\n"


def write_manifest(world: World, name: str, text: str) -> str:
    bucket = world.service.data_dir / "buckets" / "images"
    bucket.mkdir(parents=True, exist_ok=True)
    (bucket / name).write_text(text)
    return f"s3://images/{name}"


@pytest.fixture(scope="module")
def manifest(world: World) -> str:
    text = "".join(line(f"{number}.png", "anomaly" if number % 3 == 0 else "normal") for number in range(30))
    return write_manifest(world, "thirty.manifest", text)


def creating_dataset(exchange: Exchange) -> bool:
    return exchange.method == "POST" and exchange.path.endswith("/datasets")


STATS = {"Total": 30, "Labeled": 30, "Normal": 20, "Anomaly": 10}


@pytest.fixture(scope="module")
def run_in_the_task(world: World, manifest: str) -> Run:
    return world.airflow.run(
        "create_dataset", conn_id=world.conn_id, project_name="in-task", manifest=manifest
    )


def test_waits_and_returns_the_description(run_in_the_task: Run) -> None:
    assert run_in_the_task.wait() == "success"

    description = run_in_the_task.xcom("create")
    assert description["Status"] == "CREATE_COMPLETE"
    assert description["ImageStats"] == STATS
    assert description["CreationTimestamp"].endswith("+00:00")
    assert run_in_the_task.xcom("create", "ImageStats") == STATS


@pytest.fixture(scope="module")
def run_deferred(world: World, manifest: str) -> Run:
    return world.airflow.run(
        "create_dataset", conn_id=world.conn_id, project_name="deferred", manifest=manifest, deferrable=True
    )


def test_waits_in_a_triggerer(run_deferred: Run) -> None:
    assert run_deferred.wait() == "success"

    assert run_deferred.xcom("create_deferred")["ImageStats"] == STATS
    assert run_deferred.task("create_deferred").try_number == 1
    assert "Pausing task as DEFERRED" in run_deferred.log("create_deferred", 1)


def test_a_triggerer_does_without_aiobotocore_and_takes_over(
    world: World, manifest: str, tmp_path: Path
) -> None:
    """The wait begins in one triggerer, which is killed, and ends in one that has no aiobotocore."""
    held = threading.Event()
    asked = threading.Event()

    def drop(exchange: Exchange) -> bool:
        if exchange.method == "GET" and exchange.path.endswith("/datasets/train"):
            asked.set()
            return not held.is_set()
        return False

    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['aiobotocore'] = None\n")
    with world.losing(drop) as faulty:
        run = world.airflow.run(
            "create_dataset", conn_id=faulty.conn_id, project_name="moved", manifest=manifest, deferrable=True
        )
        assert asked.wait(180)
        world.airflow.restart("triggerer", {"PYTHONPATH": str(tmp_path)})
        held.set()
        assert run.wait() == "success"
        log = run.log("create_deferred", 1)
    world.airflow.restart("triggerer", {})

    assert run.xcom("create_deferred")["ImageStats"] == STATS
    assert run.task("create_deferred").try_number == 1
    assert "asking with aiobotocore" in log
    assert "asking from threads" in log


@pytest.fixture(scope="module")
def run_with_lost_answers(world: World, manifest: str) -> Iterator[tuple[Run, Faulty]]:
    lost = 0

    def drop(exchange: Exchange) -> bool:
        nonlocal lost
        lost += creating_dataset(exchange)
        return creating_dataset(exchange) and lost <= ATTEMPTS_OF_A_TRY

    with world.losing(drop) as faulty:
        run = world.airflow.run(
            "create_dataset", conn_id=faulty.conn_id, project_name="lost-dataset", manifest=manifest
        )
        yield run, faulty


def test_a_lost_answer_makes_one_dataset(run_with_lost_answers: tuple[Run, Faulty]) -> None:
    run, faulty = run_with_lost_answers
    assert run.wait() == "success"

    assert run.task("create").try_number == 2
    requests = [exchange for exchange in faulty.proxy.exchanges if creating_dataset(exchange)]
    assert [exchange.dropped for exchange in requests] == [True, True, False]
    assert len({exchange.client_token for exchange in requests}) == 1
    assert len({exchange.answer for exchange in requests}) == 1
    assert run.xcom("create")["ImageStats"] == STATS


@pytest.mark.parametrize("deferrable", [False, True], ids=["in the task", "deferred"])
def test_a_bad_manifest_fails_at_once_and_then_its_mend_works(world: World, deferrable: bool) -> None:
    name = f"mended-{deferrable}".lower()
    manifest = write_manifest(world, f"{name}.manifest", line("1.png") + "{}\n")
    run = world.airflow.run(
        "create_dataset", conn_id=world.conn_id, project_name=name, manifest=manifest, deferrable=deferrable
    )
    task_id = "create_deferred" if deferrable else "create"
    assert run.wait() == "failed"
    assert run.task(task_id).try_number == 1
    assert "line 2: it has no source-ref" in run.log(task_id, 1)

    write_manifest(world, f"{name}.manifest", line("1.png"))
    run.clear(task_id)
    assert run.wait() == "success"
    assert run.xcom(task_id)["ImageStats"]["Total"] == 1


@pytest.fixture(scope="module")
def run_with_an_unreachable_store(world: World) -> Iterator[Run]:
    flags = ["--buckets", "s3", "--s3-endpoint-url", "http://127.0.0.1:9"]
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}
    with running_service(flags=flags, environ=keys) as service:
        conn_id = world.airflow.connection(service.endpoint_url, service)
        yield world.airflow.run("create_dataset", conn_id=conn_id, project_name="unreachable")


def test_a_fault_of_the_service_is_tried_again(run_with_an_unreachable_store: Run) -> None:
    run = run_with_an_unreachable_store
    assert run.wait() == "failed"

    assert run.task("create").try_number == 2
    for try_number in (1, 2):
        assert "Service fault: s3://images/train.manifest can't be reached" in run.log("create", try_number)


@pytest.fixture(scope="module")
def run_to_clear(world: World, manifest: str) -> Run:
    return world.airflow.run(
        "create_dataset", conn_id=world.conn_id, project_name="cleared-dataset", manifest=manifest
    )


def test_a_cleared_task_finds_its_dataset(run_to_clear: Run) -> None:
    assert run_to_clear.wait() == "success"
    made = run_to_clear.xcom("create", "CreationTimestamp")

    run_to_clear.clear("create")
    assert run_to_clear.wait() == "success"
    assert run_to_clear.task("create").try_number == 2
    assert run_to_clear.xcom("create", "CreationTimestamp") == made
    assert "made dataset cleared-dataset/train before it was cleared" in run_to_clear.log("create", 2)


@pytest.mark.parametrize(("if_exists", "state"), [("fail", "failed"), ("use", "success")])
def test_somebody_elses_dataset(world: World, manifest: str, if_exists: str, state: str) -> None:
    name = f"others-{if_exists}"
    client = client_of(world.service)
    client.create_project(ProjectName=name)
    client.create_dataset(ProjectName=name, DatasetType="train")
    run = world.airflow.run(
        "create_dataset", conn_id=world.conn_id, project_name=name, manifest=manifest, if_exists=if_exists
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
def s3(world: World) -> Iterator[str]:
    with running_s3("changes") as client:
        changes = line("from-s3.png") + line("0.png")
        client.put_object(Bucket="changes", Key="new.jsonl", Body=changes.encode())
        yield client.meta.endpoint_url


@pytest.fixture(scope="module")
def run_of_a_whole_life(world: World, manifest: str, s3: str) -> Run:
    services = {"lookoutvision": {"endpoint_url": world.service.endpoint_url}, "s3": {"endpoint_url": s3}}
    conn_id = world.airflow.connection("", world.service, service_config=services)
    changes = [json.loads(line("new.png")), json.loads(line("1.png", "anomaly"))]
    return world.airflow.run(
        "update_and_delete_dataset",
        conn_id=conn_id,
        project_name="a-life",
        manifest=manifest,
        changes=changes,
    )


def test_a_whole_life(world: World, run_of_a_whole_life: Run) -> None:
    run = run_of_a_whole_life
    assert run.wait() == "success"

    assert [run.xcom("create", "DatasetType", map_index=index) for index in (0, 1)] == ["train", "test"]
    assert run.xcom("update")["ImageStats"] == {"Total": 31, "Labeled": 31, "Normal": 20, "Anomaly": 11}
    assert run.xcom("update_from_s3")["ImageStats"] == {
        "Total": 32,
        "Labeled": 32,
        "Normal": 22,
        "Anomaly": 10,
    }
    assert "is already gone" in run.log("delete_again", 1)
    assert not world.projects("a-life")


@pytest.fixture(scope="module")
def run_of_the_example(world: World, manifest: str) -> Run:
    return world.airflow.run(
        "example_lookoutvision_dataset",
        aws_conn_id=world.conn_id,
        project_name="example-dataset",
        train_manifest=manifest,
        test_manifest=manifest,
    )


def test_the_example_works(world: World, run_of_the_example: Run) -> None:
    assert run_of_the_example.wait() == "success"

    assert run_of_the_example.xcom("report") == {"train": STATS, "test": STATS}
    assert not world.projects("example-dataset")


@pytest.fixture(scope="module")
def run_against_a_restarting_service(world: World, manifest: str) -> Iterator[tuple[Run, Any]]:
    """The service is unreachable for DescribeDataset at first, as while it is restarted."""
    with world.losing(the_first(2 * ATTEMPTS_OF_A_TRY, "GET")) as faulty:
        yield (
            world.airflow.run(
                "create_dataset",
                conn_id=faulty.conn_id,
                project_name="restarting",
                manifest=manifest,
                deferrable=True,
            ),
            faulty,
        )


def test_a_restart_of_the_service_does_not_end_the_wait(
    run_against_a_restarting_service: tuple[Run, Any],
) -> None:
    run, _ = run_against_a_restarting_service
    assert run.wait() == "success"

    log = run.log("create_deferred", 1)
    assert "Connection was closed before we received a valid response" in log
    assert "restarting/train: CREATE_COMPLETE" in log
