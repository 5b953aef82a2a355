"""Pages: full, in order, stable, and theirs only who asked."""

from __future__ import annotations

import re

import pytest
from botocore.exceptions import ClientError
from project_calls import names
from sdk_errors import error_response
from services import MakeClient, NewKey
from signed_http import SignedHttpClient

INVALID = "NextToken is not one that this query returned"


def make(client, *project_names: str) -> None:
    for name in project_names:
        client.create_project(ProjectName=name)


@pytest.mark.one_database
def test_250_projects(client) -> None:
    expected = [f"p-{number:03}" for number in range(250)]
    make(client, *reversed(expected))
    pages = list(client.get_paginator("list_projects").paginate())
    assert [len(page["Projects"]) for page in pages] == [100, 100, 50]
    assert ["NextToken" in page for page in pages] == [True, True, False]
    assert [project["ProjectName"] for page in pages for project in page["Projects"]] == expected
    sizes = [
        len(page["Projects"])
        for page in client.get_paginator("list_projects").paginate(PaginationConfig={"PageSize": 83})
    ]
    assert sizes == [83, 83, 83, 1]


@pytest.mark.parametrize(
    ("size", "pages"), [(1, [1, 1, 1, 1]), (2, [2, 2]), (3, [3, 1]), (4, [4]), (100, [4])]
)
def test_no_page_is_empty_and_the_last_has_no_token(size: int, pages: list[int], client) -> None:
    make(client, "a", "b", "c", "d")
    found = list(client.get_paginator("list_projects").paginate(PaginationConfig={"PageSize": size}))
    assert [len(page["Projects"]) for page in found] == pages
    assert [project["ProjectName"] for page in found for project in page["Projects"]] == ["a", "b", "c", "d"]
    assert ["NextToken" in page for page in found] == [True] * (len(pages) - 1) + [False]


def test_what_comes_and_goes_meanwhile_neither_hides_nor_repeats_the_rest(client) -> None:
    make(client, *"bdfhj")
    token = client.list_projects(MaxResults=2)["NextToken"]  # b d
    client.delete_project(ProjectName="b")
    client.delete_project(ProjectName="d")  # where the page ended
    client.delete_project(ProjectName="f")  # where the next would have begun
    make(client, "a", "e")
    assert names(client, NextToken=token) == ["e", "h", "j"]
    assert names(client, NextToken=token, MaxResults=1) == ["e"]


def test_a_token_may_be_used_again(client) -> None:
    make(client, "a", "b", "c")
    token = client.list_projects(MaxResults=1)["NextToken"]
    assert names(client, NextToken=token, MaxResults=1) == ["b"]
    assert names(client, NextToken=token, MaxResults=1) == ["b"]
    assert names(client, NextToken=token, MaxResults=100) == ["b", "c"]


def test_tokens_use_the_alphabet_of_the_model_and_tell_nothing_long(client) -> None:
    make(client, *("x" * 254 + end for end in "ab"), *(f"n{number}" for number in range(20)))
    tokens = [client.list_projects(MaxResults=size)["NextToken"] for size in range(1, 22)]
    for token in tokens:
        assert re.fullmatch(r"[A-Za-z0-9/+=]{1,2048}", token)


def test_a_token_of_another_region_account_or_key(
    make_client: MakeClient, new_key: NewKey, other_account: str
) -> None:
    key = new_key()
    client = make_client(key=key)
    make(client, "a", "b")
    token = client.list_projects(MaxResults=1)["NextToken"]
    for other in (
        make_client(key=key, region="us-east-1"),
        make_client(account=other_account),
        make_client(),
    ):
        assert INVALID in error_response(other.list_projects, NextToken=token)["Error"]["Message"]
    assert names(client, NextToken=token) == ["b"]


@pytest.mark.parametrize(
    "break_it",
    [
        lambda token: token[:-8],
        lambda token: token[8:],
        lambda token: "A" + token if token[0] == "B" else "B" + token[1:],
        lambda token: token[:20] + ("A" if token[20] != "A" else "B") + token[21:],
        lambda token: token + "AAAA",
        lambda token: token[::-1],
        lambda _: "AAAA",
        lambda _: "A",
        lambda _: "=",
        lambda _: "A" * 2048,
    ],
)
def test_a_token_that_was_never_given(break_it, client) -> None:
    make(client, "a", "b")
    token = client.list_projects(MaxResults=1)["NextToken"]
    with pytest.raises(ClientError) as caught:
        client.list_projects(NextToken=break_it(token))
    assert caught.value.response["Error"]["Code"] == "ValidationException"
    assert INVALID in caught.value.response["Error"]["Message"]


def test_an_empty_token_is_none(client, signed_http: SignedHttpClient) -> None:
    make(client, "a")
    assert len(signed_http.send("GET", "/2020-11-20/projects", "nextToken=").json["Projects"]) == 1
    assert len(signed_http.send("GET", "/2020-11-20/projects", "nextToken").json["Projects"]) == 1


def test_the_last_of_a_repeated_parameter_counts(client, signed_http: SignedHttpClient) -> None:
    make(client, "a", "b", "c")
    answer = signed_http.send("GET", "/2020-11-20/projects", "maxResults=1&maxResults=2")
    assert len(answer.json["Projects"]) == 2


def test_parameters_that_nobody_knows_are_ignored(client, signed_http: SignedHttpClient) -> None:
    make(client, "a")
    answer = signed_http.send("GET", "/2020-11-20/projects", "MaxResults=0&foo=bar&&=&x")
    assert answer.status == 200
