"""Import what was saved of the AWS service: the datasets that its console kept, images in another bucket.

Run it again when a project is added to the source: what has been imported stays as it is.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.common.compat.sdk import DAG, Param

from airflow_provider_lookoutvision.operators.lookoutvision import LookoutVisionImportDatasetsOperator

with DAG(
    dag_id="example_lookoutvision_import",
    doc_md=__doc__,
    schedule=None,
    params={
        "aws_conn_id": Param("aws_default", type="string", description="The connection to the service"),
        "source": Param(
            "s3://saved-console-bucket/datasets/", type="string", description="Where what was saved is"
        ),
        "images": Param("s3://images/", type="string", description="Where the images are now"),
    },
    default_args={
        "aws_conn_id": "{{ params.aws_conn_id }}",
        "retries": 3,
        "retry_delay": timedelta(seconds=30),
    },
    render_template_as_native_obj=True,
    tags=["example", "lookoutvision"],
) as dag:
    # [START howto_operator_lookoutvision_import_datasets]
    import_datasets = LookoutVisionImportDatasetsOperator(
        task_id="import_datasets",
        source="{{ params.source }}",
        reference_map={"s3://lookoutvision-us-east-1-0123456789/": "{{ params.images }}"},
        if_exists="update",
    )
    # [END howto_operator_lookoutvision_import_datasets]
