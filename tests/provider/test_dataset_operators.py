"""The dataset operators and the hook without a DAG run: parts, pages, faults that no DAG run brings about."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred
from hypothesis import given
from hypothesis import strategies as st
from task_context import context

from airflow_provider_lookoutvision.hooks.lookoutvision import LookoutVisionHook
from airflow_provider_lookoutvision.manifests import split_lines
from airflow_provider_lookoutvision.model import register_service_model
from airflow_provider_lookoutvision.operators import datasets
from airflow_provider_lookoutvision.operators.lookoutvision import (
    LookoutVisionCreateDatasetOperator,
    LookoutVisionDeleteProjectOperator,
    LookoutVisionUpdateDatasetEntriesOperator,
)
from airflow_provider_lookoutvision.testing.service import Service, running_service
from airflow_provider_lookoutvision.triggers import lookoutvision as triggers
from airflow_provider_lookoutvision.triggers.lookoutvision import LookoutVisionWaiterTrigger


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running_service() as service:
        yield service


@pytest.fixture
def conn_id(service: Service, connect: Any) -> str:
    key = {"login": service.access_key_id, "password": service.secret_access_key}
    return str(connect(**key, endpoint_url=service.endpoint_url))


@pytest.fixture
def client(service: Service) -> Any:
    session = boto3.Session(service.access_key_id, service.secret_access_key, region_name="eu-central-1")
    return register_service_model(session).client("lookoutvision", endpoint_url=service.endpoint_url)


@pytest.fixture
def project(client: Any, request: pytest.FixtureRequest) -> str:
    name = f"p-{abs(hash(request.node.nodeid))}"
    client.create_project(ProjectName=name)
    return name


def entries(count: int) -> list[dict[str, str]]:
    return [{"source-ref": f"s3://images/{number}.png", "note": "x" * 200} for number in range(count)]


def test_the_hook_reads_all_entries_page_by_page(conn_id: str, client: Any, project: str) -> None:
    client.create_dataset(ProjectName=project, DatasetType="train")
    lines = "\n".join(json.dumps(entry) for entry in entries(250))
    client.update_dataset_entries(ProjectName=project, DatasetType="train", Changes=lines.encode())
    client.get_waiter("dataset_updated").wait(
        ProjectName=project, DatasetType="train", WaiterConfig={"Delay": 0.2, "MaxAttempts": 300}
    )
    hook = LookoutVisionHook(aws_conn_id=conn_id)
    assert list(hook.iter_dataset_entries(project, "train")) == entries(250)
    found = hook.iter_dataset_entries(project, "train", SourceRefContains="/249.")
    assert [entry["source-ref"] for entry in found] == ["s3://images/249.png"]


@pytest.mark.parametrize("deferrable", [False, True])
def test_much_is_sent_in_parts_and_repeated_without_effect(
    conn_id: str, client: Any, project: str, deferrable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The limit is the service's; here it is only nearer.
    monkeypatch.setattr(datasets, "LARGEST_CHANGES", 2000)
    monkeypatch.setattr(triggers, "_FIRST_SECONDS", 0.0)
    client.create_dataset(ProjectName=project, DatasetType="train")
    task = LookoutVisionUpdateDatasetEntriesOperator(
        task_id="task", aws_conn_id=conn_id, project_name=project, dataset_type="train", changes=entries(30),
        waiter_delay=0.1, waiter_max_attempts=600, deferrable=deferrable, defer_after=0,
    )  # fmt: skip
    for _ in range(2):
        description = run(task, context(project))
        assert description["ImageStats"]["Total"] == 30
        assert description["Status"] == "UPDATE_COMPLETE"


def run(task: Any, context: Any) -> Any:
    """Run a task, and its triggers as the triggerer would."""
    import asyncio

    async def first(trigger: LookoutVisionWaiterTrigger) -> dict[str, Any]:
        path, fields = trigger.serialize()
        assert path.endswith(".LookoutVisionWaiterTrigger")
        again = LookoutVisionWaiterTrigger(**json.loads(json.dumps(fields)))
        async for event in again.run():
            return dict(event.payload)
        raise AssertionError("the trigger ended without an event")

    call, arguments = task.execute, {}
    while True:
        try:
            return call(context, **arguments)
        except TaskDeferred as deferred:
            event = asyncio.run(first(deferred.trigger))
            call, arguments = getattr(task, deferred.method_name), {"event": event, **(deferred.kwargs or {})}


@given(
    st.lists(st.binary(min_size=1, max_size=30).filter(lambda line: b"\n" not in line and b"\r" not in line))
)
def test_parts_hold_every_line_and_stay_below_the_limit(lines: list[bytes]) -> None:
    text = b"\n".join(lines)
    parts = list(split_lines(text, 40))
    kept = [line for part in parts for line in part.splitlines() if line.strip()]
    assert kept == [line for line in text.splitlines() if line.strip()]
    assert all(len(part) <= 40 for part in parts)


def test_without_waiting_it_returns_the_metadata(conn_id: str, project: str) -> None:
    task = LookoutVisionCreateDatasetOperator(
        task_id="task", aws_conn_id=conn_id, project_name=project, dataset_type="train",
        manifest_s3_uri="s3://images/missing.manifest", wait_for_completion=False,
    )  # fmt: skip
    assert task.execute(context(project))["Status"] == "CREATE_IN_PROGRESS"


@pytest.mark.parametrize("manifest", ["images/x.manifest", "s3://images", "s3:///x", "https://images/x"])
def test_a_manifest_must_be_an_object_in_s3(conn_id: str, project: str, manifest: str) -> None:
    task = LookoutVisionCreateDatasetOperator(
        task_id="task",
        aws_conn_id=conn_id,
        project_name=project,
        dataset_type="train",
        manifest_s3_uri=manifest,
    )
    with pytest.raises(AirflowFailException, match="it must be s3://bucket/key"):
        task.execute(context(project))


@pytest.mark.parametrize(
    "changes", [{}, {"changes": ""}, {"changes": []}, {"changes": "{}", "changes_s3_uri": "s3://b/k"}]
)
def test_changes_must_be_there_once(conn_id: str, project: str, changes: dict[str, Any]) -> None:
    task = LookoutVisionUpdateDatasetEntriesOperator(
        task_id="task", aws_conn_id=conn_id, project_name=project, dataset_type="train", **changes
    )
    with pytest.raises(AirflowFailException, match="changes"):
        task.execute(context(project))


def test_a_cascade_waits_for_an_import_and_deletes_all(
    service: Service, conn_id: str, client: Any, project: str
) -> None:
    bucket = service.data_dir / "buckets" / "cascade"
    bucket.mkdir(parents=True)
    lines = (json.dumps({"source-ref": f"s3://cascade/{number}.png"}) + "\n" for number in range(3000))
    (bucket / "m").write_text("".join(lines))
    source = {"GroundTruthManifest": {"S3Object": {"Bucket": "cascade", "Key": "m.x"}}}
    (bucket / "m").rename(bucket / "m.x")
    for dataset_type in ("train", "test"):
        client.create_dataset(ProjectName=project, DatasetType=dataset_type, DatasetSource=source)

    plain = LookoutVisionDeleteProjectOperator(task_id="task", aws_conn_id=conn_id, project_name=project)
    with pytest.raises(AirflowFailException, match="still has its"):
        plain.execute(context(project))
    cascade = LookoutVisionDeleteProjectOperator(
        task_id="task", aws_conn_id=conn_id, project_name=project, cascade=True
    )
    for _ in range(2):
        cascade.execute(context(project + "-cascade"))
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.describe_project(ProjectName=project)
