"""The events of a task's outlets: what it made, and nothing that it did not."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import Asset
from airflow_and_service import Deployment, client_of
from airflow_instance import Run
from trained_models import plate

from airflow_provider_lookoutvision.assets import (
    asset_uri,
    dataset_uri,
    emit_asset_event,
    models_uri,
    verdicts_uri,
)

pytestmark = pytest.mark.timeout(3600)

ARN = "arn:aws:lookoutvision:us-east-1:123456789012:model/circuit-boards/1"


def test_the_uri_is_the_arns() -> None:
    project = ARN.replace("model/circuit-boards/1", "project/project")
    uris = {
        "project/project": asset_uri(project),
        "model/circuit-boards": models_uri(ARN),
        "model/circuit-boards/stage=production": models_uri(ARN, "stage=production"),
        "dataset/project/train": dataset_uri(project, "train"),
        "verdicts/circuit-boards": verdicts_uri(ARN),
    }
    for name, uri in uris.items():
        assert uri == f"lookoutvision://us-east-1/123456789012/{name}" == Asset(uri).uri


@pytest.fixture(scope="module")
def run(deployment: Deployment) -> Run:
    folder = deployment.service.data_dir / "buckets" / "labelled"
    folder.mkdir(parents=True)
    for name in ("good.png", "bad.png"):
        (folder / name).write_bytes(plate(1, spotted=name == "bad.png"))
    return deployment.airflow.run("create_and_announce", conn_id=deployment.conn_id, project_name="announced")


def test_an_alias_gets_the_asset_and_an_asset_the_extra(run: Run) -> None:
    run.wait_for_success()

    project = run.xcom("create")
    uri = "lookoutvision://eu-central-1/123456789012/project/announced"
    events = [event for event in run.asset_events() if "/dataset/" not in event[0]]
    assert sorted(events) == [(uri, project), ("s3://somewhere/projects", {"uri": uri, **project})]


def test_a_dataset_has_a_link(run: Run, deployment: Deployment) -> None:
    run.wait_for_success()

    project = f"{deployment.service.endpoint_url}/console/projects/announced"
    assert run.links("create") == {"Project": project}
    for task_id in ("create_dataset", "use_dataset", "label"):
        assert run.links(task_id) == {"Project": project, "Dataset": f"{project}/datasets/train"}


def test_a_dataset_is_announced_as_it_is_then(run: Run, deployment: Deployment) -> None:
    run.wait_for_success()

    events = [event for event in run.asset_events() if "/dataset/" in event[0]]
    assert {uri for uri, _ in events} == {"lookoutvision://eu-central-1/123456789012/dataset/announced/train"}
    created, labelled = (extra for _, extra in events)
    assert (created["ProjectName"], created["DatasetType"]) == ("announced", "train")
    assert created["ImageStats"]["Total"] == 0
    assert {name: labelled["ImageStats"][name] for name in ("Total", "Normal", "Anomaly")} == {
        "Total": 2,
        "Normal": 1,
        "Anomaly": 1,
    }
    names = {"ProjectName": "announced", "DatasetType": "train"}
    entries = client_of(deployment.service).list_dataset_entries(**names)["DatasetEntries"]
    assert [json.loads(entry)["anomaly-label-metadata"]["human-annotated"] for entry in entries] == [
        "yes"
    ] * 2


@pytest.mark.parametrize("context", [{}, {"task": None}, {"task": SimpleNamespace(outlets=[])}])
def test_without_outlets_nothing_happens(context: Any) -> None:
    emit_asset_event(context, asset_uri(ARN), {})
