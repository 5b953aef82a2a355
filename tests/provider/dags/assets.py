"""A DAG whose task announces what it made, under an alias and as an asset that the DAG names."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import DAG, Asset, AssetAlias

from airflow_provider_lookoutvision.operators.lookoutvision import LookoutVisionCreateProjectOperator

with DAG(
    dag_id="create_and_announce",
    schedule=None,
    params={"conn_id": "aws_default", "project_name": "unnamed"},
):
    LookoutVisionCreateProjectOperator(
        task_id="create",
        aws_conn_id="{{ params.conn_id }}",
        project_name="{{ params.project_name }}",
        outlets=[AssetAlias("projects"), Asset("s3://somewhere/projects")],
    )
