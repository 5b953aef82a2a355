"""The lineage that Airflow's OpenLineage provider gets of tasks run against the service and an S3."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.openlineage.utils.utils import translate_airflow_asset
from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    Asset,
    TaskDeferred,
    TaskInstanceState,
)
from airflow.providers.openlineage.extractors import ExtractorManager, OperatorLineage
from botocore.stub import ANY, Stubber
from trained_models import plate

from airflow_provider_lookoutvision.operators.lookoutvision import (
    LookoutVisionBuildManifestOperator,
    LookoutVisionCreateDatasetOperator,
    LookoutVisionCreateModelOperator,
    LookoutVisionCreateProjectOperator,
    LookoutVisionDetectAnomaliesOperator,
    LookoutVisionStartModelOperator,
    LookoutVisionStartModelPackagingJobOperator,
    LookoutVisionUpdateDatasetEntriesOperator,
)
from airflow_provider_lookoutvision.triggers import lookoutvision as triggers
from example_dags.demo.backends import IMAGES, RESULTS, Backends, running_backends

pytestmark = pytest.mark.timeout(3600)

ACCOUNT = "lookoutvision://us-east-1/123456789012"
TRAIN, TEST, MODEL = ((ACCOUNT, name) for name in ("dataset/p/train", "dataset/p/test", "model/p/1"))
SOON = {"waiter_delay": 0.2, "waiter_max_attempts": 900}

Place = tuple[str, str]


@pytest.fixture(scope="module")
def backends(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backends]:
    """With images to train with and to look at: every image below ``anomaly/`` is spotted."""
    with running_backends(tmp_path_factory.mktemp("service")) as backends:
        for number in range(40):
            spotted = number % 2 == 0
            key = f"line/{'anomaly' if spotted else 'normal'}/{number}.png"
            backends.s3.put_object(Bucket=IMAGES, Key=key, Body=plate(number, spotted))
        yield backends


@pytest.fixture
def conn_id(backends: Backends, connect: Any) -> str:
    connection = backends.connection()
    extra = connection["extra"]
    return str(connect(login=connection["login"], password=connection["password"], **extra))


def context(task_id: str = "t") -> Any:
    task = SimpleNamespace(retries=0)
    ti = SimpleNamespace(dag_id="d", run_id="r", task_id=task_id, map_index=-1, task=task)
    return {"ti": SimpleNamespace(**vars(ti), max_tries=0, try_number=1)}


def lineage(task: Any, state: Any = TaskInstanceState.SUCCESS) -> OperatorLineage[Any, Any]:
    """Ask as Airflow's OpenLineage provider does."""
    return ExtractorManager().extract_metadata(
        dagrun=SimpleNamespace(run_id="r"), task=task, task_instance_state=state, task_instance=None
    )


def lineage_of(task: Any, state: Any = TaskInstanceState.SUCCESS) -> tuple[list[Place], list[Place]]:
    """The names of what is read, and of what is written."""
    found = lineage(task, state)
    inputs, outputs = (
        [(each.namespace, each.name) for each in side] for side in (found.inputs, found.outputs)
    )
    return inputs, outputs


def test_from_images_to_verdicts(conn_id: str, backends: Backends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triggers, "_FIRST_SECONDS", 0.0)
    common = {"task_id": "t", "aws_conn_id": conn_id}
    named = {**common, "project_name": "p"}
    LookoutVisionCreateProjectOperator(**named).execute(context())

    build = LookoutVisionBuildManifestOperator(
        **common,
        images_s3_prefix=f"s3://{IMAGES}/line/",
        manifests_s3_prefix=f"s3://{IMAGES}/manifests",
        test_size=0.5,
    )
    manifests = build.execute(context())
    train_manifest, test_manifest = (
        (f"s3://{IMAGES}", f"manifests/{name}.manifest") for name in ("train", "test")
    )
    assert lineage_of(build) == ([(f"s3://{IMAGES}", "line/")], [train_manifest, test_manifest])
    assert [each.outputFacets["outputStatistics"].rowCount for each in lineage(build).outputs] == [20, 20]

    for dataset, manifest, (_, name) in ((TRAIN, train_manifest, TRAIN), (TEST, test_manifest, TEST)):
        dataset_type = name.rpartition("/")[2]
        create = LookoutVisionCreateDatasetOperator(
            **named,
            **SOON,
            dataset_type=dataset_type,
            manifest_s3_uri=manifests[f"{dataset_type}_manifest_s3_uri"],
        )
        create.execute(context(name))
        assert lineage_of(create) == ([manifest], [dataset])

    use = LookoutVisionCreateDatasetOperator(
        **named,
        **SOON,
        dataset_type="test",
        manifest_s3_uri=manifests["test_manifest_s3_uri"],
        if_exists="skip",
    )
    use.execute(context("another"))
    assert lineage_of(use) == ([TEST], [])

    changes = backends.s3.get_object(Bucket=IMAGES, Key=train_manifest[1])["Body"].read().splitlines()[0]
    backends.s3.put_object(Bucket=IMAGES, Key="changes.jsonl", Body=changes)
    update = LookoutVisionUpdateDatasetEntriesOperator(
        **named, **SOON, dataset_type="train", changes_s3_uri=f"s3://{IMAGES}/changes.jsonl"
    )
    update.execute(context())
    assert lineage_of(update) == ([(f"s3://{IMAGES}", "changes.jsonl")], [TRAIN])

    def train() -> LookoutVisionCreateModelOperator:
        location = f"s3://{RESULTS}/evaluation/"
        return LookoutVisionCreateModelOperator(
            **named, **SOON, output_s3_prefix=location, deferrable=True, defer_after=0
        )

    resumed = train()
    description = finish(train(), resumed)
    inputs, outputs = lineage_of(resumed)
    assert sorted(inputs) == [TEST, TRAIN]
    assert outputs == [
        MODEL,
        *((f"s3://{RESULTS}", description[f"Evaluation{name}"]["Key"]) for name in ("Manifest", "Result")),
    ]
    facets = lineage(resumed).outputs[0].facets
    assert facets["datasetType"].datasetType == "MODEL"
    metrics = facets["lookoutvision_performance"]
    assert {name: getattr(metrics, name) for name in ("F1Score", "Precision", "Recall")} == description[
        "Performance"
    ]

    LookoutVisionStartModelOperator(**named, **SOON, model_version="1").execute(context())
    look = LookoutVisionDetectAnomaliesOperator(
        **named,
        model_version="latest",
        images_s3_prefix=f"s3://{IMAGES}/line/",
        results_s3_uri=f"s3://{RESULTS}/verdicts.jsonl",
        masks_s3_prefix=f"s3://{RESULTS}/masks/",
    )
    look.execute(context())
    results = [(f"s3://{RESULTS}", "verdicts.jsonl"), (f"s3://{RESULTS}", "masks/")]
    assert lineage_of(look) == ([(f"s3://{IMAGES}", "line/"), MODEL], results)
    assert lineage(look).outputs[0].outputFacets["outputStatistics"].rowCount == 40

    one = LookoutVisionDetectAnomaliesOperator(
        **named, model_version="1", image_s3_uri=f"s3://{IMAGES}/line/normal/1.png"
    )
    one.execute(context())
    assert lineage_of(one) == ([(f"s3://{IMAGES}", "line/normal/1.png"), MODEL], [])


def finish(first: Any, resumed: Any) -> Any:
    """Run a task until it defers, then its trigger, and then another object of it, as another worker does."""

    async def fired(trigger: Any) -> Any:
        _, fields = trigger.serialize()
        events = type(trigger)(**json.loads(json.dumps(fields))).run()
        return (await anext(events)).payload

    with pytest.raises(TaskDeferred) as raised:
        first.execute(context())
    deferred = raised.value
    event = asyncio.run(fired(deferred.trigger))
    return getattr(resumed, deferred.method_name)(context(), event=event, **(deferred.kwargs or {}))


def test_a_packaged_model(connect: Any) -> None:
    # The answers are botocore's stubs, checked by the model: the lineage comes from them.
    arn = "arn:aws:lookoutvision:us-east-1:123456789012:model/p/3"
    place = {"Bucket": "components", "Prefix": "edge/"}
    task = LookoutVisionStartModelPackagingJobOperator(
        task_id="t",
        aws_conn_id=connect(endpoint_url="http://127.0.0.1:9"),
        project_name="p",
        model_version="latest",
        configuration={"Greengrass": {"S3OutputLocation": place, "ComponentName": "c"}},
    )
    job = {"ProjectName": "p", "JobName": "j"}
    described = {"ModelPackagingDescription": {**job, "ModelVersion": "3", "Status": "SUCCEEDED"}}
    version = {"ProjectName": "p", "ModelVersion": "3"}
    with Stubber(task.hook.conn) as service:
        service.add_response(
            "start_model_packaging_job", {"JobName": "j"}, {**job_of(task), "ClientToken": ANY}
        )
        for _ in range(2):
            service.add_response("describe_model_packaging_job", described, job)
        service.add_response("describe_model", {"ModelDescription": {"ModelArn": arn}}, version)
        task.execute(context())
        assert lineage_of(task) == ([(ACCOUNT, "model/p/3")], [("s3://components", "edge/")])


def job_of(task: LookoutVisionStartModelPackagingJobOperator) -> dict[str, Any]:
    version = {"ProjectName": task.project_name, "ModelVersion": task.model_version}
    return {**version, "Configuration": task.configuration}


def test_a_service_that_is_away_costs_its_part_only(connect: Any) -> None:
    conn_id = connect(endpoint_url="http://127.0.0.1:9", config_kwargs={"retries": {"total_max_attempts": 1}})
    task = LookoutVisionUpdateDatasetEntriesOperator(
        task_id="t",
        aws_conn_id=conn_id,
        project_name="p",
        dataset_type="train",
        changes_s3_uri="s3://images/m",
    )
    assert lineage_of(task) == ([("s3://images", "m")], [])


def test_a_task_that_fails_has_written_nothing(conn_id: str) -> None:
    task = LookoutVisionDetectAnomaliesOperator(
        task_id="t",
        aws_conn_id=conn_id,
        project_name="none",
        model_version="1",
        images_s3_prefix="s3://images/line/",
        results_s3_uri="s3://results/r",
        masks_s3_prefix="s3://results/masks/",
    )
    with pytest.raises(AirflowFailException):
        task.execute(context())
    assert lineage_of(task, TaskInstanceState.FAILED) == ([("s3://images", "line/")], [])


def test_an_asset_has_the_name_that_operators_tell() -> None:
    asset = translate_airflow_asset(Asset(f"{ACCOUNT}/model/p/1"), None)
    assert (asset.namespace, asset.name) == MODEL


@pytest.mark.parametrize("uri", ["s3://images", "s3://images/"])
def test_a_whole_bucket_has_a_name(conn_id: str, uri: str) -> None:
    task = LookoutVisionBuildManifestOperator(
        task_id="t", aws_conn_id=conn_id, images_s3_prefix=uri, manifests_s3_prefix="s3://images/m/"
    )
    assert lineage_of(task) == ([("s3://images", "/")], [])
