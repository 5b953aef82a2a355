"""Whose project it is: mapped tasks, groups, other people's projects, and input that is refused at once.

They run as real Airflow tasks, on a real service; all runs that the tests need are triggered at the start.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC

import pytest
from airflow_and_service import Deployment, LossyConnection, client_of
from airflow_instance import Run
from airflow_rest import REST

from airflow_provider_lookoutvision.idempotency import client_token

pytestmark = [pytest.mark.timeout(3600), pytest.mark.usefixtures("_trigger_all")]


# -- mapped tasks and groups -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run_mapped(deployment: Deployment) -> Run:
    return deployment.airflow.run(
        "create_mapped", conn_id=deployment.conn_id, names=["map-a", "map-b", "map-c"]
    )


def test_mapped_tasks_make_a_project_each(deployment: Deployment, run_mapped: Run) -> None:
    run_mapped.wait_for_success()

    assert run_mapped.xcom("collect") == ["map-a", "map-b", "map-c"]
    assert len(deployment.projects("map-")) == 3
    assert run_mapped.xcom("create", map_index=1)["ProjectName"] == "map-b"


@pytest.fixture(scope="module")
def run_mapped_to_one_name(deployment: Deployment) -> Run:
    return deployment.airflow.run("create_mapped", conn_id=deployment.conn_id, names=["one-name", "one-name"])


def test_one_of_two_mapped_tasks_gets_the_name_on_every_try(
    deployment: Deployment, run_mapped_to_one_name: Run
) -> None:
    run = run_mapped_to_one_name
    assert run.wait() == "failed"
    states = [run.task("create", index).state for index in (0, 1)]
    assert sorted(states) == ["failed", "success"]
    loser, winner = states.index("failed"), states.index("success")
    made = run.xcom("create", map_index=winner)

    run.clear("create")
    assert run.wait() == "failed"

    assert [run.task("create", index).state for index in (0, 1)] == states
    assert [run.task("create", index).try_number for index in (0, 1)] == [2, 2]
    for try_number in (1, 2):
        assert "did not create it" in run.log("create", try_number, loser)
    assert run.xcom("create", map_index=winner) == made
    assert len(deployment.projects("one-name")) == 1


@pytest.fixture(scope="module")
def run_in_groups(deployment: Deployment) -> Iterator[tuple[Run, LossyConnection]]:
    with deployment.losing(lambda _: False) as lossy:
        yield deployment.airflow.run("create_in_groups", conn_id=lossy.conn_id, project_name="group"), lossy


def test_a_group_is_part_of_the_identity(
    deployment: Deployment, run_in_groups: tuple[Run, LossyConnection]
) -> None:
    run, lossy = run_in_groups
    run.wait_for_success()

    tokens = {client_token(run.context(task)) for task in ("left.create", "right.create")}
    assert len(tokens) == 2
    assert set(lossy.tokens()) == tokens
    assert len(deployment.projects("group-")) == 2


# -- other people's projects -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run_using_anothers(deployment: Deployment) -> Run:
    client_of(deployment.service).create_project(ProjectName="theirs-to-use")
    return deployment.airflow.run(
        "create", conn_id=deployment.conn_id, project_name="theirs-to-use", if_exists="skip"
    )


def test_uses_somebody_elses_project_with_if_exists_skip(
    deployment: Deployment, run_using_anothers: Run
) -> None:
    run_using_anothers.wait_for_success()

    (theirs,) = deployment.projects("theirs-to-use")
    assert run_using_anothers.xcom("create") == {
        "ProjectArn": theirs["ProjectArn"],
        "ProjectName": "theirs-to-use",
        "CreationTimestamp": theirs["CreationTimestamp"].astimezone(UTC).isoformat(),
    }
    assert "which this task instance did not create" in run_using_anothers.log("create", 1)


@pytest.fixture(scope="module")
def run_refusing_anothers(deployment: Deployment) -> Run:
    client_of(deployment.service).create_project(ProjectName="theirs-to-keep")
    return deployment.airflow.run("create", conn_id=deployment.conn_id, project_name="theirs-to-keep")


def test_fails_at_once_on_somebody_elses_project(run_refusing_anothers: Run) -> None:
    assert run_refusing_anothers.wait() == "failed"

    assert run_refusing_anothers.task("create").try_number == 1
    assert "if_exists='skip'" in run_refusing_anothers.log("create", 1)


@pytest.fixture(scope="module")
def run_of_the_first_airflow(deployment: Deployment) -> Run:
    conn_id = deployment.airflow.connection(
        deployment.service.endpoint_url, deployment.service, client_token_namespace="plant-1"
    )
    return deployment.airflow.run("create", "a-run", conn_id=conn_id, project_name="shared")


def test_a_namespace_keeps_two_airflows_apart(deployment: Deployment, run_of_the_first_airflow: Run) -> None:
    run_of_the_first_airflow.wait_for_success()
    made = run_of_the_first_airflow.xcom("create")

    # Another Airflow with the same DAGs: this one, after it has forgotten the run.
    outcomes = {}
    for namespace in ("plant-2", "plant-1"):
        run_of_the_first_airflow.delete()
        conn_id = deployment.airflow.connection(
            deployment.service.endpoint_url, deployment.service, client_token_namespace=namespace
        )
        run = deployment.airflow.run("create", "a-run", conn_id=conn_id, project_name="shared")
        outcomes[namespace] = run.wait()
    if REST.has_task_state_store:  # a run that is created again under its ID is another run
        assert outcomes == {"plant-2": "failed", "plant-1": "failed"}
        assert "did not create it" in run.log("create", 1)
    else:  # the limit that docs/exactly-once.md describes
        assert outcomes == {"plant-2": "failed", "plant-1": "success"}
        assert run.xcom("create") == made


# -- faults of the input ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run_with_an_invalid_name(deployment: Deployment) -> Iterator[tuple[Run, LossyConnection]]:
    with deployment.losing(lambda _: False) as lossy:
        yield deployment.airflow.run("create", conn_id=lossy.conn_id, project_name="-line 4"), lossy


def test_an_invalid_name_is_refused_before_any_call(
    run_with_an_invalid_name: tuple[Run, LossyConnection],
) -> None:
    run, lossy = run_with_an_invalid_name
    assert run.wait() == "failed"

    assert run.task("create").try_number == 1
    assert "1 to 255 characters that match" in run.log("create", 1)
    assert not lossy.proxy.exchanges


@pytest.fixture(scope="module")
def run_without_permission(deployment: Deployment) -> Run:
    key = deployment.service.new_key(allow=["lookoutvision:List*"])
    conn_id = deployment.airflow.connection(deployment.service.endpoint_url, key)
    return deployment.airflow.run("create", conn_id=conn_id, project_name="forbidden")


def test_a_missing_permission_fails_at_once(deployment: Deployment, run_without_permission: Run) -> None:
    assert run_without_permission.wait() == "failed"

    assert run_without_permission.task("create").try_number == 1
    assert "AccessDeniedException" in run_without_permission.log("create", 1)


# -- the example -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run_of_the_example(deployment: Deployment) -> Run:
    return deployment.airflow.run(
        "example_lookoutvision_project", aws_conn_id=deployment.conn_id, project_name="the-example"
    )


def test_the_example_works(deployment: Deployment, run_of_the_example: Run) -> None:
    run_of_the_example.wait_for_success()

    assert "project/the-example was created at 20" in run_of_the_example.log("report", 1)
    assert not deployment.projects("the-example")
