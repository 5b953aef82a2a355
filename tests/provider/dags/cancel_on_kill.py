"""A DAG whose tasks wait until somebody acts on them, or on their process."""

from __future__ import annotations

import os
import signal
import threading
import time
from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_lookoutvision.operators import batch
from airflow_provider_lookoutvision.operators.lookoutvision import (
    LookoutVisionCreateModelOperator,
    LookoutVisionDetectAnomaliesOperator,
    LookoutVisionStartModelOperator,
)


def end_the_first_try(context: Any) -> None:
    """Send SIGTERM when the training has begun, as a worker does that shuts down."""

    def end() -> None:
        while not context["task"].cancellation():
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGTERM)

    if context["ti"].try_number == 1:
        threading.Thread(target=end, daemon=True).start()


def save_often(context: Any) -> None:
    batch.PART_RESULTS = 2


with DAG(
    "be_killed",
    schedule=None,
    params={"idle": "aws_default", "deaf": "aws_default", "slow": "aws_default"},
    default_args={"retries": 1, "retry_delay": timedelta(seconds=1)},
):
    for task_id, cancel_on_kill, deferrable in (
        ("train", False, False),
        ("train_and_cancel", True, False),
        ("train_and_cancel_deferred", True, True),
        ("train_and_retry", True, False),
    ):
        LookoutVisionCreateModelOperator(
            task_id=task_id,
            aws_conn_id="{{ params.idle }}",
            project_name=task_id,
            output_s3_prefix="s3://models/",
            waiter_delay=1,
            cancel_on_kill=cancel_on_kill,
            deferrable=deferrable,
            defer_after=0,
            pre_execute=end_the_first_try if task_id == "train_and_retry" else None,
        )
    LookoutVisionStartModelOperator(
        task_id="start_and_cancel",
        aws_conn_id="{{ params.deaf }}",
        project_name="plates",
        model_version="1",
        waiter_delay=1,
        cancel_on_kill=True,
    )
    LookoutVisionDetectAnomaliesOperator(
        task_id="detect",
        aws_conn_id="{{ params.slow }}",
        project_name="plates",
        model_version="2",
        images_s3_prefix="s3://images/",
        results_s3_uri="s3://reports/killed.jsonl",
        max_workers=2,
        pre_execute=save_often,
    )
