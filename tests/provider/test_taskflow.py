"""``image_dataset``: the tasks that it makes of its arguments. Their work is shown by ``make examples``."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_lookoutvision.operators.lookoutvision import LookoutVisionCreateProjectOperator
from airflow_provider_lookoutvision.taskflow import image_dataset

PLACES = {"images_s3_prefix": "s3://images/line/", "manifests_s3_prefix": "s3://images/manifests/"}


@pytest.fixture
def dag() -> Any:
    defaults = {"aws_conn_id": "from-the-dag", "retries": 3, "deferrable": True}
    with DAG("dag", schedule=None, default_args=defaults) as dag:
        yield dag


def upstream(dag: DAG, task_id: str) -> set[str]:
    return {each.task_id for each in dag.get_task(task_id).get_flat_relatives(upstream=True)}


@task
def use(value: Any) -> None:
    """Take what the helper returns."""


def test_the_name_waits_for_both_datasets(dag: DAG) -> None:
    project = LookoutVisionCreateProjectOperator(task_id="create_project", project_name="p")
    dataset = image_dataset(project.output["ProjectName"], **PLACES, test_size=0.25)
    use.override(task_id="train_model")(dataset["project_name"])
    use.override(task_id="count")(dataset["train"])
    use.override(task_id="report")(dataset)

    train = {f"image_dataset.{name}" for name in ("build_manifest", "create_train_dataset")}
    both = {*train, "image_dataset.create_test_dataset"}
    assert upstream(dag, "train_model") == {"create_project", *both}
    assert upstream(dag, "count") == {"create_project", *train}
    assert dag.get_task("report").upstream_task_ids == both
    assert set(dataset) == {"project_name", "manifests", "train", "test"}


def test_without_a_share_there_is_one_dataset(dag: DAG) -> None:
    dataset = image_dataset("p", **PLACES)
    use.override(task_id="train_model")(dataset["project_name"])

    assert set(dataset) == {"project_name", "manifests", "train"}
    assert dag.get_task("train_model").upstream_task_ids == {"image_dataset.create_train_dataset"}
    build = dag.get_task("image_dataset.build_manifest")
    assert build.downstream_task_ids == {"image_dataset.create_train_dataset"}


@pytest.mark.parametrize("share", ["{{ params.share }}", "an output"])
def test_a_share_that_is_known_later_makes_both(dag: DAG, share: Any) -> None:
    if share == "an output":
        share = use.override(task_id="choose")(1)
    image_dataset("p", **PLACES, test_size=share)
    assert dag.has_task("image_dataset.create_test_dataset")


def test_arguments_reach_the_tasks_that_have_them(dag: DAG) -> None:
    image_dataset(
        "p",
        **PLACES,
        test_size=0.5,
        seed=7,
        mask_colors={"dent": "#FF0000"},
        group_id="line_1",
        s3_conn_id="s3",
        if_exists="skip",
        waiter_delay=2,
        region_name="eu-central-1",
        retries=1,
    )
    build, *datasets = (
        dag.get_task(f"line_1.{name}")
        for name in ("build_manifest", "create_train_dataset", "create_test_dataset")
    )
    assert (build.images_s3_prefix, build.manifests_s3_prefix) == tuple(PLACES.values())
    assert (build.test_size, build.seed, build.mask_colors) == (0.5, 7, {"dent": "#FF0000"})
    assert build.s3_conn_id == "s3"
    assert [dataset.dataset_type for dataset in datasets] == ["train", "test"]
    for dataset in datasets:
        assert (dataset.project_name, dataset.if_exists, dataset.waiter_delay) == ("p", "skip", 2)
        assert dataset.deferrable
    for each in (build, *datasets):
        assert (each.aws_conn_id, each.region_name, each.retries) == ("from-the-dag", "eu-central-1", 1)


@pytest.mark.parametrize("argument", ["deferable", "wait_for_completion", "dataset_type", "client_token"])
def test_an_argument_that_no_task_has_is_refused(dag: DAG, argument: str) -> None:
    with pytest.raises(Exception, match=argument):
        image_dataset("p", **PLACES, **{argument: True})


def test_a_second_group_is_numbered(dag: DAG) -> None:
    for name in ("p", "q"):
        image_dataset(name, **PLACES)
    names = [
        dag.get_task(f"{group}.create_train_dataset").project_name
        for group in ("image_dataset", "image_dataset__1")
    ]
    assert names == ["p", "q"]


def test_it_is_cheap_to_parse_and_needs_no_openlineage() -> None:
    look = (
        "import sys; import airflow_provider_lookoutvision.lineage, airflow_provider_lookoutvision.taskflow;"
        "heavy = {'boto3', 'botocore', 'openlineage', 'airflow.providers.amazon.aws.hooks.base_aws'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
