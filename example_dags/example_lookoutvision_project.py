"""Create a project, use its metadata in a task of your own, and delete it.

``aws_conn_id`` names an Amazon connection whose extra holds the endpoint of your Lookout for Vision service:
``{"region_name": "us-east-1", "endpoint_url": "http://127.0.0.1:8320"}``.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.common.compat.sdk import DAG, Param, task

from airflow_provider_lookoutvision.operators.lookoutvision import (
    LookoutVisionCreateProjectOperator,
    LookoutVisionDeleteProjectOperator,
)

with DAG(
    dag_id="example_lookoutvision_project",
    doc_md=__doc__,
    schedule=None,
    params={
        "aws_conn_id": Param("aws_default", type="string", description="The connection to the service"),
        "project_name": Param("circuit-boards", type="string", description="The project, which is made"),
    },
    default_args={
        "aws_conn_id": "{{ params.aws_conn_id }}",
        "retries": 1,
        "retry_delay": timedelta(seconds=1),
    },
    tags=["example", "lookoutvision"],
) as dag:
    # [START howto_operator_lookoutvision_create_project]
    create = LookoutVisionCreateProjectOperator(
        task_id="create_project",
        project_name="{{ params.project_name }}",
    )
    # [END howto_operator_lookoutvision_create_project]

    @task
    def report(arn: str, created: str) -> None:
        print(f"{arn} was created at {created}")

    delete = LookoutVisionDeleteProjectOperator(
        task_id="delete_project",
        project_name=create.output["ProjectName"],
    )

    report(create.output["ProjectArn"], create.output["CreationTimestamp"]) >> delete
