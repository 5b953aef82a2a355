"""When the train dataset has changed, train a model; it goes into use if it is better and somebody approves.

The event of the dataset's asset starts it: ``example_lookoutvision_arrivals`` and
``example_lookoutvision_review`` announce under its alias. The approval shows the metrics. It needs Airflow
3.1; before, the better model goes into use without one.

It works on the project of ``example_lookoutvision_train``.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.sdk import (
    DAG,
    AirflowOptionalProviderFeatureException,
    AssetAlias,
    Param,
)

from airflow_provider_lookoutvision.operators.lookoutvision import (
    LookoutVisionCreateModelOperator,
    LookoutVisionPromoteModelOperator,
)

try:
    from airflow.providers.standard.operators.hitl import ApprovalOperator
except (ImportError, AirflowOptionalProviderFeatureException):
    ApprovalOperator = None  # type: ignore[assignment,misc]

with DAG(
    dag_id="example_lookoutvision_retrain",
    doc_md=__doc__,
    schedule=[AssetAlias("machined-parts-dataset")],
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    is_paused_upon_creation=True,
    max_active_runs=1,
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
    tags=["example", "lookoutvision"],
) as dag:
    create_model = LookoutVisionCreateModelOperator(
        task_id="create_model",
        project_name="{{ params.project_name }}",
        output_s3_prefix="{{ params.evaluation }}",
        tags={"stage": "candidate"},
        waiter_delay=5,
        outlets=[AssetAlias("machined-parts-models")],
    )
    promote = LookoutVisionPromoteModelOperator(
        task_id="promote",
        project_name="{{ params.project_name }}",
        model_version=create_model.output["ModelVersion"],
        min_gain="{{ params.min_gain }}",
        if_not_better="skip",
        start=False,
        outlets=[AssetAlias("machined-parts-in-use")],
    )
    if ApprovalOperator is None:
        create_model >> promote
    else:
        approve = ApprovalOperator(
            task_id="approve",
            subject="Put model {{ ti.xcom_pull('create_model')['ModelVersion'] }} into use?",
            body="""
| Metric | Value |
| --- | --- |
{% for name, value in ti.xcom_pull('create_model')['Performance'].items() -%}
| {{ name }} | {{ '%.3f' % value }} |
{% endfor %}
""",
        )
        create_model >> approve >> promote
