"""DAGs whose tasks announce what they made, under an alias and as an asset that the DAG names."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.common.compat.sdk import DAG, Asset, AssetAlias

from airflow_provider_lookoutvision.operators.lookoutvision import (
    LookoutVisionCreateDatasetOperator,
    LookoutVisionCreateProjectOperator,
    LookoutVisionDetectAnomaliesOperator,
    LookoutVisionUpdateDatasetEntriesOperator,
)

ARGUMENTS = {"aws_conn_id": "{{ params.conn_id }}", "project_name": "{{ params.project_name }}"}

with DAG(
    dag_id="create_and_announce",
    schedule=None,
    params={"conn_id": "aws_default", "project_name": "unnamed"},
    default_args=ARGUMENTS,
):
    create = LookoutVisionCreateProjectOperator(
        task_id="create", outlets=[AssetAlias("projects"), Asset("s3://somewhere/projects")]
    )
    # What another task has made is not announced.
    use = LookoutVisionCreateProjectOperator(task_id="use", if_exists="skip", outlets=[AssetAlias("used")])
    create_dataset, use_dataset = (
        LookoutVisionCreateDatasetOperator(
            task_id=f"{task_id}_dataset",
            dataset_type="train",
            if_exists="skip",
            waiter_delay=0.5,
            outlets=[AssetAlias("used" if task_id == "use" else "datasets")],
        )
        for task_id in ("create", "use")
    )
    label = LookoutVisionUpdateDatasetEntriesOperator(
        task_id="label",
        dataset_type="train",
        labels={"s3://labelled/good.png": "normal", "s3://labelled/bad.png": "anomaly"},
        waiter_delay=0.5,
        retries=1,
        retry_delay=timedelta(seconds=1),
        outlets=[AssetAlias("labels")],
    )
    create >> use >> create_dataset >> use_dataset >> label

with DAG(
    dag_id="detect_and_announce",
    schedule=None,
    params={"conn_id": "aws_default", "project_name": "machined-parts", "images": "s3://plates/"},
    default_args=ARGUMENTS,
):
    LookoutVisionDetectAnomaliesOperator(
        task_id="detect",
        model_version="stage=production",
        images_s3_prefix="{{ params.images }}",
        results_s3_uri="{{ params.images }}verdicts.jsonl",
        outlets=[AssetAlias("machined-parts-verdicts")],
    )
