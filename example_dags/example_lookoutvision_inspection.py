"""From labelled images to verdicts: train a model, host it, look at images it hasn't seen, tidy up.

The whole way in one DAG, to read and to try out. What has been set up is torn down whatever becomes of the
work between: no model stays hosted because a task failed. The verdicts, masks and the model's evaluation stay
in their buckets. In production the parts live apart: ``example_lookoutvision_train``,
``example_lookoutvision_promote`` and ``example_lookoutvision_batch``.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.common.compat.sdk import DAG, Param

from airflow_provider_lookoutvision.operators.lookoutvision import (
    LookoutVisionCreateDatasetOperator,
    LookoutVisionCreateModelOperator,
    LookoutVisionCreateProjectOperator,
    LookoutVisionDeleteProjectOperator,
    LookoutVisionDetectAnomaliesOperator,
    LookoutVisionStartModelOperator,
    LookoutVisionStopModelOperator,
)

with DAG(
    dag_id="example_lookoutvision_inspection",
    doc_md=__doc__,
    schedule=None,
    params={
        "aws_conn_id": Param("aws_default", type="string", description="The connection to the service"),
        "project_name": Param("inspected-parts", type="string", description="The project, which is made"),
        "train_manifest": Param(
            "s3://images/train.manifest", type="string", description="The manifest to train with"
        ),
        "test_manifest": Param(
            "s3://images/test.manifest", type="string", description="The manifest to test with"
        ),
        "evaluation": Param("s3://results/evaluation/", type="string", description="Where evaluations go"),
        "images": Param("s3://images/test/", type="string", description="Where the images are"),
        "verdicts": Param("s3://results/verdicts.jsonl", type="string", description="Where verdicts go"),
        "masks": Param("s3://results/masks/", type="string", description="Where masks go"),
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
    ).as_setup()
    # The name comes from the parameters, not from create_project: what takes a setup's output depends on it,
    # and stop_model is to depend on start_model alone.
    train_dataset = LookoutVisionCreateDatasetOperator(
        task_id="create_train_dataset",
        project_name="{{ params.project_name }}",
        dataset_type="train",
        manifest_s3_uri="{{ params.train_manifest }}",
        waiter_delay=1,
    )
    test_dataset = LookoutVisionCreateDatasetOperator(
        task_id="create_test_dataset",
        project_name="{{ params.project_name }}",
        dataset_type="test",
        manifest_s3_uri="{{ params.test_manifest }}",
        waiter_delay=1,
    )
    create_model = LookoutVisionCreateModelOperator(
        task_id="create_model",
        project_name="{{ params.project_name }}",
        output_s3_prefix="{{ params.evaluation }}",
        waiter_delay=1,
    )
    # [START howto_operator_lookoutvision_start_model]
    start_model = LookoutVisionStartModelOperator(
        task_id="start_model",
        project_name="{{ params.project_name }}",
        model_version=create_model.output["ModelVersion"],
        waiter_delay=1,
    ).as_setup()
    # [END howto_operator_lookoutvision_start_model]
    # [START howto_operator_lookoutvision_detect_anomalies]
    detect = LookoutVisionDetectAnomaliesOperator(
        task_id="detect_anomalies",
        project_name="{{ params.project_name }}",
        model_version=start_model.output["ModelVersion"],
        images_s3_prefix="{{ params.images }}",
        results_s3_uri="{{ params.verdicts }}",
        masks_s3_prefix="{{ params.masks }}",
        store_heatmaps=True,
        fail_if_empty=True,
    )
    # [END howto_operator_lookoutvision_detect_anomalies]
    # [START howto_operator_lookoutvision_stop_model]
    stop_model = LookoutVisionStopModelOperator(
        task_id="stop_model",
        project_name="{{ params.project_name }}",
        model_version=start_model.output["ModelVersion"],
        waiter_delay=1,
    ).as_teardown(setups=start_model)
    # [END howto_operator_lookoutvision_stop_model]
    delete_project = LookoutVisionDeleteProjectOperator(
        task_id="delete_project",
        project_name="{{ params.project_name }}",
        cascade=True,
    ).as_teardown(setups=create_project)

    create_project >> [train_dataset, test_dataset] >> create_model >> start_model
    start_model >> detect >> stop_model >> delete_project
