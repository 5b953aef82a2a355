"""Lost answers and killed servers: a repeated request gets the first answer, and takes effect once."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException

import pytest
from botocore.exceptions import HTTPClientError
from project_calls import PROJECTS, ProjectClient
from services import NewDatabase, Storage, client_of, storage_of
from signed_http import HttpResponse, SignedHttpClient

from airflow_provider_lookoutvision.testing.lossy_proxy import Exchange, LossyProxy
from airflow_provider_lookoutvision.testing.service import Service, running_service


@pytest.fixture(scope="module")
def killed_service(
    database: str, new_database: NewDatabase, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """A service to be killed; a test that kills it starts it again."""
    folder = tmp_path_factory.mktemp(f"killed_service-{database}")
    with running_service(folder, [*new_database(), "--no-worker"]) as service:
        yield service


@pytest.fixture(scope="module")
def killed_storage(killed_service: Service) -> Iterator[Storage]:
    with storage_of(killed_service) as storage:
        yield storage


@pytest.fixture
def projects_client(killed_service: Service, killed_storage: Storage, account: str) -> ProjectClient:
    return ProjectClient(SignedHttpClient(killed_service.endpoint_url, killed_storage.new_key(account)))


def test_an_answer_that_is_lost_is_given_again(
    killed_service: Service, projects_client: ProjectClient
) -> None:
    lost: list[Exchange] = []

    def lose_the_first_of_each_method(exchange: Exchange) -> bool:
        if any(exchange.method == before.method for before in lost):
            return False
        lost.append(exchange)
        return True

    with LossyProxy(killed_service.endpoint_url, lose_the_first_of_each_method) as proxy:
        client = client_of(proxy.endpoint_url, projects_client.signed_http.key, attempts=2)
        made = client.create_project(ProjectName="p")
        deleted = client.delete_project(ProjectName="p")
    assert [exchange.status for exchange in lost] == [200, 200]
    assert made["ResponseMetadata"]["RetryAttempts"] == deleted["ResponseMetadata"]["RetryAttempts"] == 1
    assert made["ProjectMetadata"]["ProjectArn"] == deleted["ProjectArn"]
    creates = [exchange for exchange in proxy.exchanges if exchange.method == "POST"]
    assert len({exchange.client_token for exchange in creates}) == 1
    assert creates[0].answer == creates[1].answer


def test_a_request_that_is_lost_takes_no_effect_and_one_that_comes_twice_takes_one(
    killed_service: Service, projects_client: ProjectClient
) -> None:
    again: list[Exchange] = []

    def send_again(exchange: Exchange) -> bool:
        again.append(proxy.resend(exchange))
        return False

    lost = iter([True])
    with LossyProxy(killed_service.endpoint_url, send_again, lambda _: next(lost, False)) as proxy:
        client = client_of(proxy.endpoint_url, projects_client.signed_http.key)
        with pytest.raises(HTTPClientError):
            client.create_project(ProjectName="p", ClientToken="t")
        assert client.list_projects()["Projects"] == []
        client.create_project(ProjectName="p", ClientToken="t")
    assert [(exchange.status, exchange.dropped) for exchange in proxy.exchanges] == [
        (None, True),
        (200, False),
        (200, False),
    ]
    assert again[-1].answer == proxy.exchanges[-1].answer


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_a_server_that_dies_between_its_commit_and_its_answer(
    method: str, killed_service: Service, projects_client: ProjectClient
) -> None:
    if method == "DELETE":
        projects_client.create("p")

    def kill(_exchange: Exchange) -> bool:
        killed_service.kill()
        return True

    with LossyProxy(killed_service.endpoint_url, kill) as proxy:
        through = ProjectClient(SignedHttpClient(proxy.endpoint_url, projects_client.signed_http.key))
        with pytest.raises((OSError, HTTPException)):
            through.create("p", "t") if method == "POST" else through.delete("p", "t")
    killed_service.start()

    (exchange,) = proxy.exchanges
    assert exchange.status == 200
    assert projects_client.names() == (["p"] if method == "POST" else [])
    again = projects_client.create("p", "t") if method == "POST" else projects_client.delete("p", "t")
    assert (again.status, again.body) == (200, exchange.answer)


@pytest.mark.parametrize("answers_before_death", [1, 20, 41])
def test_a_server_that_dies_while_many_create(
    answers_before_death: int, killed_service: Service, projects_client: ProjectClient
) -> None:
    answered: dict[str, HttpResponse] = {}
    asked: set[str] = set()
    enough = threading.Event()

    def create_on_and_on(who: int) -> None:
        for number in range(1000):
            name = f"p-{who}-{number}"
            asked.add(name)
            try:
                answer = projects_client.create(name, f"t-{name}")
            except (OSError, HTTPException):
                return
            assert answer.status == 200
            answered[name] = answer
            if len(answered) >= answers_before_death:
                enough.set()

    with ThreadPoolExecutor(8) as pool:
        crowd = [pool.submit(create_on_and_on, who) for who in range(8)]
        assert enough.wait(60)
        killed_service.kill()
        for member in crowd:
            member.result()
    killed_service.start()

    pages = (
        client_of(killed_service.endpoint_url, projects_client.signed_http.key)
        .get_paginator("list_projects")
        .paginate()
    )
    there = {project["ProjectName"]: project for page in pages for project in page["Projects"]}
    # What was answered exists; what exists was requested; the repetition answers all.
    assert set(answered) <= set(there) <= asked
    unanswered = asked - set(answered)
    assert unanswered
    for name in asked:
        again = projects_client.create(name, f"t-{name}")
        assert again.status == 200
        if name in answered:
            assert again.body == answered[name].body
        if name in there:
            made = there[name]["CreationTimestamp"].timestamp()
            assert json.loads(again.body)["ProjectMetadata"]["CreationTimestamp"] == pytest.approx(
                made, abs=1e-6
            )


def test_a_server_that_dies_while_many_ask_the_same(
    killed_service: Service, projects_client: ProjectClient
) -> None:
    asked = threading.Barrier(9)

    def create() -> HttpResponse | None:
        asked.wait()
        try:
            return projects_client.create("p", "t")
        except (OSError, HTTPException):
            return None

    with ThreadPoolExecutor(8) as pool:
        crowd = [pool.submit(create) for _ in range(8)]
        asked.wait()
        killed_service.kill()
        answers = [member.result() for member in crowd]
    killed_service.start()
    again = projects_client.create("p", "t")
    assert again.status == 200
    assert {answer.body for answer in answers if answer} <= {again.body}
    assert projects_client.names() == ["p"]
    assert projects_client.signed_http.send("GET", f"{PROJECTS}/p").status == 200
