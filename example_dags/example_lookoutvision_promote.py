"""Train the project's next model, compare it with the one in use, and put the better one into use.

The model in use is the one that is tagged ``stage=production``. A candidate that is at least as good, plus
``min_gain``, takes the tag over, and the model before it is tagged ``stage=retired``: to go back is to tag it
again. A candidate that isn't is deleted. The two are compared by their F1 scores on the project's test
dataset: when you have changed that, train a model for comparison on the old images too.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_lookoutvision.operators.lookoutvision import (
    LookoutVisionCreateModelOperator,
    LookoutVisionDeleteModelOperator,
)

with DAG(
    dag_id="example_lookoutvision_promote",
    schedule=None,
    params={
        "aws_conn_id": "aws_default",
        "project_name": "machined-parts",
        "evaluation": "s3://results/evaluation/",
        "min_gain": 0.0,
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

    @task
    def models_in_use(**context: Any) -> list[dict[str, Any]]:
        """The models that are tagged ``stage=production``: one, or none at first."""
        from airflow_provider_lookoutvision.hooks.lookoutvision import LookoutVisionHook

        params = context["params"]
        hook = LookoutVisionHook(aws_conn_id=params["aws_conn_id"])
        return [
            {name: model[name] for name in ("ModelVersion", "ModelArn", "Performance")}
            for model in hook.iter_models(params["project_name"])
            if hook.tags(model["ModelArn"]).get("stage") == "production"
        ]

    @task.branch
    def compare(candidate: dict[str, Any], in_use: list[dict[str, Any]], **context: Any) -> str:
        """Choose what becomes of the candidate."""
        f1 = candidate["Performance"]["F1Score"]
        best = max((model["Performance"]["F1Score"] for model in in_use), default=0.0)
        better = f1 >= best + context["params"]["min_gain"]
        versions = ", ".join(model["ModelVersion"] for model in in_use) or "none"
        print(f"candidate: model {candidate['ModelVersion']} with F1 {f1:.3f}")
        print(f"in use: {versions} with F1 {best:.3f}; the candidate is {'' if better else 'not '}promoted")
        return "promote" if better else "delete_candidate"

    @task
    def promote(candidate: dict[str, Any], in_use: list[dict[str, Any]], **context: Any) -> str:
        """Tag the candidate first: for a moment there are two models in use, but never none."""
        from airflow_provider_lookoutvision.hooks.lookoutvision import LookoutVisionHook

        hook = LookoutVisionHook(aws_conn_id=context["params"]["aws_conn_id"])
        hook.tag(candidate["ModelArn"], {"stage": "production"})
        for model in in_use:
            if model["ModelArn"] != candidate["ModelArn"]:
                hook.tag(model["ModelArn"], {"stage": "retired"})
        return str(candidate["ModelVersion"])

    # [START howto_operator_lookoutvision_delete_model]
    delete_candidate = LookoutVisionDeleteModelOperator(
        task_id="delete_candidate",
        project_name="{{ params.project_name }}",
        model_version=create_model.output["ModelVersion"],
    )
    # [END howto_operator_lookoutvision_delete_model]

    in_use = models_in_use()
    choice = compare(create_model.output, in_use)
    create_model >> in_use
    choice >> [promote(create_model.output, in_use), delete_candidate]
