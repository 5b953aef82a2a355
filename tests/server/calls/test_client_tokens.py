"""ClientToken: one effect, one answer, for as long as what it made lives."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from random import Random

import pytest
import sqlalchemy as sa
from project_calls import PROJECTS, Caller, at_once
from services import NewKey, Storage
from signed_http import Answer, Wire

from airflow_provider_lookoutvision.server.storage.schema import client_tokens, projects
from airflow_provider_lookoutvision.testing.service import Service

HOUR = 60 * 60 * 1000
DAY = 24 * HOUR


@pytest.fixture
def caller(wire: Wire) -> Caller:
    return Caller(wire)


@pytest.fixture
def pass_time(storage: Storage, account: str) -> Callable[[int], None]:
    """A function: let all that the account's tokens and projects went through be so many ms longer ago."""

    def pass_time(milliseconds: int) -> None:
        with storage.database.write() as connection:
            for table, columns in (
                (client_tokens, ("created_at", "expires_at")),
                (projects, ("created_at",)),
            ):
                earlier = {name: table.c[name] - milliseconds for name in columns}
                connection.execute(table.update().where(table.c.account_id == account).values(earlier))

    return pass_time


def is_conflict(answer: Answer, about: str, name: str = "p") -> bool:
    assert (answer.status, answer.code) == (409, "ConflictException"), answer
    assert (answer.json["ResourceId"], answer.json["ResourceType"]) == (name, "PROJECT")
    assert about in answer.message
    return True


WITH_OTHER_PARAMETERS = "with other parameters"
ALREADY_EXISTS = "already exists"
DELETED_SINCE = "has been deleted since"
CREATED_SINCE = "has been created again since"


def test_the_same_call_again_has_the_same_answer(caller: Caller) -> None:
    first = caller.create("p", "t")
    assert first.status == 200
    caller.create("q", "u")
    again = caller.create("p", "t")
    assert (again.status, again.body) == (200, first.body)
    assert again.request_id != first.request_id
    assert caller.names() == ["p", "q"]


@pytest.mark.parametrize("age", [8 * HOUR + 1, 400 * DAY])
def test_the_token_that_created_answers_for_as_long_as_the_project_lives(
    age: int, caller: Caller, pass_time: Callable[[int], None]
) -> None:
    first = caller.create("p", "t")
    pass_time(age)
    assert caller.create("p", "t").body == first.body
    assert is_conflict(caller.create("q", "t"), WITH_OTHER_PARAMETERS)
    assert caller.names() == ["p"]


def test_other_parameters_are_refused_and_told_what_the_token_made(caller: Caller) -> None:
    first = caller.create("p", "t")
    assert is_conflict(caller.create("q", "t"), WITH_OTHER_PARAMETERS)
    assert caller.names() == ["p"]
    assert caller.create("p", "t").body == first.body


def test_how_a_request_is_written_is_no_other_parameter(caller: Caller) -> None:
    first = caller.create("p", "t")
    for body in (b'{ "ProjectName" :\n"\\u0070" }', b'{"Unknown":[1],"ProjectName":"p"}'):
        again = caller.wire.send("POST", PROJECTS + "/", "x=1", body, {"X-Amzn-Client-Token": "t"})
        assert again.body == first.body


def test_another_key_of_the_account_repeats_the_call_as_well(
    caller: Caller, service: Service, new_key: NewKey
) -> None:
    first = caller.create("p", "t")
    assert Caller(Wire(service.endpoint_url, new_key())).create("p", "t").body == first.body


def test_without_a_token_every_call_is_a_new_one(caller: Caller) -> None:
    assert caller.create("p").status == 200
    assert is_conflict(caller.create("p"), ALREADY_EXISTS)
    assert is_conflict(caller.create("p", "t"), ALREADY_EXISTS)
    assert caller.delete("p").status == 200
    assert caller.delete("p").status == 404


def test_tokens_differ_by_case_and_may_have_64_characters(caller: Caller) -> None:
    for name, token in (("a", "t"), ("b", "T"), ("c", "t" * 64), ("d", "-" * 64)):
        assert caller.create(name, token).status == 200
    assert caller.names() == ["a", "b", "c", "d"]


def test_a_token_is_of_one_account_region_and_operation(
    caller: Caller, service: Service, new_key: NewKey, other_account: str
) -> None:
    here = caller.create("p", "t")
    there = Caller(replace(caller.wire, region="us-east-1")).create("p", "t")
    theirs = Caller(Wire(service.endpoint_url, new_key(account=other_account))).create("q", "t")
    assert (here.status, there.status, theirs.status) == (200, 200, 200)
    assert len({here.body, there.body, theirs.body}) == 3
    assert caller.delete("p", "t").status == 200
    assert caller.delete("p", "t").status == 200


@pytest.mark.parametrize("age", [1, 8 * HOUR + 1, 400 * DAY])
def test_the_token_that_deleted_answers_until_the_name_is_created_again(
    age: int, caller: Caller, pass_time: Callable[[int], None]
) -> None:
    caller.create("p")
    first = caller.delete("p", "t")
    pass_time(age)
    assert (caller.delete("p", "t").status, caller.delete("p", "t").body) == (200, first.body)
    assert caller.delete("p", "u").status == 404
    caller.create("p")
    assert is_conflict(caller.delete("p", "t"), CREATED_SINCE)
    assert caller.names() == ["p"]


def test_a_delayed_duplicate_of_a_create_brings_nothing_back(
    caller: Caller, pass_time: Callable[[int], None]
) -> None:
    caller.create("p", "t")
    pass_time(400 * DAY)
    caller.delete("p", "d")
    assert is_conflict(caller.create("p", "t"), DELETED_SINCE)
    assert caller.names() == []
    pass_time(8 * HOUR - 60_000)
    assert is_conflict(caller.create("p", "t"), DELETED_SINCE)
    pass_time(60_000)
    assert caller.create("p", "t").status == 200
    assert caller.names() == ["p"]


def test_a_tombstone_stays_when_the_name_is_created_again(caller: Caller) -> None:
    caller.create("p", "t")
    caller.delete("p")
    second = caller.create("p", "u")
    assert is_conflict(caller.create("p", "t"), DELETED_SINCE)
    assert is_conflict(caller.create("q", "t"), WITH_OTHER_PARAMETERS)
    assert caller.create("p", "u").body == second.body
    assert caller.names() == ["p"]


def test_a_delayed_duplicate_of_a_delete_spares_the_new_one(
    caller: Caller, pass_time: Callable[[int], None]
) -> None:
    caller.create("p")
    caller.delete("p", "t")
    pass_time(400 * DAY)
    caller.create("p", "u")
    pass_time(8 * HOUR - 60_000)
    assert is_conflict(caller.delete("p", "t"), CREATED_SINCE)
    assert caller.names() == ["p"]
    pass_time(60_000)
    assert caller.delete("p", "t").status == 200


def test_tombstones_are_of_one_account_and_region(caller: Caller) -> None:
    elsewhere = Caller(replace(caller.wire, region="us-east-1"))
    first = elsewhere.create("p", "t")
    caller.create("p", "t")
    caller.delete("p")
    assert elsewhere.create("p", "t").body == first.body


def test_what_failed_leaves_no_token(caller: Caller) -> None:
    caller.create("p")
    assert is_conflict(caller.create("p", "t"), ALREADY_EXISTS)
    assert caller.delete("q", "d").status == 404
    assert caller.create("no name", "t").status == 400
    assert caller.create("q", "t").status == 200
    assert caller.delete("q", "d").status == 200
    assert caller.names() == ["p"]


def test_a_refused_repetition_changes_nothing(
    caller: Caller, storage: Storage, account: str, pass_time: Callable[[int], None]
) -> None:
    caller.create("p", "t")
    caller.delete("p", "d")
    pass_time(HOUR)

    def rows() -> list[tuple[object, ...]]:
        with storage.database.read() as connection:
            own = client_tokens.select().where(client_tokens.c.account_id == account)
            return sorted(tuple(row) for row in connection.execute(own))

    before = rows()
    assert len(before) == 2
    caller.create("p", "t")
    caller.create("q", "t")
    caller.delete("p", "d")
    caller.delete("q", "d")
    assert rows() == before


def test_identical_creates_at_one_instant(caller: Caller, twin: Service) -> None:
    other = Caller(replace(caller.wire, endpoint_url=twin.endpoint_url))
    for name in ("p0", "p1", "p2"):
        answers = at_once([partial(who.create, name, f"t-{name}") for who in (caller, other) * 6])
        assert {(answer.status, answer.body) for answer in answers} == {(200, answers[0].body)}
        assert caller.names()[-1] == name
    assert caller.names() == ["p0", "p1", "p2"]


def test_identical_deletes_at_one_instant(caller: Caller, twin: Service) -> None:
    other = Caller(replace(caller.wire, endpoint_url=twin.endpoint_url))
    caller.create("p")
    answers = at_once([partial(who.delete, "p", "t") for who in (caller, other) * 6])
    assert {(answer.status, answer.body) for answer in answers} == {(200, answers[0].body)}


def test_one_token_for_many_names_at_one_instant(caller: Caller, twin: Service) -> None:
    other = Caller(replace(caller.wire, endpoint_url=twin.endpoint_url))
    answers = at_once([partial((caller, other)[i % 2].create, f"p{i}", "t") for i in range(12)])
    (made,) = caller.names()
    assert Counter(answer.status for answer in answers) == {200: 1, 409: 11}
    assert all(is_conflict(answer, WITH_OTHER_PARAMETERS, made) for answer in answers if answer.code)


def test_many_tokens_for_one_name_at_one_instant(caller: Caller, twin: Service) -> None:
    other = Caller(replace(caller.wire, endpoint_url=twin.endpoint_url))
    answers = at_once([partial((caller, other)[i % 2].create, "p", f"t{i}") for i in range(12)])
    assert Counter(answer.status for answer in answers) == {200: 1, 409: 11}
    assert all(is_conflict(answer, ALREADY_EXISTS) for answer in answers if answer.code)
    winner = next(i for i, answer in enumerate(answers) if not answer.code)
    assert caller.create("p", f"t{winner}").body == answers[winner].body


def test_a_crowd_that_creates_and_deletes_meets_no_fault(caller: Caller, twin: Service) -> None:
    """Few names and few tokens, in any order: whoever waits for whom, nobody waits for ever."""
    other = Caller(replace(caller.wire, endpoint_url=twin.endpoint_url))

    def visit(seed: int) -> Counter[int]:
        random = Random(seed)
        outcomes: Counter[int] = Counter()
        for _ in range(15):
            who = random.choice((caller, other))
            act = random.choice((who.create, who.delete))
            token = random.choice(("t1", "t2", "t3", None, f"own-{seed}-{random.random()}".replace(".", "-")))
            outcomes[act(random.choice(("p", "q")), token).status] += 1
        return outcomes

    outcomes = sum(at_once([partial(visit, seed) for seed in range(8)]), Counter())
    assert set(outcomes) <= {200, 404, 409}
    assert outcomes[200]
    with_projects = set(caller.names())
    for name in ("p", "q"):
        assert caller.create(name).status == (409 if name in with_projects else 200)


def test_tokens_whose_time_is_over_are_forgotten_when_the_service_starts(
    storage: Storage, account: str, caller: Caller, pass_time: Callable[[int], None], start_twin
) -> None:
    caller.create("p", "lives")
    caller.create("q", "tombstone")
    caller.delete("q", "deleted")
    pass_time(8 * HOUR)
    query = sa.select(client_tokens.c.token).where(client_tokens.c.account_id == account)

    def tokens() -> set[str]:
        with storage.database.read() as connection:
            return set(connection.execute(query).scalars())

    assert tokens() == {"lives", "tombstone", "deleted"}
    with start_twin():
        deadline = time.monotonic() + 30
        while "tombstone" in tokens() and time.monotonic() < deadline:
            time.sleep(0.05)
    assert tokens() == {"lives", "deleted"}
