"""DAGs that create and delete projects, for tests that break something meanwhile."""

from __future__ import annotations

import os
import signal
import time
from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task, task_group

from airflow_provider_lookoutvision.operators.lookoutvision import (
    LookoutVisionCreateProjectOperator,
    LookoutVisionDeleteProjectOperator,
)


def dag_of(dag_id: str) -> DAG:
    return DAG(
        dag_id=dag_id,
        schedule=None,
        params={"conn_id": "aws_default", "project_name": "unnamed", "if_exists": "fail", "names": []},
        default_args={
            "aws_conn_id": "{{ params.conn_id }}",
            "retries": 1,
            "retry_delay": timedelta(seconds=1),
        },
    )


def kill_the_first_try(context: Any, result: Any = None) -> None:
    if context["ti"].try_number == 1:
        os.kill(os.getpid(), signal.SIGKILL)


@task
def receive(name: str, arn: str, created: str) -> dict[str, Any]:
    return {"name": name, "arn": arn, "created": created, "zone": time.tzname[0]}


with dag_of("create"):
    create = LookoutVisionCreateProjectOperator(
        task_id="create", project_name="{{ params.project_name }}", if_exists="{{ params.if_exists }}"
    )
    receive(create.output["ProjectName"], create.output["ProjectArn"], create.output["CreationTimestamp"])

with dag_of("create_and_be_killed"):
    LookoutVisionCreateProjectOperator(
        task_id="create", project_name="{{ params.project_name }}", post_execute=kill_the_first_try
    )

with dag_of("create_with_a_new_token_on_every_try"):
    LookoutVisionCreateProjectOperator(
        task_id="create", project_name="{{ params.project_name }}", client_token="{{ macros.uuid.uuid4() }}"
    )

with dag_of("create_with_a_new_name_on_every_try"):
    LookoutVisionCreateProjectOperator(
        task_id="create", project_name="{{ params.project_name }}-{{ ti.try_number }}"
    )

with dag_of("create_mapped"):

    @task
    def names(params: dict[str, Any] | None = None) -> list[str]:
        return list((params or {})["names"])

    @task
    def collect(projects: list[str]) -> list[str]:
        return list(projects)

    mapped = LookoutVisionCreateProjectOperator.partial(task_id="create").expand(project_name=names())
    collect(mapped.output["ProjectName"])

with dag_of("create_in_groups"):

    @task_group
    def line(number: str) -> None:
        LookoutVisionCreateProjectOperator(
            task_id="create", project_name=f"{{{{ params.project_name }}}}-{number}"
        )

    line.override(group_id="left")("left")
    line.override(group_id="right")("right")

with dag_of("create_and_delete_twice"):
    (
        LookoutVisionCreateProjectOperator(task_id="create", project_name="{{ params.project_name }}")
        >> LookoutVisionDeleteProjectOperator(task_id="delete", project_name="{{ params.project_name }}")
        >> LookoutVisionDeleteProjectOperator(
            task_id="delete_again", project_name="{{ params.project_name }}"
        )
    )
