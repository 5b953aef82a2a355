"""A batch as a Ray Data job, beside the same batch through the API."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException
from drawn_parts import drawn
from polling import until
from task_context import context, unguarded

from example_dags.demo.local_airflow import LocalAirflow

if not os.environ.get("LOOKOUTVISION_TEST_CLUSTER"):  # which `make cluster` sets, and it installs Ray
    pytest.importorskip("ray", reason="Ray is not installed: make cluster")

from ray_plant import BUCKET, Plant
from services import REGION

from airflow_provider_lookoutvision.hooks.ray_jobs import RayJobs
from airflow_provider_lookoutvision.operators.lookoutvision import LookoutVisionDetectAnomaliesOperator

pytest_plugins = ["ray_plant"]

PROJECT = "batches"
IMAGES = "to-look-at/"
DETECTOR = "MapWorker"  # of the actors of Ray Data, in the names of their processes
DAG = f"""
from airflow.providers.common.compat.sdk import DAG
from airflow_provider_lookoutvision.operators.lookoutvision import LookoutVisionDetectAnomaliesOperator

with DAG("batches"):
    LookoutVisionDetectAnomaliesOperator(
        task_id="detect",
        s3_conn_id="images",
        engine="ray",
        ray_conn_id="ray",
        project_name="{PROJECT}",
        model_version="1",
        images_s3_prefix="s3://{BUCKET}/{IMAGES}",
        results_s3_uri="s3://{BUCKET}/results/airflow.jsonl",
    )
"""


@pytest.fixture(scope="module")
def hosted(plant: Plant) -> Iterator[Plant]:
    """A hosted model, and images: twenty parts, a third of them scratched, and three that can't be used."""
    plant.project(PROJECT)
    plant.train(PROJECT)
    plant.until(PROJECT, "TRAINED", "TRAINING")
    for number in range(20):
        part = drawn(number, scratched=number % 3 == 0)[0]
        plant.s3.put_object(Bucket=BUCKET, Key=f"{IMAGES}{number:02}.jpg", Body=part)
    for name, content in (("cut.jpg", part[:900]), ("none.png", b"no image"), ("none.txt", b"")):
        plant.s3.put_object(Bucket=BUCKET, Key=f"{IMAGES}{name}", Body=content)
    plant.client().start_model(ProjectName=PROJECT, ModelVersion="1", MinInferenceUnits=1)
    plant.until(PROJECT, "HOSTED", "STARTING_HOSTING")
    yield plant
    # It would be in the way of other tests' trainings, which need a node of their own.
    plant.client().stop_model(ProjectName=PROJECT, ModelVersion="1")
    plant.until(PROJECT, "TRAINED", "STOPPING_HOSTING")


@pytest.fixture(autouse=True)
def _connections(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoints = {"lookoutvision": plant.services[0].endpoint_url, "s3": plant.s3.meta.endpoint_url}
    service = {
        "conn_type": "aws",
        "login": plant.key.access_key_id,
        "password": plant.key.secret_access_key,
        "extra": {
            "region_name": REGION,
            "service_config": {name: {"endpoint_url": url} for name, url in endpoints.items()},
        },
    }
    s3 = {
        "conn_type": "aws",
        "login": os.environ["AWS_ACCESS_KEY_ID"],
        "password": os.environ["AWS_SECRET_ACCESS_KEY"],
        "extra": {"region_name": "us-east-1", "endpoint_url": plant.s3.meta.endpoint_url},
    }
    monkeypatch.setenv("AIRFLOW_CONN_SERVICE", json.dumps(service))
    monkeypatch.setenv("AIRFLOW_CONN_IMAGES", json.dumps(s3))
    monkeypatch.setenv("AIRFLOW_CONN_RAY", json.dumps({"conn_type": "http", "host": plant.dashboard}))


def operator(results: str, images: str = IMAGES, **parameters: Any) -> LookoutVisionDetectAnomaliesOperator:
    return LookoutVisionDetectAnomaliesOperator(
        task_id="task",
        aws_conn_id="service",
        s3_conn_id="images",
        ray_conn_id="ray",
        project_name=PROJECT,
        model_version="1",
        images_s3_prefix=f"s3://{BUCKET}/{images}",
        results_s3_uri=f"s3://{BUCKET}/results/{results}.jsonl",
        masks_s3_prefix=f"s3://{BUCKET}/masks/",
        max_workers=2,
        **parameters,
    )


def run(results: str, **parameters: Any) -> dict[str, Any]:
    """The summary of a batch, as the task instance of its results."""
    return dict(unguarded(operator(results, **parameters), context(results)))


def written(plant: Plant, results: str) -> tuple[list[Any], str]:
    """The lines of the results, and the digest of the listing."""
    found = plant.s3.get_object(Bucket=BUCKET, Key=f"results/{results}.jsonl")
    lines = [json.loads(line) for line in found["Body"].read().splitlines()]
    return lines, found["Metadata"]["listing-digest"]


def without_names(line: dict[str, Any]) -> dict[str, Any]:
    """A line without what differs between two images that are the same."""
    return {name: value for name, value in line.items() if not name.endswith("-ref")}


def test_a_batch_on_the_cluster_has_the_results_of_one_through_the_api(hosted: Plant) -> None:
    maps = {"store_heatmaps": True, "heatmaps_s3_prefix": f"s3://{BUCKET}/maps/"}
    summaries = {engine: run(engine, engine=engine, **maps) for engine in ("service", "ray")}

    assert written(hosted, "ray") == written(hosted, "service")
    for summary in summaries.values():
        summary.pop("results_s3_uri")
    assert summaries["ray"] == summaries["service"]
    assert summaries["ray"]["total"] == 22
    assert summaries["ray"]["failed"] == 2
    assert summaries["ray"]["anomalous"] > 0
    assert summaries["ray"]["anomalous"] < 20
    assert "Contents" not in hosted.s3.list_objects_v2(Bucket=BUCKET, Prefix="results/ray.jsonl.parts/")


def test_a_batch_goes_on_where_another_ended_and_has_the_same_gates(
    hosted: Plant, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(AirflowFailException, match="min_images is 100"):
        run("gated", engine="service", min_images=100)
    hosted.s3.put_object(Bucket=BUCKET, Key=f"{IMAGES}new.jpg", Body=drawn(1)[0])
    caplog.set_level(logging.INFO)
    with pytest.raises(AirflowFailException, match="21 images have a verdict; min_images is 100"):
        run("gated", engine="ray", min_images=100)
    assert "20 results are there from earlier tries" in caplog.text
    assert len(written(hosted, "gated")[0]) == 23
    hosted.s3.delete_object(Bucket=BUCKET, Key=f"{IMAGES}new.jpg")


def test_a_task_that_is_killed_stops_its_job_and_a_retry_goes_on(hosted: Plant) -> None:
    killed = operator("killed", engine="ray")
    stopping = RayJobs._relay

    def relay(self: RayJobs, job: str, shown: int) -> int:
        killed.on_kill()
        return stopping(self, job, shown)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RayJobs, "_relay", relay)
        with pytest.raises(AirflowException, match="asked to stop"):
            unguarded(killed, context("killed"))
    assert run("killed", engine="ray")["total"] == 22


def test_a_node_that_is_lost_in_the_middle(hosted: Plant) -> None:
    count = 1000  # twice as many as are processed when the first results are saved, at the latest
    parts = [drawn(number, scratched=number % 3 == 0)[0] for number in range(20)]
    for number in range(count):
        hosted.s3.put_object(Bucket=BUCKET, Key=f"many/{number:04}.jpg", Body=parts[number % 20])

    def saved() -> int:
        return int(hosted.s3.list_objects_v2(Bucket=BUCKET, Prefix="results/lost.jsonl.parts/")["KeyCount"])

    many = {"images": "many/", "engine": "ray"}
    with ThreadPoolExecutor(1) as executor:
        batch = executor.submit(run, "lost", **many)
        nodes = until(lambda: hosted.where(DETECTOR), lambda found: len(found) >= 2)
        until(saved, bool)
        assert not batch.done()
        hosted.lose(next(node for node in nodes if node is not hosted.head))
        summary = batch.result()
    hosted.add_node()
    assert (summary["total"], summary["failed"]) == (count, 0)
    lines = written(hosted, "lost")[0]
    assert [line["source-ref"][-8:-4] for line in lines] == [f"{number:04}" for number in range(count)]
    once = {number: lines[number] for number in range(20)}
    for number, line in enumerate(lines):
        assert without_names(line) == without_names(once[number % 20])


def test_in_an_airflow(hosted: Plant, tmp_path: Path) -> None:
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "batches.py").write_text(DAG)
    airflow = LocalAirflow(tmp_path / "airflow", tmp_path / "dags")
    airflow.test_dag("batches", json.loads(os.environ["AIRFLOW_CONN_SERVICE"]))
    summary = airflow.result("batches", "detect")
    assert (summary["total"], summary["failed"]) == (22, 2)
    assert len(written(hosted, "airflow")[0]) == 22


def test_a_model_that_no_service_of_the_cluster_has(hosted: Plant) -> None:
    stranger = operator("stranger", engine="ray")
    results_of = stranger._results_of
    stranger._results_of = lambda description: (  # type: ignore[method-assign]
        results_of({**description, "ModelArn": "arn:aws:lookoutvision:us-east-1:1:model/other/1"})
    )
    with pytest.raises(AirflowFailException, match="No service on this Ray cluster has the model"):
        unguarded(stranger, context("stranger"))
    until(lambda: hosted.where("batch_job"), lambda places: not places)
