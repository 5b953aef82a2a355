"""Every operation of the model has its route, and a function that does it."""

from __future__ import annotations

import pytest
from model_requests import OPERATIONS, Case, minimal
from signed_http import SignedHttpClient

from airflow_provider_lookoutvision.server import dispatch
from airflow_provider_lookoutvision.server.protocol import rest_json

pytestmark = pytest.mark.one_database


def test_there_are_22() -> None:
    assert len(OPERATIONS) == 22


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_is_routed(name: str, slash: str, signed_http: SignedHttpClient, logged) -> None:
    request = Case(name, minimal(OPERATIONS[name])).request()
    answer = signed_http.send(
        request.method, request.path + slash, request.query, request.body, request.headers
    )
    assert answer.code != "UnknownOperationException"
    assert logged(answer.request_id)["operation"] == name
    assert answer.status != 501


def test_there_is_a_function_for_each() -> None:
    operations = rest_json.load().operations
    assert [name for name, operation in operations.items() if dispatch.handler(operation) is None] == []
