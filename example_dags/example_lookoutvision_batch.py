"""Every night, look at the day's images of each station, with the model in use.

Below ``images`` there is a folder for each station of the line, however many there are tonight: each becomes
a mapped task, and a retry of one goes on where it ended. The model is hosted for the night's work only, and
stopped whatever becomes of it.

The model in use is the newest that is tagged ``stage=production``: see ``example_lookoutvision_promote``.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from airflow.providers.common.compat.sdk import DAG, AirflowFailException, task

from airflow_provider_lookoutvision.operators.lookoutvision import (
    LookoutVisionDetectAnomaliesOperator,
    LookoutVisionStartModelOperator,
    LookoutVisionStopModelOperator,
)

with DAG(
    dag_id="example_lookoutvision_batch",
    schedule="0 2 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    is_paused_upon_creation=True,
    catchup=False,
    # Two nights at a time would stop each other's model.
    max_active_runs=1,
    params={
        "aws_conn_id": "aws_default",
        "project_name": "machined-parts",
        "images": "s3://images/line/",
        "results": "s3://results/nightly/",
        "masks": "s3://results/masks/",
    },
    default_args={
        "aws_conn_id": "{{ params.aws_conn_id }}",
        "retries": 2,
        "retry_delay": timedelta(seconds=10),
    },
    tags=["example", "lookoutvision"],
) as dag:

    @task
    def model_in_use(**context: Any) -> str:
        """The version of the newest model that is tagged ``stage=production``."""
        from airflow_provider_lookoutvision.hooks.lookoutvision import LookoutVisionHook

        params = context["params"]
        hook = LookoutVisionHook(aws_conn_id=params["aws_conn_id"])
        newest_first = sorted(
            hook.iter_models(params["project_name"]), key=lambda model: -int(model["ModelVersion"])
        )
        for model in newest_first:
            if hook.tags(model["ModelArn"]).get("stage") == "production":
                return str(model["ModelVersion"])
        raise AirflowFailException(f"No model of {params['project_name']} is tagged stage=production")

    @task
    def stations(**context: Any) -> list[dict[str, str]]:
        """Where each station's images are, and where what is found in them goes."""
        from airflow.providers.amazon.aws.hooks.s3 import S3Hook

        params = context["params"]
        line = urlsplit(params["images"])
        s3 = S3Hook(aws_conn_id=params["aws_conn_id"])
        folders = s3.list_prefixes(line.netloc, line.path.lstrip("/"), delimiter="/")
        names = [folder.rstrip("/").rpartition("/")[2] for folder in folders]
        return [
            {
                "images_s3_prefix": f"{params['images']}{name}/",
                "results_s3_uri": f"{params['results']}{context['run_id']}/{name}.jsonl",
            }
            for name in names
        ]

    start = LookoutVisionStartModelOperator(
        task_id="start_model",
        project_name="{{ params.project_name }}",
        model_version=model_in_use(),
        waiter_delay=2,
    ).as_setup()

    # [START howto_operator_lookoutvision_detect_anomalies_mapped]
    detect = LookoutVisionDetectAnomaliesOperator.partial(
        task_id="detect_anomalies",
        project_name="{{ params.project_name }}",
        model_version=start.output["ModelVersion"],
        masks_s3_prefix="{{ params.masks }}",
        max_active_tis_per_dagrun=2,
    ).expand_kwargs(stations())
    # [END howto_operator_lookoutvision_detect_anomalies_mapped]

    stop = LookoutVisionStopModelOperator(
        task_id="stop_model",
        project_name="{{ params.project_name }}",
        model_version=start.output["ModelVersion"],
        waiter_delay=2,
    ).as_teardown(setups=start)

    @task
    def report(summaries: list[dict[str, Any]]) -> dict[str, int]:
        """Report the counts of each station, and in all."""
        for summary in summaries:
            print(f"{summary['results_s3_uri']}: {summary['anomalous']} of {summary['total']} anomalous")
        counts = ("total", "anomalous", "normal", "failed")
        return {name: sum(summary[name] for summary in summaries) for name in counts}

    start >> detect >> [stop, report(detect.output)]
