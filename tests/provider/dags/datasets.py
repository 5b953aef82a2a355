"""DAGs that create, update and delete datasets, in the task and deferred."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_lookoutvision.operators.lookoutvision import (
    LookoutVisionCreateDatasetOperator,
    LookoutVisionCreateProjectOperator,
    LookoutVisionDeleteDatasetOperator,
    LookoutVisionDeleteProjectOperator,
    LookoutVisionUpdateDatasetEntriesOperator,
)


def dag_of(dag_id: str) -> DAG:
    return DAG(
        dag_id=dag_id,
        schedule=None,
        render_template_as_native_obj=True,
        params={
            "conn_id": "aws_default",
            "project_name": "unnamed",
            "manifest_s3_uri": "s3://images/train.manifest",
            "if_exists": "fail",
            "deferrable": False,
            "changes": [{"source-ref": "s3://images/new.png"}],
        },
        default_args={
            "aws_conn_id": "{{ params.conn_id }}",
            "project_name": "{{ params.project_name }}",
            "retries": 1,
            "retry_delay": timedelta(seconds=1),
        },
    )


@task.branch
def deferred_or_not(deferrable: bool) -> str:
    return "create_deferred" if deferrable else "create"


with dag_of("create_dataset"):
    project = LookoutVisionCreateProjectOperator(task_id="project", if_exists="skip")
    branch = deferred_or_not("{{ params.deferrable }}")
    project >> branch
    for task_id, deferrable in (("create", False), ("create_deferred", True)):
        branch >> LookoutVisionCreateDatasetOperator(
            task_id=task_id,
            dataset_type="train",
            manifest_s3_uri="{{ params.manifest_s3_uri }}",
            if_exists="{{ params.if_exists }}",
            waiter_delay=0.5,
            waiter_max_attempts=1200,
            deferrable=deferrable,
            defer_after=0,
        )

with dag_of("update_and_delete_dataset"):
    project = LookoutVisionCreateProjectOperator(task_id="project")
    create = LookoutVisionCreateDatasetOperator.partial(
        task_id="create", manifest_s3_uri="{{ params.manifest_s3_uri }}", waiter_delay=0.5
    ).expand(dataset_type=["train", "test"])
    update = LookoutVisionUpdateDatasetEntriesOperator(
        task_id="update",
        dataset_type="train",
        changes="{{ params.changes }}",
        waiter_delay=0.5,
        deferrable=True,
        defer_after=600,
    )
    update_from_s3 = LookoutVisionUpdateDatasetEntriesOperator(
        task_id="update_from_s3",
        dataset_type="train",
        changes_s3_uri="s3://changes/new.jsonl",
        waiter_delay=0.5,
    )
    delete = LookoutVisionDeleteDatasetOperator(task_id="delete", dataset_type="test")
    delete_again = LookoutVisionDeleteDatasetOperator(task_id="delete_again", dataset_type="test")
    delete_project = LookoutVisionDeleteProjectOperator(task_id="delete_project", cascade=True)
    project >> create >> update >> update_from_s3 >> delete >> delete_again >> delete_project
