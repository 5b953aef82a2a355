"""ClientToken: one effect, one answer, for as long as what it made lives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from random import Random

import pytest
import sqlalchemy as sa
from polling import until
from project_calls import PROJECTS, ProjectClient
from services import NewKey, Storage
from signed_http import HttpResponse, SignedHttpClient
from simultaneous import at_once

from airflow_provider_lookoutvision.server.storage.schema import client_tokens, projects
from airflow_provider_lookoutvision.testing.service import Service

HOUR = 60 * 60 * 1000
DAY = 24 * HOUR


@pytest.fixture
def projects_client(signed_http: SignedHttpClient) -> ProjectClient:
    return ProjectClient(signed_http)


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


def is_conflict(answer: HttpResponse, about: str, name: str = "p") -> bool:
    assert (answer.status, answer.code) == (409, "ConflictException"), answer
    assert (answer.json["ResourceId"], answer.json["ResourceType"]) == (name, "PROJECT")
    assert about in answer.message
    return True


WITH_OTHER_PARAMETERS = "with other parameters"
ALREADY_EXISTS = "already exists"
DELETED_SINCE = "has been deleted since"
CREATED_SINCE = "has been created again since"


def test_the_same_call_again_has_the_same_answer(projects_client: ProjectClient) -> None:
    first = projects_client.create("p", "t")
    assert first.status == 200
    projects_client.create("q", "u")
    again = projects_client.create("p", "t")
    assert (again.status, again.body) == (200, first.body)
    assert again.request_id != first.request_id
    assert projects_client.names() == ["p", "q"]


@pytest.mark.parametrize("age", [8 * HOUR + 1, 400 * DAY])
def test_the_token_that_created_answers_for_as_long_as_the_project_lives(
    age: int, projects_client: ProjectClient, pass_time: Callable[[int], None]
) -> None:
    first = projects_client.create("p", "t")
    pass_time(age)
    assert projects_client.create("p", "t").body == first.body
    assert is_conflict(projects_client.create("q", "t"), WITH_OTHER_PARAMETERS)
    assert projects_client.names() == ["p"]


def test_other_parameters_are_refused_with_the_resource_of_the_token(projects_client: ProjectClient) -> None:
    first = projects_client.create("p", "t")
    assert is_conflict(projects_client.create("q", "t"), WITH_OTHER_PARAMETERS)
    assert projects_client.names() == ["p"]
    assert projects_client.create("p", "t").body == first.body


def test_how_a_request_is_written_is_no_other_parameter(projects_client: ProjectClient) -> None:
    first = projects_client.create("p", "t")
    for body in (b'{ "ProjectName" :\n"\\u0070" }', b'{"Unknown":[1],"ProjectName":"p"}'):
        again = projects_client.signed_http.send(
            "POST", PROJECTS + "/", "x=1", body, {"X-Amzn-Client-Token": "t"}
        )
        assert again.body == first.body


def test_another_key_of_the_account_repeats_the_call_as_well(
    projects_client: ProjectClient, service: Service, new_key: NewKey
) -> None:
    first = projects_client.create("p", "t")
    assert (
        ProjectClient(SignedHttpClient(service.endpoint_url, new_key())).create("p", "t").body == first.body
    )


def test_without_a_token_every_call_is_a_new_one(projects_client: ProjectClient) -> None:
    assert projects_client.create("p").status == 200
    assert is_conflict(projects_client.create("p"), ALREADY_EXISTS)
    assert is_conflict(projects_client.create("p", "t"), ALREADY_EXISTS)
    assert projects_client.delete("p").status == 200
    assert projects_client.delete("p").status == 404


def test_tokens_differ_by_case_and_may_have_64_characters(projects_client: ProjectClient) -> None:
    for name, token in (("a", "t"), ("b", "T"), ("c", "t" * 64), ("d", "-" * 64)):
        assert projects_client.create(name, token).status == 200
    assert projects_client.names() == ["a", "b", "c", "d"]


def test_a_token_is_of_one_account_region_and_operation(
    projects_client: ProjectClient, service: Service, new_key: NewKey, other_account: str
) -> None:
    here = projects_client.create("p", "t")
    there = ProjectClient(replace(projects_client.signed_http, region="us-east-1")).create("p", "t")
    theirs = ProjectClient(SignedHttpClient(service.endpoint_url, new_key(account=other_account))).create(
        "q", "t"
    )
    assert (here.status, there.status, theirs.status) == (200, 200, 200)
    assert len({here.body, there.body, theirs.body}) == 3
    assert projects_client.delete("p", "t").status == 200
    assert projects_client.delete("p", "t").status == 200


@pytest.mark.parametrize("age", [1, 8 * HOUR + 1, 29 * DAY])
def test_the_token_that_deleted_answers_until_the_name_is_created_again(
    age: int, projects_client: ProjectClient, pass_time: Callable[[int], None]
) -> None:
    projects_client.create("p")
    first = projects_client.delete("p", "t")
    pass_time(age)
    assert (projects_client.delete("p", "t").status, projects_client.delete("p", "t").body) == (
        200,
        first.body,
    )
    assert projects_client.delete("p", "u").status == 404
    projects_client.create("p")
    assert is_conflict(projects_client.delete("p", "t"), CREATED_SINCE)
    assert projects_client.names() == ["p"]


def test_a_delayed_duplicate_of_a_create_brings_nothing_back(
    projects_client: ProjectClient, pass_time: Callable[[int], None]
) -> None:
    projects_client.create("p", "t")
    pass_time(400 * DAY)
    projects_client.delete("p", "d")
    assert is_conflict(projects_client.create("p", "t"), DELETED_SINCE)
    assert projects_client.names() == []
    pass_time(8 * HOUR - 60_000)
    assert is_conflict(projects_client.create("p", "t"), DELETED_SINCE)
    pass_time(60_000)
    assert projects_client.create("p", "t").status == 200
    assert projects_client.names() == ["p"]


def test_a_tombstone_stays_when_the_name_is_created_again(projects_client: ProjectClient) -> None:
    projects_client.create("p", "t")
    projects_client.delete("p")
    second = projects_client.create("p", "u")
    assert is_conflict(projects_client.create("p", "t"), DELETED_SINCE)
    assert is_conflict(projects_client.create("q", "t"), WITH_OTHER_PARAMETERS)
    assert projects_client.create("p", "u").body == second.body
    assert projects_client.names() == ["p"]


def test_a_delayed_duplicate_of_a_delete_spares_the_new_one(
    projects_client: ProjectClient, pass_time: Callable[[int], None]
) -> None:
    projects_client.create("p")
    projects_client.delete("p", "t")
    pass_time(29 * DAY)
    projects_client.create("p", "u")
    pass_time(8 * HOUR - 60_000)
    assert is_conflict(projects_client.delete("p", "t"), CREATED_SINCE)
    assert projects_client.names() == ["p"]
    pass_time(60_000)
    assert projects_client.delete("p", "t").status == 200


def test_tombstones_are_of_one_account_and_region(projects_client: ProjectClient) -> None:
    elsewhere = ProjectClient(replace(projects_client.signed_http, region="us-east-1"))
    first = elsewhere.create("p", "t")
    projects_client.create("p", "t")
    projects_client.delete("p")
    assert elsewhere.create("p", "t").body == first.body


def test_what_failed_leaves_no_token(projects_client: ProjectClient) -> None:
    projects_client.create("p")
    assert is_conflict(projects_client.create("p", "t"), ALREADY_EXISTS)
    assert projects_client.delete("q", "d").status == 404
    assert projects_client.create("no name", "t").status == 400
    assert projects_client.create("q", "t").status == 200
    assert projects_client.delete("q", "d").status == 200
    assert projects_client.names() == ["p"]


def test_a_refused_repetition_changes_nothing(
    projects_client: ProjectClient, storage: Storage, account: str, pass_time: Callable[[int], None]
) -> None:
    projects_client.create("p", "t")
    projects_client.delete("p", "d")
    pass_time(HOUR)

    def rows() -> list[tuple[object, ...]]:
        with storage.database.read() as connection:
            own = client_tokens.select().where(client_tokens.c.account_id == account)
            return sorted(tuple(row) for row in connection.execute(own))

    before = rows()
    assert len(before) == 2
    projects_client.create("p", "t")
    projects_client.create("q", "t")
    projects_client.delete("p", "d")
    projects_client.delete("q", "d")
    assert rows() == before


def test_identical_creates_at_one_instant(projects_client: ProjectClient, second_process: Service) -> None:
    other = ProjectClient(replace(projects_client.signed_http, endpoint_url=second_process.endpoint_url))
    for name in ("p0", "p1", "p2"):
        answers = at_once([partial(who.create, name, f"t-{name}") for who in (projects_client, other) * 6])
        assert {(answer.status, answer.body) for answer in answers} == {(200, answers[0].body)}
        assert projects_client.names()[-1] == name
    assert projects_client.names() == ["p0", "p1", "p2"]


def test_identical_deletes_at_one_instant(projects_client: ProjectClient, second_process: Service) -> None:
    other = ProjectClient(replace(projects_client.signed_http, endpoint_url=second_process.endpoint_url))
    projects_client.create("p")
    answers = at_once([partial(who.delete, "p", "t") for who in (projects_client, other) * 6])
    assert {(answer.status, answer.body) for answer in answers} == {(200, answers[0].body)}


def test_one_token_for_many_names_at_one_instant(
    projects_client: ProjectClient, second_process: Service
) -> None:
    other = ProjectClient(replace(projects_client.signed_http, endpoint_url=second_process.endpoint_url))
    answers = at_once([partial((projects_client, other)[i % 2].create, f"p{i}", "t") for i in range(12)])
    (made,) = projects_client.names()
    assert Counter(answer.status for answer in answers) == {200: 1, 409: 11}
    assert all(is_conflict(answer, WITH_OTHER_PARAMETERS, made) for answer in answers if answer.code)


def test_many_tokens_for_one_name_at_one_instant(
    projects_client: ProjectClient, second_process: Service
) -> None:
    other = ProjectClient(replace(projects_client.signed_http, endpoint_url=second_process.endpoint_url))
    answers = at_once([partial((projects_client, other)[i % 2].create, "p", f"t{i}") for i in range(12)])
    assert Counter(answer.status for answer in answers) == {200: 1, 409: 11}
    assert all(is_conflict(answer, ALREADY_EXISTS) for answer in answers if answer.code)
    winner = next(i for i, answer in enumerate(answers) if not answer.code)
    assert projects_client.create("p", f"t{winner}").body == answers[winner].body


def test_a_crowd_that_creates_and_deletes_meets_no_fault(
    projects_client: ProjectClient, second_process: Service
) -> None:
    """Few names and few tokens, in any order: there is no deadlock."""
    other = ProjectClient(replace(projects_client.signed_http, endpoint_url=second_process.endpoint_url))

    def visit(seed: int) -> Counter[int]:
        random = Random(seed)
        outcomes: Counter[int] = Counter()
        for _ in range(15):
            who = random.choice((projects_client, other))
            act = random.choice((who.create, who.delete))
            token = random.choice(("t1", "t2", "t3", None, f"own-{seed}-{random.random()}".replace(".", "-")))
            outcomes[act(random.choice(("p", "q")), token).status] += 1
        return outcomes

    outcomes = sum(at_once([partial(visit, seed) for seed in range(8)]), Counter())
    assert set(outcomes) <= {200, 404, 409}
    assert outcomes[200]
    with_projects = set(projects_client.names())
    for name in ("p", "q"):
        assert projects_client.create(name).status == (409 if name in with_projects else 200)


def test_tokens_whose_time_is_over_are_forgotten_when_the_service_starts(
    storage: Storage,
    account: str,
    projects_client: ProjectClient,
    pass_time: Callable[[int], None],
    start_second_process,
) -> None:
    projects_client.create("p", "lives")
    projects_client.create("q", "tombstone")
    projects_client.delete("q", "deleted")
    pass_time(8 * HOUR)
    query = sa.select(client_tokens.c.token).where(client_tokens.c.account_id == account)

    def tokens() -> set[str]:
        with storage.database.read() as connection:
            return set(connection.execute(query).scalars())

    assert tokens() == {"lives", "tombstone", "deleted"}
    with start_second_process():
        until(tokens, lambda left: "tombstone" not in left)
    assert tokens() == {"lives", "deleted"}
    # A deletion is remembered for 30 days, while nobody makes the name again.
    pass_time(30 * 24 * HOUR - 9 * HOUR)
    assert projects_client.delete("q", "deleted").status == 200
    pass_time(HOUR)
    assert projects_client.delete("q", "deleted").status == 404
    with start_second_process():
        until(tokens, lambda left: "deleted" not in left)
    assert tokens() == {"lives"}
