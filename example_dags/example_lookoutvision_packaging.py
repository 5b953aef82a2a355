"""Package the newest model for devices, as soon as another DAG has trained it.

What comes of it is a component in S3, with an agent that detects anomalies on the device: docs/edge.md says
how it gets there.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.common.compat.sdk import DAG, Param

from airflow_provider_lookoutvision.operators.lookoutvision import LookoutVisionStartModelPackagingJobOperator
from airflow_provider_lookoutvision.sensors.lookoutvision import (
    LookoutVisionModelPackagingJobSensor,
    LookoutVisionModelSensor,
)

with DAG(
    dag_id="example_lookoutvision_packaging",
    doc_md=__doc__,
    schedule=None,
    params={
        "aws_conn_id": Param("aws_default", type="string", description="The connection to the service"),
        "project_name": Param("machined-parts", type="string", description="A project with a model"),
        "bucket": Param("results", type="string", description="The bucket for the component"),
    },
    default_args={
        "aws_conn_id": "{{ params.aws_conn_id }}",
        "retries": 1,
        "retry_delay": timedelta(seconds=1),
    },
    tags=["example", "lookoutvision"],
) as dag:
    # [START howto_sensor_lookoutvision_model]
    is_trained = LookoutVisionModelSensor(
        task_id="is_trained",
        project_name="{{ params.project_name }}",
        model_version="latest",
        state="trained",
        deferrable=True,
        poke_interval=60,
        timeout=24 * 3600,
    )
    # [END howto_sensor_lookoutvision_model]

    # [START howto_operator_lookoutvision_start_model_packaging_job]
    start = LookoutVisionStartModelPackagingJobOperator(
        task_id="start_packaging_job",
        project_name="{{ params.project_name }}",
        model_version="{{ ti.xcom_pull('is_trained')['ModelVersion'] }}",
        configuration={
            "Greengrass": {
                "ComponentName": "MachinedParts",
                "S3OutputLocation": {"Bucket": "{{ params.bucket }}", "Prefix": "components/"},
                "TargetPlatform": {"Os": "LINUX", "Arch": "X86_64"},
            }
        },
        wait_for_completion=False,
    )
    # [END howto_operator_lookoutvision_start_model_packaging_job]

    # [START howto_sensor_lookoutvision_model_packaging_job]
    is_packaged = LookoutVisionModelPackagingJobSensor(
        task_id="is_packaged",
        project_name="{{ params.project_name }}",
        job_name=start.output["JobName"],
        deferrable=True,
        poke_interval=60,
        timeout=3600,
    )
    # [END howto_sensor_lookoutvision_model_packaging_job]

    is_trained >> start
