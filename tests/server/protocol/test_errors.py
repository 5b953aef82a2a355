"""The errors that a client gets, and what the log has of them."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
import sqlalchemy as sa
from botocore.model import ServiceModel
from model_requests import MODEL
from project_calls import names
from sdk_errors import error_response
from services import NewService, client_of, first_key_of, storage_of
from signed_http import SignedHttpClient

from airflow_provider_lookoutvision.server.protocol import errors, rest_json
from airflow_provider_lookoutvision.testing.service import Service

PROJECTS = "/2020-11-20/projects"


def subclasses(kind: type) -> Iterator[type]:
    for subclass in kind.__subclasses__():
        yield subclass
        yield from subclasses(subclass)


def test_the_errors_are_those_of_the_model_and_those_of_the_protocol() -> None:
    # Not those of the console, which answer no client.
    public = {kind for kind in subclasses(errors.ServiceError) if kind.__module__ == errors.__name__}
    public -= {kind for kind in public if kind.__name__.startswith("_")}
    of_protocol = {kind for kind in public if issubclass(kind, errors.ProtocolError)}
    of_model = {kind.__name__: kind.status for kind in public - of_protocol}
    assert of_model == {shape.name: shape.metadata["error"]["httpStatusCode"] for shape in MODEL.error_shapes}
    assert len(of_model) == 7
    assert {kind.__name__ for kind in of_protocol} == {
        "NotImplementedException",
        "ProtocolError",
        "RequestEntityTooLargeException",
        "RequestTimeoutException",
        "SerializationException",
        "ServiceUnavailableException",
        "SignatureException",
        "UnknownOperationException",
    }


@pytest.mark.parametrize(
    "error",
    [
        errors.AccessDeniedException("m"),
        errors.ConflictException("m", resource_id="i", resource_type=errors.ResourceType.PROJECT),
        errors.ResourceNotFoundException("m", resource_id="i", resource_type=errors.ResourceType.TRIAL),
        errors.InternalServerException("m", RetryAfterSeconds=3),
        errors.ServiceQuotaExceededException("m", quota_code="q"),
        errors.ServiceQuotaExceededException(
            "m", quota_code="q", resource_id="i", resource_type=errors.ResourceType.MODEL
        ),
        errors.ThrottlingException("m", quota_code="q", retry_after=3),
        errors.ValidationException("m"),
    ],
    ids=lambda error: error.code,
)
def test_errors_have_the_members_of_their_shapes(error: errors.ServiceError) -> None:
    shape = ServiceModel.shape_for(MODEL, error.code)
    status, headers, body = rest_json.load().write_error(error)
    assert status == shape.metadata["error"]["httpStatusCode"]
    in_headers = {
        name
        for name, member in shape.members.items()
        if member.serialization.get("location") == "header" and member.serialization["name"] in headers
    }
    document = json.loads(body)
    assert document["Message"] == "m"
    assert set(shape.required_members) <= set(document) | in_headers <= set(shape.members)
    if "RetryAfterSeconds" in shape.members:
        assert (in_headers, headers["Retry-After"]) == ({"RetryAfterSeconds"}, "3")
    if kinds := document.get("ResourceType"):
        assert kinds in shape.members["ResourceType"].enum


def test_resource_types_are_those_of_the_model() -> None:
    assert {kind.value for kind in errors.ResourceType} == set(MODEL.shape_for("ResourceType").enum)


def test_every_answer_has_a_request_id_of_its_own(signed_http: SignedHttpClient) -> None:
    answers = [
        signed_http.send("GET", PROJECTS),
        signed_http.send("GET", PROJECTS),
        signed_http.send("GET", "/nothing"),
    ]
    answers += [
        signed_http.send("GET", PROJECTS, signed=False),
        signed_http.send("POST", PROJECTS, body=b"{"),
    ]
    assert len({str(uuid.UUID(answer.request_id)) for answer in answers}) == 5


def test_a_fault_of_the_service(new_service: NewService) -> None:
    service = new_service("--no-worker")
    client = client_of(service.endpoint_url, first_key_of(service))
    with storage_of(service) as storage, storage.database.write() as connection:
        connection.execute(sa.text("ALTER TABLE projects RENAME COLUMN name TO gone"))
    error = error_response(client.list_projects)
    assert error["Error"]["Code"] == "InternalServerException"
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 500
    assert error["RetryAfterSeconds"] == 1
    request_id = error["ResponseMetadata"]["RequestId"]
    # Where to look it up, and nothing of what the database said.
    assert error["Error"]["Message"] == (
        f"The service failed on this request; see its log under {request_id}"
    )
    lines = [json.loads(line) for line in service.log_file.read_text().splitlines() if request_id in line]
    assert [line["level"] for line in lines] == ["error", "info"]
    assert "OperationalError" in lines[0]["exception"] or "UndefinedColumn" in lines[0]["exception"]
    assert lines[1]["status"] == 500

    with storage_of(service) as storage, storage.database.write() as connection:
        connection.execute(sa.text("ALTER TABLE projects RENAME COLUMN gone TO name"))
    assert names(client) == []


def test_health_needs_no_signature(signed_http: SignedHttpClient) -> None:
    answer = signed_http.send("GET", "/healthz", signed=False)
    assert answer.status == 200
    assert answer.json["status"] in {"ok", "degraded"}  # until the worker has been heard of


def test_the_log_line_of_a_request(signed_http: SignedHttpClient, logged) -> None:
    line = logged(signed_http.send("GET", f"{PROJECTS}/p").request_id)
    assert re.fullmatch(r"[0-9-]{10}T[0-9:.]{12}\+00:00", line.pop("time"))
    assert line.pop("duration_ms") > 0
    assert line == {
        "level": "info",
        "message": "request",
        "request_id": line["request_id"],
        "operation": "DescribeProject",
        "project": "p",
        "access_key_id": signed_http.key.access_key_id,
        "account_id": signed_http.key.account,
        "region": "eu-central-1",
        "status": 404,
        "error": "ResourceNotFoundException",
    }


def test_the_log_holds_no_secret(signed_http: SignedHttpClient, service: Service) -> None:
    headers = {"Host": urlsplit(service.endpoint_url).netloc, "X-Amz-Security-Token": "not-to-be-logged"}
    signature = signed_http.signature("GET", PROJECTS, b"", headers)
    signed_http.send_as_is("GET", PROJECTS, headers | signature)
    signed_http.send("POST", PROJECTS, body=b'{"ProjectName":"p"}')
    signed_http.send("POST", PROJECTS, body=b'{"ProjectName":')
    log = service.log_file.read_text()
    assert signed_http.key.access_key_id in log
    hash_of_the_signature = signature["Authorization"].rpartition("=")[2]
    for secret in (
        signed_http.key.secret_access_key,
        service.secret_access_key,
        "not-to-be-logged",
        hash_of_the_signature,
    ):
        assert secret not in log
