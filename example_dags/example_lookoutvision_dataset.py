"""Create a project, fill its two datasets from Ground Truth manifests, report what is in them, tidy up.

The manifests are objects in buckets of the service: ``s3://images/...`` is ``<data-dir>/buckets/images/...``
on a service with its default settings.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param, task

from airflow_provider_lookoutvision.operators.lookoutvision import (
    LookoutVisionCreateDatasetOperator,
    LookoutVisionCreateProjectOperator,
    LookoutVisionDeleteProjectOperator,
)

with DAG(
    dag_id="example_lookoutvision_dataset",
    doc_md=__doc__,
    schedule=None,
    params={
        "aws_conn_id": Param("aws_default", type="string", description="The connection to the service"),
        "project_name": Param("turned-parts", type="string", description="The project, which is made"),
        "train_manifest": Param(
            "s3://images/train.manifest", type="string", description="The manifest to train with"
        ),
        "test_manifest": Param(
            "s3://images/test.manifest", type="string", description="The manifest to test with"
        ),
    },
    default_args={
        "aws_conn_id": "{{ params.aws_conn_id }}",
        "retries": 1,
        "retry_delay": timedelta(seconds=1),
    },
    tags=["example", "lookoutvision"],
) as dag:
    create = LookoutVisionCreateProjectOperator(
        task_id="create_project",
        project_name="{{ params.project_name }}",
    )
    # [START howto_operator_lookoutvision_create_dataset]
    train = LookoutVisionCreateDatasetOperator(
        task_id="create_train_dataset",
        project_name=create.output["ProjectName"],
        dataset_type="train",
        manifest_s3_uri="{{ params.train_manifest }}",
        waiter_delay=1,
    )
    # [END howto_operator_lookoutvision_create_dataset]
    test = LookoutVisionCreateDatasetOperator(
        task_id="create_test_dataset",
        project_name=create.output["ProjectName"],
        dataset_type="test",
        manifest_s3_uri="{{ params.test_manifest }}",
        waiter_delay=1,
    )

    @task
    def report(train: dict[str, int], test: dict[str, int]) -> dict[str, Any]:
        for dataset, stats in (("train", train), ("test", test)):
            print(
                f"{dataset}: {stats['Total']} images, {stats['Normal']} normal, {stats['Anomaly']} anomalous"
            )
        return {"train": train, "test": test}

    delete = LookoutVisionDeleteProjectOperator(
        task_id="delete_project",
        project_name=create.output["ProjectName"],
        cascade=True,
    )

    report(train.output["ImageStats"], test.output["ImageStats"]) >> delete
