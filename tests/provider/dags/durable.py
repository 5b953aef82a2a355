"""A DAG whose tasks are killed when what they submit is answered: ours, and Amazon's durable ones.

Before Airflow 3.3, which brought durable execution, there is no such DAG.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from airflow.providers.amazon.aws.operators.redshift_data import RedshiftDataOperator
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_lookoutvision.operators.lookoutvision import LookoutVisionCreateModelOperator

try:
    from airflow.sdk import ResumableJobMixin
except ImportError:  # before 3.3
    ResumableJobMixin = None


def kill_first_try_after(method: str) -> Callable[[Any], None]:
    """Kill the first try when a method has returned: of the task, or of its hook (``hook.name``)."""

    def arm(context: Any) -> None:
        if context["ti"].try_number > 1:
            return
        owner = context["task"].hook if method.startswith("hook.") else context["task"]
        name = method.removeprefix("hook.")
        original = getattr(owner, name)

        def die(*arguments: Any, **named: Any) -> None:
            original(*arguments, **named)
            os.kill(os.getpid(), signal.SIGKILL)

        setattr(owner, name, die)

    return arm


if ResumableJobMixin:
    with DAG(
        "durable",
        schedule=None,
        params={"conn_id": "aws_default"},
        default_args={
            "aws_conn_id": "{{ params.conn_id }}",
            "retries": 1,
            "retry_delay": timedelta(seconds=1),
        },
    ):
        for task_id, dies_after, deferrable in (
            ("statement", "hook.execute_query", False),
            ("statement_deferrable", "hook.execute_query", True),
            ("statement_persisted", "poll_until_complete", False),
        ):
            RedshiftDataOperator(
                task_id=task_id,
                sql=f"SELECT '{task_id}'",
                database="parts",
                workgroup_name="parts",
                wait_for_completion=False,
                deferrable=deferrable,
                pre_execute=kill_first_try_after(dies_after),
            )
        for task_id, deferrable in (("model", False), ("model_deferrable", True)):
            LookoutVisionCreateModelOperator(
                task_id=task_id,
                project_name=task_id,
                output_s3_prefix="s3://plates/evaluation/",
                waiter_delay=0.5,
                wait_for_completion=deferrable,
                deferrable=deferrable,
                defer_after=0,
                # It is called at once when CreateModel has answered.
                pre_execute=kill_first_try_after("set_cancellation"),
            )
