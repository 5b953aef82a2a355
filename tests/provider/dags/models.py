"""DAGs that train, host and use models."""

from __future__ import annotations

import os
import signal
from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, AirflowFailException, AssetAlias, task

from airflow_provider_lookoutvision.operators import batch
from airflow_provider_lookoutvision.operators.lookoutvision import (
    LookoutVisionCreateModelOperator,
    LookoutVisionDeleteModelOperator,
    LookoutVisionDetectAnomaliesOperator,
    LookoutVisionPromoteModelOperator,
    LookoutVisionStartModelOperator,
    LookoutVisionStopModelOperator,
)


def dag_of(dag_id: str) -> DAG:
    return DAG(
        dag_id=dag_id,
        schedule=None,
        render_template_as_native_obj=True,
        params={"conn_id": "aws_default", "project_name": "plates", "prefixes": []},
        default_args={
            "aws_conn_id": "{{ params.conn_id }}",
            "project_name": "{{ params.project_name }}",
            "retries": 1,
            "retry_delay": timedelta(seconds=1),
        },
    )


def kill_the_first_try(context: Any, result: Any = None) -> None:
    if context["ti"].try_number == 1:
        os.kill(os.getpid(), signal.SIGKILL)


with dag_of("train_host_and_fail"):
    """The training's task is killed once, and what needs the hosted model fails."""
    create = LookoutVisionCreateModelOperator(
        task_id="create",
        output_s3_prefix="s3://plates/evaluation/",
        tags={"line": "7"},
        waiter_delay=0.5,
        post_execute=kill_the_first_try,
    )
    start = LookoutVisionStartModelOperator(
        task_id="start", model_version="latest", waiter_delay=0.5, deferrable=True, defer_after=0
    ).as_setup()

    @task(retries=0)
    def work(model_version: str) -> None:
        raise AirflowFailException(f"not with model {model_version}")

    stop = LookoutVisionStopModelOperator(
        task_id="stop", model_version=start.output["ModelVersion"], waiter_delay=0.5
    ).as_teardown()
    create >> start
    work(start.output["ModelVersion"]) >> stop

with dag_of("train_deferred_and_delete"):
    create = LookoutVisionCreateModelOperator(
        task_id="create",
        output_s3_prefix="s3://plates/evaluation/",
        waiter_delay=0.5,
        min_f1="{{ 0.5 }}",
        deferrable=True,
        defer_after=0,
        outlets=[AssetAlias("models")],
    )
    promote = LookoutVisionPromoteModelOperator(
        task_id="promote",
        model_version=create.output["ModelVersion"],
        start=False,
        outlets=[AssetAlias("models in use")],
        post_execute=kill_the_first_try,
    )
    promote >> LookoutVisionDeleteModelOperator(
        task_id="delete", model_version=create.output["ModelVersion"], deferrable=True, waiter_delay=0.5
    )

with dag_of("detect_mapped"):

    def die_in_the_middle(context: Any) -> None:
        """Kill the first try of the first mapped task when it has saved its second part."""
        batch.PART_RESULTS, batch.PART_SECONDS = 4, 3600.0
        save = batch.Checkpoint.save

        def save_and_die(self: Any, results: Any) -> None:
            save(self, results)
            if self._count == 2:
                os.kill(os.getpid(), signal.SIGKILL)

        if context["ti"].try_number == 1 and context["ti"].map_index == 0:
            batch.Checkpoint.save = save_and_die  # type: ignore[method-assign]

    @task
    def prefixes(params: dict[str, Any] | None = None) -> list[str]:
        return list((params or {})["prefixes"])

    @task
    def collect(totals: list[int]) -> list[int]:
        return list(totals)

    detect = LookoutVisionDetectAnomaliesOperator.partial(
        task_id="detect",
        model_version="1",
        results_s3_uri="s3://reports/{{ run_id }}/{{ ti.map_index }}.jsonl",
        outlets=[AssetAlias("verdicts")],
        pre_execute=die_in_the_middle,
    ).expand(images_s3_prefix=prefixes())
    collect(detect.output["total"])

    @task(trigger_rule="all_failed")
    def stop_the_line() -> None:
        """What is done about a gate that fails."""

    (
        LookoutVisionDetectAnomaliesOperator(
            task_id="detect_too_many",
            model_version="1",
            images_s3_prefix="{{ params.prefixes[1] }}",
            results_s3_uri="s3://reports/{{ run_id }}/too-many.jsonl",
            max_anomaly_rate="{{ 0.25 }}",
            min_images="{{ 13 }}",
            outlets=[AssetAlias("verdicts")],
        )
        >> stop_the_line()
    )
