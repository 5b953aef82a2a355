"""Train a model, and let it through only if it is good enough.

The project and its two datasets are made from Ground Truth manifests when they aren't there yet. The model is
tried on the test dataset, which it isn't trained on; a worse one than ``min_f1`` fails the task, with its
metrics, and is kept for a look at its evaluation. The threshold of its verdicts is then the one that finds
``min_recall`` of the anomalous test images with the fewest false alarms.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param, task

from airflow_provider_lookoutvision.operators.lookoutvision import (
    LookoutVisionCreateDatasetOperator,
    LookoutVisionCreateModelOperator,
    LookoutVisionCreateProjectOperator,
    LookoutVisionSetThresholdOperator,
)

with DAG(
    dag_id="example_lookoutvision_train",
    doc_md=__doc__,
    schedule=None,
    params={
        "aws_conn_id": Param("aws_default", type="string", description="The connection to the service"),
        "project_name": Param("machined-parts", type="string", description="The project, which is made"),
        "train_manifest": Param(
            "s3://images/train.manifest", type="string", description="The manifest to train with"
        ),
        "test_manifest": Param(
            "s3://images/test.manifest", type="string", description="The manifest to test with"
        ),
        "evaluation": Param("s3://results/evaluation/", type="string", description="Where evaluations go"),
        "min_f1": Param(
            0.9, type="number", minimum=0, maximum=1, description="The lowest acceptable F1 score"
        ),
        "min_recall": Param(
            0.95, type="number", minimum=0, maximum=1, description="The fraction of defects to find"
        ),
        "stage": Param("candidate", type="string", description="The tag of the model"),
    },
    default_args={
        "aws_conn_id": "{{ params.aws_conn_id }}",
        "retries": 2,
        "retry_delay": timedelta(seconds=10),
    },
    tags=["example", "lookoutvision"],
) as dag:
    create_project = LookoutVisionCreateProjectOperator(
        task_id="create_project",
        project_name="{{ params.project_name }}",
        if_exists="skip",
    )
    # Datasets that are there are used as they are: a project's labels outlive any one training.
    datasets = [
        LookoutVisionCreateDatasetOperator(
            task_id=f"create_{dataset_type}_dataset",
            project_name=create_project.output["ProjectName"],
            dataset_type=dataset_type,
            manifest_s3_uri=f"{{{{ params.{dataset_type}_manifest }}}}",
            if_exists="skip",
            waiter_delay=2,
        )
        for dataset_type in ("train", "test")
    ]
    # [START howto_operator_lookoutvision_create_model]
    create_model = LookoutVisionCreateModelOperator(
        task_id="create_model",
        project_name=create_project.output["ProjectName"],
        output_s3_prefix="{{ params.evaluation }}",
        min_f1="{{ params.min_f1 }}",
        tags={"stage": "{{ params.stage }}"},
        waiter_delay=5,
    )
    # [END howto_operator_lookoutvision_create_model]
    # [START howto_operator_lookoutvision_set_threshold]
    set_threshold = LookoutVisionSetThresholdOperator(
        task_id="set_threshold",
        project_name=create_project.output["ProjectName"],
        model_version=create_model.output["ModelVersion"],
        min_recall="{{ params.min_recall }}",
    )
    # [END howto_operator_lookoutvision_set_threshold]

    @task
    def report(version: str, evaluation: dict[str, str], **context: Any) -> dict[str, Any]:
        """Read the evaluation, which knows more than the model's description: each class of defects, too."""
        from airflow.providers.amazon.aws.hooks.s3 import S3Hook

        s3 = S3Hook(aws_conn_id=context["params"]["aws_conn_id"])
        result = json.loads(s3.read_key(evaluation["Key"], evaluation["Bucket"]))
        metrics: dict[str, Any] = result["AggregatedEvaluationResults"]["Metrics"]
        print(
            f"model {version}: F1 {metrics['F1Score']:.3f}, precision {metrics['Precision']:.3f}, "
            f"recall {metrics['Recall']:.3f}"
        )
        for defect in metrics.get("PixelAnomalyClassMetrics", ()):
            print(
                f"{defect['ClassName']}: F1 of its pixels {defect['F1Score']:.3f}, IoU {defect['AIOU']:.3f}"
            )
        return metrics

    datasets >> create_model >> set_threshold
    report(create_model.output["ModelVersion"], create_model.output["EvaluationResult"])
