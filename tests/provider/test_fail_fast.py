"""Which errors a retry helps, and which fail the task at once; and results as JSON."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from botocore.exceptions import ClientError, EndpointConnectionError, ParamValidationError

from airflow_provider_lookoutvision.operators.base import fail_fast_on_client_errors, to_json


def client_error(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "because"}}, "CreateProject")


@pytest.mark.parametrize(
    "error",
    [
        client_error("ValidationException"),
        client_error("AccessDeniedException"),
        client_error("ConflictException"),
        client_error("ResourceNotFoundException"),
        client_error("InvalidSignatureException"),
        client_error("UnrecognizedClientException"),
        ParamValidationError(report="because"),
    ],
    ids=repr,
)
def test_what_a_retry_meets_again_is_not_retried(error: Exception) -> None:
    with pytest.raises(AirflowFailException, match="because"), fail_fast_on_client_errors():
        raise error


@pytest.mark.parametrize(
    "error",
    [
        client_error("ThrottlingException"),
        client_error("InternalServerException"),
        client_error("ServiceQuotaExceededException"),
        client_error("503"),
        EndpointConnectionError(endpoint_url="http://localhost:9"),
    ],
    ids=repr,
)
def test_what_may_pass_is_left_to_airflows_retries(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, fail_fast_on_client_errors():
        raise error
    assert raised.value is error


def test_results_are_plain_and_in_utc() -> None:
    moment = datetime(2026, 1, 5, 5, 30, 0, 123000, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    answer = {
        "At": moment,
        "List": [{"At": moment.astimezone(UTC)}],
        "Text": "t",
        "Number": 1.5,
        "None": None,
    }
    assert to_json(answer) == {
        "At": "2026-01-05T00:00:00.123000+00:00",
        "List": [{"At": "2026-01-05T00:00:00.123000+00:00"}],
        "Text": "t",
        "Number": 1.5,
        "None": None,
    }
