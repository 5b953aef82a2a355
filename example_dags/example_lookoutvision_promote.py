"""Train the project's next model, compare it with the one in use, and put the better one into use.

The model in use is the one that is tagged ``stage=production``. A candidate that is at least as good, plus
``min_gain``, takes the tag over, and the model before it is tagged ``stage=retired``: to go back is to tag it
again. A candidate that isn't is deleted. The two are compared by their F1 scores on the project's test
dataset.

It works on the project of ``example_lookoutvision_train``, which trains the first model.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.common.compat.sdk import DAG, Param, task

from airflow_provider_lookoutvision.operators.lookoutvision import (
    LookoutVisionCreateModelOperator,
    LookoutVisionDeleteModelOperator,
    LookoutVisionPromoteModelOperator,
)

with DAG(
    dag_id="example_lookoutvision_promote",
    doc_md=__doc__,
    schedule=None,
    params={
        "aws_conn_id": Param("aws_default", type="string", description="The connection to the service"),
        "project_name": Param("machined-parts", type="string", description="A project with datasets"),
        "evaluation": Param("s3://results/evaluation/", type="string", description="Where evaluations go"),
        "min_gain": Param(
            0.0, type="number", minimum=-1, maximum=1, description="How much better the F1 score must be"
        ),
    },
    default_args={
        "aws_conn_id": "{{ params.aws_conn_id }}",
        "retries": 2,
        "retry_delay": timedelta(seconds=10),
    },
    # Two at a time would each compare with the same model, and both might win.
    max_active_runs=1,
    tags=["example", "lookoutvision"],
) as dag:
    create_model = LookoutVisionCreateModelOperator(
        task_id="create_model",
        project_name="{{ params.project_name }}",
        output_s3_prefix="{{ params.evaluation }}",
        tags={"stage": "candidate"},
        waiter_delay=5,
    )

    # [START howto_operator_lookoutvision_promote_model]
    promote = LookoutVisionPromoteModelOperator(
        task_id="promote",
        project_name="{{ params.project_name }}",
        model_version=create_model.output["ModelVersion"],
        metric="F1Score",
        min_gain="{{ params.min_gain }}",
        tag="stage=production",
        replaced_tag="stage=retired",
        if_not_better="succeed",
        start=False,
    )
    # [END howto_operator_lookoutvision_promote_model]

    @task.short_circuit
    def is_turned_down(promoted: bool) -> bool:
        return not promoted

    # [START howto_operator_lookoutvision_delete_model]
    delete_candidate = LookoutVisionDeleteModelOperator(
        task_id="delete_candidate",
        project_name="{{ params.project_name }}",
        model_version=create_model.output["ModelVersion"],
    )
    # [END howto_operator_lookoutvision_delete_model]

    is_turned_down(promote.output["promoted"]) >> delete_candidate
