"""rest-json at its edges: what is no request, no operation, no JSON, too much; and how errors look."""

from __future__ import annotations

import json
import re
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
import sqlalchemy as sa
from botocore.model import ServiceModel
from model_requests import MODEL, OPERATIONS, Case, minimal
from services import NewService, client_of, storage_of
from signed_http import Answer, Wire
from test_limits import owner_of
from test_projects import names, refused

from airflow_provider_lookoutvision.server import errors, protocol
from airflow_provider_lookoutvision.testing.service import Service

PROJECTS = "/2020-11-20/projects"
MEBIBYTE = 1 << 20


def is_well_formed_error(answer: Answer) -> bool:
    assert set(answer.headers) >= {"content-type", "content-length", "x-amzn-errortype", "x-amzn-requestid"}
    assert answer.headers["content-type"] == "application/json"
    assert uuid.UUID(answer.request_id)
    assert isinstance(answer.json["Message"], str)
    assert answer.message
    return True


@contextmanager
def connected(service: Service) -> Iterator[socket.socket]:
    address = urlsplit(service.endpoint_url)
    with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
        yield connection


def head_of(wire: Wire, method: str, target: str, body: bytes = b"", **more: str) -> bytes:
    """A signed head, whose body is not sent yet."""
    headers = {"Host": urlsplit(wire.endpoint_url).netloc}
    headers |= wire.signature(method, target, body, headers) | more
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


# The errors ----------------------------------------------------------------------------------------------


def subclasses(kind: type) -> Iterator[type]:
    for subclass in kind.__subclasses__():
        yield subclass
        yield from subclasses(subclass)


def test_the_errors_are_those_of_the_model_and_those_of_the_protocol() -> None:
    public = {kind for kind in subclasses(errors.ServiceError) if not kind.__name__.startswith("_")}
    of_protocol = {kind for kind in public if issubclass(kind, errors.ProtocolError)}
    of_model = {kind.__name__: kind.status for kind in public - of_protocol}
    assert of_model == {shape.name: shape.metadata["error"]["httpStatusCode"] for shape in MODEL.error_shapes}
    assert len(of_model) == 7
    assert {kind.__name__ for kind in of_protocol} == {
        "NotImplementedException",
        "ProtocolError",
        "RequestEntityTooLargeException",
        "SerializationException",
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
    status, headers, body = protocol.load().write_error(error)
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


def test_every_answer_has_a_request_id_of_its_own(wire: Wire) -> None:
    answers = [wire.send("GET", PROJECTS), wire.send("GET", PROJECTS), wire.send("GET", "/nothing")]
    answers += [wire.send("GET", PROJECTS, signed=False), wire.send("POST", PROJECTS, body=b"{")]
    assert len({str(uuid.UUID(answer.request_id)) for answer in answers}) == 5


def test_a_fault_of_the_service(new_service: NewService) -> None:
    service = new_service("--no-worker")
    client = client_of(service.endpoint_url, owner_of(service))
    with storage_of(service) as storage, storage.database.write() as connection:
        connection.execute(sa.text("ALTER TABLE projects RENAME COLUMN name TO gone"))
    error = refused(client.list_projects)
    assert error["Error"]["Code"] == "InternalServerException"
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 500
    assert error["RetryAfterSeconds"] == 1
    request_id = error["ResponseMetadata"]["RequestId"]
    # Where to look it up, and nothing of what the database said.
    assert error["Error"]["Message"] == (
        f"The service failed on this request; its log tells more under {request_id}"
    )
    lines = [json.loads(line) for line in service.log_file.read_text().splitlines() if request_id in line]
    assert [line["level"] for line in lines] == ["error", "info"]
    assert "OperationalError" in lines[0]["exception"] or "UndefinedColumn" in lines[0]["exception"]
    assert lines[1]["status"] == 500

    with storage_of(service) as storage, storage.database.write() as connection:
        connection.execute(sa.text("ALTER TABLE projects RENAME COLUMN gone TO name"))
    assert names(client) == []


# What is no operation ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/2020-11-20",
        "/2020-11-20/",
        "/2020-11-20/project",
        "/2020-11-21/projects",
        "/2020-11-20/%70rojects",
        "/2020-11-20/PROJECTS",
        "/2020-11-20/projects/p/",  # a slash too much, for another method
        "/2020-11-20/projects/p/q",
        "/2020-11-20/projects/p/datasets",
        "/2020-11-20/projects/p/models/1/start",
        "/2020-11-20/tags",
        "/2020-11-20/tags/a/b",
        "/healthz/",
        "/a%0Ab",
        "/%ff",
    ],
)
@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_no_operation_is_there(method: str, path: str, wire: Wire) -> None:
    answer = wire.send(method, path)
    assert (answer.status, answer.code) == (404, "UnknownOperationException")
    assert is_well_formed_error(answer)
    assert method in answer.message
    assert path in answer.message


@pytest.mark.parametrize("name", OPERATIONS)
def test_no_operation_answers_another_method(name: str, wire: Wire) -> None:
    request = Case(name, minimal(OPERATIONS[name])).request()
    routes = {(operation.http["method"], operation.http["requestUri"]) for operation in OPERATIONS.values()}
    uri = OPERATIONS[name].http["requestUri"]
    for method in ("GET", "POST", "PATCH", "DELETE", "PUT", "OPTIONS", "TRACE"):
        if (method, uri) not in routes:
            answer = wire.send(method, request.path, request.query)
            assert (answer.status, answer.code) == (404, "UnknownOperationException")


def test_head_has_no_body(wire: Wire) -> None:
    answer = wire.send("HEAD", PROJECTS)
    assert (answer.status, answer.code, answer.body) == (404, "UnknownOperationException", b"")


def test_labels_may_hold_anything_that_is_encoded(wire: Wire) -> None:
    for label in ("a%2Fb", "a%0Ab", "%25", "a%3Fb", "a+b", "%E2%82%AC", "."):
        answer = wire.send("GET", f"{PROJECTS}/{label}/datasets/train")
        assert answer.code == "ValidationException", label
        assert "at 'ProjectName'" in answer.message
    assert wire.send("GET", f"{PROJECTS}/%70").code == "ResourceNotFoundException"
    assert wire.send("GET", "/2020-11-20/tags/arn%3Aaws%3Alookoutvision%3A%3A%3Amodel%2Fp%2F1").status != 404


@pytest.mark.parametrize("target", [f"{PROJECTS}/%ff", f"{PROJECTS}/%ED%A0%80", f"{PROJECTS}?nextToken=%ff"])
def test_what_is_not_utf_8_in_the_request_line(target: str, wire: Wire) -> None:
    path, _, query = target.partition("?")
    answer = wire.send("GET", path, query)
    assert (answer.status, answer.code) == (400, "SerializationException")
    assert "UTF-8" in answer.message


# What is no JSON -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"}",
        b"nul",
        b"null",
        b"[]",
        b"5",
        b'"ProjectName"',
        b'{"ProjectName":"p"}{}',
        b"{'ProjectName':'p'}",
        b'{"ProjectName":"p",}',
        b'{"ProjectName":NaN}',
        b'{"x":[Infinity],"ProjectName":"p"}',
        b'{"x":-Infinity,"ProjectName":"p"}',
        b'{"ProjectName":' + b"9" * 5000 + b"}",
        b'{"ProjectName":1e999}',
        b'{"ProjectName":"\xff"}',
        b'{"ProjectName":"\xed\xa0\x80"}',
        b'{"x":"\xed\xa0\x80","ProjectName":"p"}',
        b'{"ProjectName":"\\ud800"}',
        b'{"ProjectName":"a\nb"}',
        b'\xef\xbb\xbf{"ProjectName":"p"}',
        '{"ProjectName":"p"}'.encode("utf-16"),
        '{"ProjectName":"p"}'.encode("utf-32-be"),
        b"\0",
        b" ",
        b'{"x":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        b'{"x":' + b'{"x":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
        b"[" * 1_000_000,
    ],
    ids=lambda body: repr(body[:24])[2:-1],
)
def test_what_can_not_be_read(body: bytes, wire: Wire) -> None:
    answer = wire.send("POST", PROJECTS, body=body)
    assert (answer.status, answer.code) == (400, "SerializationException")
    assert is_well_formed_error(answer)
    assert len(answer.body) < 1000
    assert wire.send("GET", PROJECTS).json == {"Projects": []}


def test_no_depth_of_nesting_is_too_much_for_the_error_text(wire: Wire) -> None:
    # Somewhere is a depth that the parser still takes, and whoever writes the value into a message doesn't.
    for depth in (*range(10, 1500, 70), 2_000, 5_000, 10_000, 20_000, 50_000):
        for begin, end in ((b"[", b"]"), (b'{"a":', b"}")):
            body = b'{"ProjectName":' + begin * depth + b"1" + end * depth + b"}"
            answer = wire.send("POST", PROJECTS, body=body)
            assert (answer.status, answer.code) == (400, "SerializationException")


def test_nul_is_refused_where_there_is_no_pattern(wire: Wire) -> None:
    answer = wire.send("GET", "/2020-11-20/tags/a%00b")
    assert (answer.status, answer.code) == (400, "ValidationException")
    assert "NUL" in answer.message


def test_the_last_of_a_repeated_name_counts_and_unknown_ones_do_not(wire: Wire) -> None:
    answer = wire.send("POST", PROJECTS, body=b'{"ProjectName":5,"ProjectName":"p","projectname":"q","":{}}')
    assert answer.json["ProjectMetadata"]["ProjectName"] == "p"


@pytest.mark.parametrize(
    "content_type", ["", "application/json", "application/x-amz-json-1.1", "text/html; x"]
)
def test_any_content_type_will_do(content_type: str, wire: Wire) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    assert wire.send("POST", PROJECTS, body=b'{"ProjectName":"p"}', headers=headers).status == 200


# What is too much, or not signed -------------------------------------------------------------------------


def read_answer(connection: socket.socket) -> str:
    """One answer, head and body, and nothing of the next."""
    received = b""

    def read(size: int) -> None:
        nonlocal received
        while len(received) < size:
            part = connection.recv(size - len(received))
            assert part, f"closed after {received!r}"
            received += part

    while not received.endswith(b"\r\n\r\n"):
        read(len(received) + 1)
    if length := re.search(rb"content-length: ([0-9]+)", received):
        read(len(received) + int(length[1]))
    return received.decode("latin-1")


def test_a_body_that_is_announced_too_large_is_not_waited_for(wire: Wire, service: Service) -> None:
    with connected(service) as connection:
        connection.sendall(head_of(wire, "POST", PROJECTS, **{"Content-Length": str(MEBIBYTE + 1)}))
        answer = read_answer(connection)
    assert answer.startswith("HTTP/1.1 413 ")
    assert "x-amzn-errortype: RequestEntityTooLargeException" in answer


def test_chunks_that_become_too_large(wire: Wire) -> None:
    answer = wire.send("POST", PROJECTS, chunks=[b" " * 65536] * 17)
    assert (answer.status, answer.code) == (413, "RequestEntityTooLargeException")
    assert is_well_formed_error(answer)
    assert str(MEBIBYTE) in answer.message


def test_chunks_are_a_body_like_any_other(service: Service, wire: Wire) -> None:
    body = b'{"ProjectName":"p"}'
    headers = {"Host": urlsplit(service.endpoint_url).netloc}
    headers |= wire.signature("POST", PROJECTS, body, headers)
    answer = wire.send_as_is("POST", PROJECTS, headers, chunks=[body[:3], body[3:]])
    assert answer.json["ProjectMetadata"]["ProjectName"] == "p"


def test_the_largest_json_body(wire: Wire) -> None:
    body = b'{"ProjectName":"p"}'
    assert wire.send("POST", PROJECTS, body=body.ljust(MEBIBYTE)).status == 200
    assert wire.send("POST", PROJECTS, body=body.ljust(MEBIBYTE + 1)).status == 413


def test_a_body_nobody_wants_is_still_signed(wire: Wire) -> None:
    assert wire.send("GET", PROJECTS, body=b"anything at all").status == 200


def test_who_does_not_sign_is_answered_before_the_body(service: Service) -> None:
    with connected(service) as connection:
        connection.sendall(
            f"POST {PROJECTS} HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n".encode()
        )
        answer = read_answer(connection)
    assert answer.startswith("HTTP/1.1 403 ")
    assert "x-amzn-errortype: MissingAuthenticationTokenException" in answer


def test_a_body_is_asked_for_only_of_who_signs(wire: Wire, service: Service) -> None:
    body = b'{"ProjectName":"p"}'
    expecting = {"Content-Length": str(len(body)), "Expect": "100-continue"}
    with connected(service) as connection:
        connection.sendall(head_of(wire, "POST", PROJECTS, body, **expecting))
        assert read_answer(connection).startswith("HTTP/1.1 100 ")
        connection.sendall(body)
        assert read_answer(connection).startswith("HTTP/1.1 200 ")
    with connected(service) as connection:
        connection.sendall(f"POST {PROJECTS} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n".encode())
        assert read_answer(connection).startswith("HTTP/1.1 403 ")


def test_a_connection_survives_a_refusal(wire: Wire, service: Service) -> None:
    with connected(service) as connection:
        body = b"x" * (3 * MEBIBYTE)
        head = f"POST {PROJECTS} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        assert read_answer(connection).startswith("HTTP/1.1 403 ")
        connection.sendall(head_of(wire, "GET", PROJECTS))
        assert read_answer(connection).startswith("HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "flood", [b"X-A: " + b"a" * 300_000, b"X-A: a\r\n" * 40_000, b"GET /" + b"a" * 300_000]
)
def test_a_head_without_end_is_cut_off(flood: bytes, service: Service) -> None:
    with connected(service) as connection:
        begin = b"" if flood.startswith(b"GET") else b"GET / HTTP/1.1\r\nHost: x\r\n"
        try:
            connection.sendall(begin + flood)
            received = connection.recv(65536)
        except ConnectionError:
            received = b""
    assert received == b"" or received.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET\r\n\r\n",
        b"\0\1\2\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_what_is_no_http(garbage: bytes, service: Service) -> None:
    with connected(service) as connection:
        connection.sendall(garbage)
        assert read_answer(connection).startswith("HTTP/1.1 400 ")


def test_other_forms_of_the_request_line(service: Service) -> None:
    with connected(service) as connection:
        connection.sendall(b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read_answer(connection).startswith("HTTP/1.1 403 ")
    with connected(service) as connection:
        connection.sendall(b"GET http://elsewhere/2020-11-20/projects HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read_answer(connection).startswith("HTTP/1.1 403 ")


# Health and logs -----------------------------------------------------------------------------------------


def test_health_needs_no_signature(wire: Wire) -> None:
    answer = wire.send("GET", "/healthz", signed=False)
    assert (answer.status, answer.json) == (200, {"status": "ok"})


def test_the_log_line_of_a_request(wire: Wire, logged) -> None:
    line = logged(wire.send("GET", f"{PROJECTS}/p").request_id)
    assert re.fullmatch(r"[0-9-]{10}T[0-9:.]{12}\+00:00", line.pop("time"))
    assert line.pop("duration_ms") > 0
    assert line == {
        "level": "info",
        "message": "request",
        "request_id": line["request_id"],
        "operation": "DescribeProject",
        "access_key_id": wire.key.access_key_id,
        "account_id": wire.key.account,
        "region": "eu-central-1",
        "status": 404,
        "error": "ResourceNotFoundException",
    }


def test_the_log_holds_no_secret(wire: Wire, service: Service) -> None:
    headers = {"Host": urlsplit(service.endpoint_url).netloc, "X-Amz-Security-Token": "not-to-be-logged"}
    signature = wire.signature("GET", PROJECTS, b"", headers)
    wire.send_as_is("GET", PROJECTS, headers | signature)
    wire.send("POST", PROJECTS, body=b'{"ProjectName":"p"}')
    wire.send("POST", PROJECTS, body=b'{"ProjectName":')
    log = service.log_file.read_text()
    assert wire.key.access_key_id in log
    hash_of_the_signature = signature["Authorization"].rpartition("=")[2]
    for secret in (
        wire.key.secret_access_key,
        service.secret_access_key,
        "not-to-be-logged",
        hash_of_the_signature,
    ):
        assert secret not in log
