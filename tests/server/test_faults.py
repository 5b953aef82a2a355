"""Answers that get lost, and servers that die: who asks again learns what happened, and it happened once."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException

import pytest
from project_calls import PROJECTS, Caller
from services import NewDatabase, Storage, client_of, storage_of
from signed_http import Answer, Wire

from airflow_provider_lookoutvision.testing.lossy_proxy import Exchange, LossyProxy
from airflow_provider_lookoutvision.testing.service import Service, running_service


@pytest.fixture(scope="module")
def victim(
    database: str, new_database: NewDatabase, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """A service to be killed; whoever kills it starts it again."""
    folder = tmp_path_factory.mktemp(f"victim-{database}")
    with running_service(folder, [*new_database(), "--no-worker"]) as service:
        yield service


@pytest.fixture(scope="module")
def victims_storage(victim: Service) -> Iterator[Storage]:
    with storage_of(victim) as storage:
        yield storage


@pytest.fixture
def caller(victim: Service, victims_storage: Storage, account: str) -> Caller:
    return Caller(Wire(victim.endpoint_url, victims_storage.new_key(account)))


def test_an_answer_that_is_lost_is_given_again(victim: Service, caller: Caller) -> None:
    lost: list[Exchange] = []

    def lose_the_first_of_each_method(exchange: Exchange) -> bool:
        if any(exchange.method == before.method for before in lost):
            return False
        lost.append(exchange)
        return True

    with LossyProxy(victim.endpoint_url, lose_the_first_of_each_method) as proxy:
        client = client_of(proxy.endpoint_url, caller.wire.key, attempts=2)
        made = client.create_project(ProjectName="p")
        deleted = client.delete_project(ProjectName="p")
    assert [exchange.status for exchange in lost] == [200, 200]
    assert made["ResponseMetadata"]["RetryAttempts"] == deleted["ResponseMetadata"]["RetryAttempts"] == 1
    assert made["ProjectMetadata"]["ProjectArn"] == deleted["ProjectArn"]
    creates = [exchange for exchange in proxy.exchanges if exchange.method == "POST"]
    assert len({exchange.client_token for exchange in creates}) == 1
    assert creates[0].answer == creates[1].answer


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_a_server_that_dies_between_its_commit_and_its_answer(
    method: str, victim: Service, caller: Caller
) -> None:
    if method == "DELETE":
        caller.create("p")

    def kill(_exchange: Exchange) -> bool:
        victim.kill()
        return True

    with LossyProxy(victim.endpoint_url, kill) as proxy:
        through = Caller(Wire(proxy.endpoint_url, caller.wire.key))
        with pytest.raises((OSError, HTTPException)):
            through.create("p", "t") if method == "POST" else through.delete("p", "t")
    victim.start()

    (exchange,) = proxy.exchanges
    assert exchange.status == 200
    assert caller.names() == (["p"] if method == "POST" else [])
    again = caller.create("p", "t") if method == "POST" else caller.delete("p", "t")
    assert (again.status, again.body) == (200, exchange.answer)


@pytest.mark.parametrize("answers_before_death", [1, 20, 41])
def test_a_server_that_dies_while_many_create(
    answers_before_death: int, victim: Service, caller: Caller
) -> None:
    answered: dict[str, Answer] = {}
    asked: set[str] = set()
    enough = threading.Event()

    def create_on_and_on(who: int) -> None:
        for number in range(1000):
            name = f"p-{who}-{number}"
            asked.add(name)
            try:
                answer = caller.create(name, f"t-{name}")
            except (OSError, HTTPException):
                return
            assert answer.status == 200
            answered[name] = answer
            if len(answered) >= answers_before_death:
                enough.set()

    with ThreadPoolExecutor(8) as pool:
        crowd = [pool.submit(create_on_and_on, who) for who in range(8)]
        assert enough.wait(60)
        victim.kill()
        for member in crowd:
            member.result()
    victim.start()

    pages = client_of(victim.endpoint_url, caller.wire.key).get_paginator("list_projects").paginate()
    there = {project["ProjectName"]: project for page in pages for project in page["Projects"]}
    # What was answered is there; what is there was asked for; what was neither is now told to the asker.
    assert set(answered) <= set(there) <= asked
    unanswered = asked - set(answered)
    assert unanswered
    for name in asked:
        again = caller.create(name, f"t-{name}")
        assert again.status == 200
        if name in answered:
            assert again.body == answered[name].body
        if name in there:
            made = there[name]["CreationTimestamp"].timestamp()
            assert json.loads(again.body)["ProjectMetadata"]["CreationTimestamp"] == pytest.approx(
                made, abs=1e-6
            )


def test_a_server_that_dies_while_many_ask_the_same(victim: Service, caller: Caller) -> None:
    asked = threading.Barrier(9)

    def create() -> Answer | None:
        asked.wait()
        try:
            return caller.create("p", "t")
        except (OSError, HTTPException):
            return None

    with ThreadPoolExecutor(8) as pool:
        crowd = [pool.submit(create) for _ in range(8)]
        asked.wait()
        victim.kill()
        answers = [member.result() for member in crowd]
    victim.start()
    again = caller.create("p", "t")
    assert again.status == 200
    assert {answer.body for answer in answers if answer} <= {again.body}
    assert caller.names() == ["p"]
    assert caller.wire.send("GET", f"{PROJECTS}/p").status == 200
