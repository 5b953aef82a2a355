"""Labelled images arrive: they go into the project's train dataset, and the dataset's event retrains a model.

Somebody, or something, puts images into ``normal/`` and ``anomaly/`` below ``arrivals``. Each night they are
added to the train dataset; what is there already stays as it is. The event of the dataset's asset then starts
``example_lookoutvision_retrain``, and the model goes into use if somebody approves. A night without new
images announces nothing, and so retrains nothing.

It works on the project of ``example_lookoutvision_train``.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, AssetAlias, Param, task

from airflow_provider_lookoutvision.operators.lookoutvision import LookoutVisionUpdateDatasetEntriesOperator

with DAG(
    dag_id="example_lookoutvision_arrivals",
    doc_md=__doc__,
    schedule="0 3 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    is_paused_upon_creation=True,
    catchup=False,
    max_active_runs=1,
    params={
        "aws_conn_id": Param("aws_default", type="string", description="The connection to the service"),
        "project_name": Param("machined-parts", type="string", description="A project with datasets"),
        "arrivals": Param("s3://images/arrivals/", type="string", description="Where labelled images arrive"),
    },
    default_args={
        "aws_conn_id": "{{ params.aws_conn_id }}",
        "retries": 2,
        "retry_delay": timedelta(seconds=10),
    },
    tags=["example", "lookoutvision"],
) as dag:

    @task(multiple_outputs=False)
    def new_images(**context: Any) -> dict[str, str]:
        """The label of each image that the dataset does not have, by its folder."""
        from airflow.providers.amazon.aws.hooks.s3 import S3Hook
        from airflow.providers.common.compat.sdk import AirflowSkipException

        from airflow_provider_lookoutvision.hooks.lookoutvision import LookoutVisionHook

        params = context["params"]
        hook = LookoutVisionHook(aws_conn_id=params["aws_conn_id"])
        known = {entry["source-ref"] for entry in hook.iter_dataset_entries(params["project_name"], "train")}
        s3 = S3Hook(aws_conn_id=params["aws_conn_id"])
        bucket, prefix = s3.parse_s3_url(params["arrivals"])
        found = {
            f"s3://{bucket}/{key}": label
            for label in ("normal", "anomaly")
            for key in s3.list_keys(bucket, f"{prefix}{label}/")
            if key.lower().endswith((".jpg", ".jpeg", ".png"))
        }
        new = {uri: label for uri, label in found.items() if uri not in known}
        if not new:
            raise AirflowSkipException("No new images have arrived")
        return new

    # [START howto_labels]
    label = LookoutVisionUpdateDatasetEntriesOperator(
        task_id="add_to_dataset",
        project_name="{{ params.project_name }}",
        dataset_type="train",
        labels=new_images(),
        waiter_delay=2,
        outlets=[AssetAlias("machined-parts-dataset")],
    )
    # [END howto_labels]
