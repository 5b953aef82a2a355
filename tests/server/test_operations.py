"""Every operation of the model has its route; the test lists those that have no more than that."""

from __future__ import annotations

import pytest
from model_requests import OPERATIONS, Case, minimal
from services import MakeClient
from signed_http import SignedHttpClient

from airflow_provider_lookoutvision.server import app
from airflow_provider_lookoutvision.server.protocol import rest_json
from airflow_provider_lookoutvision.testing.service import Service

pytestmark = pytest.mark.one_database

NOT_BUILT_YET = {"DescribeModelPackagingJob", "ListModelPackagingJobs", "StartModelPackagingJob"}


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
    assert (answer.status == 501) == (answer.code == "NotImplementedException") == (name in NOT_BUILT_YET)
    if name in NOT_BUILT_YET:
        assert name in answer.message


def test_what_is_not_built_yet_is_listed_here() -> None:
    operations = rest_json.load().operations
    assert {name for name, operation in operations.items() if app.handler(operation) is None} == NOT_BUILT_YET


def test_sdks_show_what_is_not_built_yet(make_client: MakeClient, service: Service) -> None:
    client = make_client(attempts=5)
    with pytest.raises(client.exceptions.ClientError) as caught:
        client.list_model_packaging_jobs(ProjectName="p")
    assert caught.value.response["Error"]["Code"] == "NotImplementedException"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 501
    assert caught.value.response["ResponseMetadata"]["RetryAttempts"] == 0
