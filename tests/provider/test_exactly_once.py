"""A lost answer, a killed process, a clear: one project, in real Airflow tasks against a real service.

All runs that the selected tests need are triggered at the start, and each test then looks at its own. Airflow
and its tasks run far from UTC, in Asia/Kolkata. A dropped answer is dropped for the whole first try:
botocore's own second attempt, with the same token, is lost too.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from airflow_and_service import ATTEMPTS_OF_A_TRY, Deployment, LossyConnection, client_of, the_first
from airflow_instance import Run

from airflow_provider_lookoutvision.idempotency import client_token, previous_tokens
from airflow_provider_lookoutvision.testing.lossy_proxy import Exchange
from airflow_provider_lookoutvision.testing.service import running_service

pytestmark = [pytest.mark.timeout(3600), pytest.mark.usefixtures("_trigger_all")]


# -- the answer is lost ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run_with_lost_answers(deployment: Deployment) -> Iterator[tuple[Run, LossyConnection]]:
    with deployment.losing(the_first(ATTEMPTS_OF_A_TRY)) as lossy:
        yield deployment.airflow.run("create", conn_id=lossy.conn_id, project_name="answer-lost"), lossy


def test_a_lost_answer_makes_one_project(
    deployment: Deployment, run_with_lost_answers: tuple[Run, LossyConnection]
) -> None:
    run, lossy = run_with_lost_answers
    run.wait_for_success()

    assert run.task("create").try_number == 2
    assert [exchange.dropped for exchange in lossy.proxy.exchanges] == [True, True, False]
    assert lossy.tokens() == [client_token(run.context("create"))] * 3
    (project,) = deployment.projects("answer-lost")
    assert run.xcom("create") == {
        "ProjectArn": project["ProjectArn"],
        "ProjectName": "answer-lost",
        "CreationTimestamp": project["CreationTimestamp"].astimezone(UTC).isoformat(),
    }


def test_the_metadata_feeds_the_next_task_far_from_utc(
    deployment: Deployment, run_with_lost_answers: tuple[Run, LossyConnection]
) -> None:
    run, _ = run_with_lost_answers
    run.wait_for_success()

    received = run.xcom("receive")
    assert received["zone"] == "IST"  # else this test shows nothing
    assert (received["name"], received["arn"]) == ("answer-lost", run.xcom("create", "ProjectArn"))
    created = datetime.fromisoformat(received["created"])
    assert created.utcoffset() == timedelta(0)
    assert created == deployment.projects("answer-lost")[0]["CreationTimestamp"]


@pytest.fixture(scope="module")
def run_with_new_tokens(deployment: Deployment) -> Iterator[Run]:
    with deployment.losing(the_first(ATTEMPTS_OF_A_TRY)) as lossy:
        yield deployment.airflow.run(
            "create_with_a_new_token_on_every_try", conn_id=lossy.conn_id, project_name="uuid"
        )


def test_the_same_with_a_random_token_fails(deployment: Deployment, run_with_new_tokens: Run) -> None:
    assert run_with_new_tokens.wait() == "failed"

    assert run_with_new_tokens.task("create").try_number == 2
    assert "did not create it" in run_with_new_tokens.log("create", 2)
    assert len(deployment.projects("uuid")) == 1


@pytest.fixture(scope="module")
def run_with_a_killed_service(deployment: Deployment) -> Iterator[tuple[Run, list[int]]]:
    lose = the_first(ATTEMPTS_OF_A_TRY)
    killed: list[int] = []

    def kill_after_the_commit(exchange: Exchange) -> bool:
        if exchange.method == "POST" and not killed:
            killed.append(service.process.pid)
            service.kill()
            service.start()
        return lose(exchange)

    with running_service() as service, deployment.losing(kill_after_the_commit, service) as lossy:
        yield deployment.airflow.run("create", conn_id=lossy.conn_id, project_name="killed"), killed
        assert [p["ProjectName"] for p in client_of(service).list_projects()["Projects"]] == ["killed"]


def test_a_service_killed_after_its_commit_remembers(
    run_with_a_killed_service: tuple[Run, list[int]],
) -> None:
    run, killed = run_with_a_killed_service
    run.wait_for_success()

    assert killed
    assert run.task("create").try_number == 2
    assert run.xcom("create", "ProjectName") == "killed"


@pytest.fixture(scope="module")
def run_killed(deployment: Deployment) -> Run:
    return deployment.airflow.run(
        "create_and_be_killed", conn_id=deployment.conn_id, project_name="task-killed"
    )


def test_a_killed_task_finds_its_project(deployment: Deployment, run_killed: Run) -> None:
    run_killed.wait_for_success()

    assert run_killed.task("create").try_number == 2
    (project,) = deployment.projects("task-killed")
    assert run_killed.xcom("create", "ProjectArn") == project["ProjectArn"]


@pytest.fixture(scope="module")
def run_renamed(deployment: Deployment) -> Iterator[Run]:
    with deployment.losing(the_first(ATTEMPTS_OF_A_TRY)) as lossy:
        yield deployment.airflow.run(
            "create_with_a_new_name_on_every_try", conn_id=lossy.conn_id, project_name="renamed"
        )


def test_a_name_that_a_retry_renders_differently_is_refused(deployment: Deployment, run_renamed: Run) -> None:
    assert run_renamed.wait() == "failed"

    log = run_renamed.log("create", 2)
    assert "created project 'renamed-1', and this try asks for 'renamed-2'" in log
    assert [project["ProjectName"] for project in deployment.projects("renamed")] == ["renamed-1"]


@pytest.fixture(scope="module")
def run_deleted_meanwhile(deployment: Deployment) -> Iterator[Run]:
    lose = the_first(ATTEMPTS_OF_A_TRY)

    def delete_before_the_retry(exchange: Exchange) -> bool:
        lost = lose(exchange)
        if lost and len(lossy.proxy.exchanges) == ATTEMPTS_OF_A_TRY - 1:
            client_of(deployment.service).delete_project(ProjectName="deleted-meanwhile")
        return lost

    with deployment.losing(delete_before_the_retry) as lossy:
        yield deployment.airflow.run("create", conn_id=lossy.conn_id, project_name="deleted-meanwhile")


def test_a_retry_resurrects_nothing(deployment: Deployment, run_deleted_meanwhile: Run) -> None:
    assert run_deleted_meanwhile.wait() == "failed"

    assert "has been deleted since" in run_deleted_meanwhile.log("create", 2)
    assert not deployment.projects("deleted-meanwhile")


# -- cleared tasks ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run_to_clear(deployment: Deployment) -> Iterator[tuple[Run, LossyConnection]]:
    with deployment.losing(lambda _: False) as lossy:
        yield deployment.airflow.run("create", conn_id=lossy.conn_id, project_name="task-cleared"), lossy


def test_a_cleared_task_finds_its_project(
    deployment: Deployment, run_to_clear: tuple[Run, LossyConnection]
) -> None:
    run, lossy = run_to_clear
    run.wait_for_success()
    before = run.xcom("create")
    first = client_token(run.context("create"))

    for clears in (1, 2):
        run.clear("create")
        run.wait_for_success()

        assert run.xcom("create") == before
        context = run.context("create")
        assert context["ti"].try_number == clears + 1
        assert first in previous_tokens(context)
        assert lossy.tokens()[-1] == first  # the proof of authorship
        assert lossy.tokens()[0] == first != client_token(context) in lossy.tokens()
    assert len(deployment.projects("task-cleared")) == 1


@pytest.fixture(scope="module")
def run_of_a_whole_life(deployment: Deployment) -> Iterator[tuple[Run, LossyConnection]]:
    with deployment.losing(the_first(ATTEMPTS_OF_A_TRY, "DELETE")) as lossy:
        yield (
            deployment.airflow.run("create_and_delete_twice", conn_id=lossy.conn_id, project_name="life"),
            lossy,
        )


def test_a_project_that_is_gone_is_deleted(
    deployment: Deployment, run_of_a_whole_life: tuple[Run, LossyConnection]
) -> None:
    run, lossy = run_of_a_whole_life
    run.wait_for_success()

    assert run.task("delete").try_number == 2  # and the service answered its token as before
    assert lossy.tokens("DELETE")[:3] == [client_token(run.context("delete"))] * 3
    assert "already gone" in run.log("delete_again", 1)
    assert not deployment.projects("life")

    run.clear("create", "delete", "delete_again")  # a new intention: it all happens again
    run.wait_for_success()

    assert "is deleted" in run.log("delete", 3)
    assert not deployment.projects("life")
