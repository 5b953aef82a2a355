"""Every constraint of every member of every input, as the model has it, is the server's to enforce."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import pytest
from model_requests import OPERATIONS, Case, broken_constraints, valid_cases, wrong_types
from signed_http import HttpResponse, SignedHttpClient

BLAMED = re.compile(r" at '([^']*)' failed to satisfy constraint: ")


@pytest.mark.one_database
@pytest.mark.parametrize("operation", OPERATIONS)
def test_broken_constraints_are_named(operation: str, signed_http: SignedHttpClient) -> None:
    def is_right(case: Case, answer: HttpResponse) -> bool:
        return (
            (answer.status, answer.code) == (400, "ValidationException")
            and case.rule in answer.message
            and set(BLAMED.findall(answer.message)) == {case.member}
        )

    _all_are_right(signed_http, broken_constraints()[operation], is_right)


@pytest.mark.one_database
@pytest.mark.parametrize("operation", wrong_types())
def test_other_types_are_refused(operation: str, signed_http: SignedHttpClient) -> None:
    def is_right(case: Case, answer: HttpResponse) -> bool:
        return (answer.status, answer.code) == (400, "SerializationException") and answer.message.startswith(
            case.member + " "
        )

    _all_are_right(signed_http, wrong_types()[operation], is_right)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_what_keeps_every_constraint_passes(operation: str, signed_http: SignedHttpClient) -> None:
    def is_right(_case: Case, answer: HttpResponse) -> bool:
        refused = {"SerializationException", "UnknownOperationException", "RequestEntityTooLargeException"}
        return (
            answer.status != 500 and answer.code not in refused and "satisfy constraint" not in answer.message
        )

    _all_are_right(signed_http, valid_cases()[operation], is_right)


def test_the_model_yields_cases_of_every_kind() -> None:
    broken = [case for cases in broken_constraints().values() for case in cases]
    kinds = {re.sub(r"-'.*", "", case.kind, flags=re.DOTALL) for case in broken}
    assert kinds == {
        *("missing", "too-short", "too-long", "too-small", "too-large", "pattern", "enum", "NUL")
    }
    assert set(broken_constraints()) == set(valid_cases()) == set(OPERATIONS)
    assert len(broken) > 400
    assert sum(map(len, wrong_types().values())) > 200


@pytest.mark.one_database
def test_all_broken_constraints_are_reported_at_once(signed_http: SignedHttpClient) -> None:
    request = Case("CreateModel", {"ProjectName": "-", "Tags": [{"Key": "", "Value": "!"}]}).request()
    answer = signed_http.send(request.method, request.path, body=request.body)
    assert answer.message.startswith("4 validation errors detected: ")
    assert BLAMED.findall(answer.message) == ["ProjectName", "OutputConfig", "Tags[0].Key", "Tags[0].Value"]


@pytest.mark.one_database
def test_a_great_many_broken_constraints_make_no_great_answer(signed_http: SignedHttpClient) -> None:
    request = Case(
        "TagResource", {"ResourceArn": "arn", "Tags": [{"Key": "!", "Value": "!"}] * 200}
    ).request()
    answer = signed_http.send(request.method, request.path, body=request.body)
    assert answer.message.startswith("400 validation errors detected: ")
    assert len(answer.body) < 10_000


@pytest.mark.one_database
def test_of_a_list_that_is_too_long_nothing_is_looked_at(signed_http: SignedHttpClient) -> None:
    request = Case("TagResource", {"ResourceArn": "arn:aws:x", "Tags": [{}] * 100_000}).request()
    answer = signed_http.send(request.method, request.path, body=request.body)
    assert BLAMED.findall(answer.message)[-1] == "Tags"
    assert "Tags[" not in answer.message


@pytest.mark.one_database
def test_text_far_beyond_its_length_meets_no_pattern(signed_http: SignedHttpClient) -> None:
    # The pattern of SourceRefContains takes quadratic time: on this, minutes, in which nobody is answered.
    request = Case("ListDatasetEntries", {"ProjectName": "p", "DatasetType": "train"}).request()
    answer = signed_http.send("GET", request.path, f"sourceRefContains={'a' * 50_000}%0A")
    assert BLAMED.findall(answer.message) == ["SourceRefContains"]
    assert "length less than or equal to 2048" in answer.message


def _all_are_right(
    signed_http: SignedHttpClient, cases: Iterable[Case], is_right: Callable[[Case, HttpResponse], bool]
) -> None:
    wrong = []
    for case in cases:
        request = case.request()
        answer = signed_http.send(request.method, request.path, request.query, request.body, request.headers)
        if not is_right(case, answer):
            wrong.append(f"{case}: {answer.status} {answer.code} {answer.message[:300]}")
    assert not wrong, "\n".join(wrong)
