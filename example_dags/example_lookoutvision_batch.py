"""Every night, look at the day's images of each station, with the model in use.

Below ``images`` there is a folder for each station of the line, however many there are tonight: each becomes
a mapped task, and a retry of one goes on where it ended. The model is hosted for the night's work only, and
stopped whatever becomes of it.

The model in use is the newest that is tagged ``stage=production``: ``example_lookoutvision_train`` trains one
of the same project, and ``example_lookoutvision_promote`` keeps the better one in use. A station with more
anomalies than usual is worth a warning in the log. The verdicts are announced, and so start
``example_lookoutvision_review``: there people label the images that the model was least sure of.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from airflow.providers.common.compat.sdk import DAG, AssetAlias, Param, task

from airflow_provider_lookoutvision.operators.lookoutvision import (
    LookoutVisionDetectAnomaliesOperator,
    LookoutVisionStartModelOperator,
    LookoutVisionStopModelOperator,
)

with DAG(
    dag_id="example_lookoutvision_batch",
    doc_md=__doc__,
    schedule="0 2 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    is_paused_upon_creation=True,
    catchup=False,
    # Two nights at a time would stop each other's model.
    max_active_runs=1,
    params={
        "aws_conn_id": Param("aws_default", type="string", description="The connection to the service"),
        "project_name": Param("machined-parts", type="string", description="A project with a model in use"),
        "images": Param("s3://images/line/", type="string", description="Where the images are"),
        "results": Param("s3://results/nightly/", type="string", description="Where verdicts go"),
        "masks": Param("s3://results/masks/", type="string", description="Where masks go"),
        "max_anomaly_rate": Param(
            0.1, type="number", minimum=0, maximum=1, description="More is worth a warning"
        ),
    },
    default_args={
        "aws_conn_id": "{{ params.aws_conn_id }}",
        "retries": 2,
        "retry_delay": timedelta(seconds=10),
    },
    tags=["example", "lookoutvision"],
) as dag:

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
        model_version="stage=production",
        waiter_delay=2,
    ).as_setup()

    # [START howto_operator_lookoutvision_detect_anomalies_mapped]
    detect = LookoutVisionDetectAnomaliesOperator.partial(
        task_id="detect_anomalies",
        project_name="{{ params.project_name }}",
        model_version=start.output["ModelVersion"],
        masks_s3_prefix="{{ params.masks }}",
        max_anomaly_rate="{{ params.max_anomaly_rate }}",
        on_gate_failure="warn",
        max_active_tis_per_dagrun=2,
        outlets=[AssetAlias("machined-parts-verdicts")],
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
            print(f"The model is least sure of {', '.join(summary['uncertain_refs'])}")
        counts = ("total", "anomalous", "normal", "failed")
        return {name: sum(summary[name] for summary in summaries) for name in counts}

    start >> detect >> [stop, report(detect.output)]
