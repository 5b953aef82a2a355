"""From folders of images in S3 to datasets, and what is done to datasets later.

The folders are ``normal/``, ``anomaly/`` and, for masks, ``masks/<class>/``. A part of the images is kept to
test with. Then an image that somebody had put into the wrong folder is labelled anew, and the test dataset is
deleted, as one does to make it from other images. The images stay where they are.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.common.compat.sdk import DAG, Param

from airflow_provider_lookoutvision.operators.lookoutvision import (
    LookoutVisionBuildManifestOperator,
    LookoutVisionCreateDatasetOperator,
    LookoutVisionCreateProjectOperator,
    LookoutVisionDeleteDatasetOperator,
    LookoutVisionDeleteProjectOperator,
    LookoutVisionUpdateDatasetEntriesOperator,
)
from airflow_provider_lookoutvision.sensors.lookoutvision import LookoutVisionDatasetSensor

with DAG(
    dag_id="example_lookoutvision_folders",
    doc_md=__doc__,
    schedule=None,
    params={
        "aws_conn_id": Param("aws_default", type="string", description="The connection to the service"),
        "project_name": Param("labelled-parts", type="string", description="The project, which is made"),
        "images": Param("s3://images/labelled/", type="string", description="Where the images are"),
        "manifests": Param(
            "s3://images/manifests/labelled/", type="string", description="Where manifests go"
        ),
        "mislabelled": Param(
            "s3://images/labelled/anomaly/good.png", type="string", description="An image in the wrong folder"
        ),
    },
    default_args={
        "aws_conn_id": "{{ params.aws_conn_id }}",
        "retries": 1,
        "retry_delay": timedelta(seconds=1),
    },
    tags=["example", "lookoutvision"],
) as dag:
    create_project = LookoutVisionCreateProjectOperator(
        task_id="create_project",
        project_name="{{ params.project_name }}",
    )

    # [START howto_operator_lookoutvision_build_manifest]
    manifests = LookoutVisionBuildManifestOperator(
        task_id="build_manifests",
        images_s3_prefix="{{ params.images }}",
        manifests_s3_prefix="{{ params.manifests }}",
        test_size=0.3,
    )
    # [END howto_operator_lookoutvision_build_manifest]

    create_train = LookoutVisionCreateDatasetOperator(
        task_id="create_train_dataset",
        project_name=create_project.output["ProjectName"],
        dataset_type="train",
        manifest_s3_uri=manifests.output["train_manifest_s3_uri"],
        wait_for_completion=False,
    )
    create_test = LookoutVisionCreateDatasetOperator(
        task_id="create_test_dataset",
        project_name=create_project.output["ProjectName"],
        dataset_type="test",
        manifest_s3_uri=manifests.output["test_manifest_s3_uri"],
        waiter_delay=1,
    )

    # [START howto_sensor_lookoutvision_dataset]
    train_is_imported = LookoutVisionDatasetSensor(
        task_id="train_is_imported",
        project_name="{{ params.project_name }}",
        dataset_type="train",
        mode="reschedule",
        poke_interval=2,
        timeout=3600,
    )
    # [END howto_sensor_lookoutvision_dataset]

    # [START howto_operator_lookoutvision_update_dataset_entries]
    label_anew = LookoutVisionUpdateDatasetEntriesOperator(
        task_id="label_anew",
        project_name="{{ params.project_name }}",
        dataset_type="train",
        changes=[
            {
                "source-ref": "{{ params.mislabelled }}",
                "anomaly-label": 0,
                "anomaly-label-metadata": {
                    "class-name": "normal",
                    "confidence": 1,
                    "human-annotated": "yes",
                    "creation-date": "{{ ts }}",
                    "type": "groundtruth/image-classification",
                    "job-name": "review",
                },
            }
        ],
        waiter_delay=1,
    )
    # [END howto_operator_lookoutvision_update_dataset_entries]

    # [START howto_operator_lookoutvision_delete_dataset]
    delete_test = LookoutVisionDeleteDatasetOperator(
        task_id="delete_test_dataset",
        project_name="{{ params.project_name }}",
        dataset_type="test",
    )
    # [END howto_operator_lookoutvision_delete_dataset]

    # [START howto_operator_lookoutvision_delete_project]
    delete_project = LookoutVisionDeleteProjectOperator(
        task_id="delete_project",
        project_name="{{ params.project_name }}",
        cascade=True,
    )
    # [END howto_operator_lookoutvision_delete_project]

    create_train >> train_is_imported >> label_anew
    [label_anew, create_test] >> delete_test >> delete_project
