"""DAGs that make a project, its datasets and a model, host it and use it, in tasks or deferred."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_lookoutvision.operators.lookoutvision import (
    LookoutVisionCreateDatasetOperator,
    LookoutVisionCreateModelOperator,
    LookoutVisionCreateProjectOperator,
    LookoutVisionDetectAnomaliesOperator,
    LookoutVisionStartModelOperator,
)

RETRIES = 3

for dag_id, deferrable in (("chaos", False), ("chaos_deferred", True)):
    with DAG(
        dag_id,
        schedule=None,
        params={"conn_id": "aws_default", "account": "", "seed": 0},
        max_active_runs=64,
        default_args={
            "aws_conn_id": "{{ params.conn_id }}",
            "project_name": "plates-{{ params.seed }}",
            "retries": RETRIES,
            "retry_delay": timedelta(seconds=1),
        },
    ):
        waiting = {"deferrable": deferrable, "defer_after": 0, "waiter_delay": 0.5}
        # A run that is deleted and made again finds what the deleted one has made.
        project = LookoutVisionCreateProjectOperator(task_id="project", if_exists="skip")
        datasets = [
            LookoutVisionCreateDatasetOperator(
                task_id=dataset_type,
                dataset_type=dataset_type,
                manifest_s3_uri=f"s3://plates/{{{{ params.account }}}}/{dataset_type}.manifest",
                if_exists="skip",
                waiter_max_attempts=1200,
                **waiting,
            )
            for dataset_type in ("train", "test")
        ]
        model = LookoutVisionCreateModelOperator(
            task_id="model", output_s3_prefix="s3://plates/evaluation/", **waiting
        )
        start = LookoutVisionStartModelOperator(
            task_id="start", model_version=model.output["ModelVersion"], **waiting
        )
        detect = LookoutVisionDetectAnomaliesOperator(
            task_id="detect",
            model_version=model.output["ModelVersion"],
            images_s3_prefix="s3://plates/{{ params.account }}/arrived/",
            results_s3_uri="s3://plates/{{ params.account }}/{{ run_id }}.jsonl",
            max_workers=2,
        )
        project >> datasets >> model >> start >> detect
