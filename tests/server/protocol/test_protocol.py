"""rest-json at its edges: what is no request, no operation, no JSON, and too much."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from model_requests import OPERATIONS, Case, minimal
from signed_http import SignedHttpClient, connect, is_well_formed_error, read_response, signed_head

from airflow_provider_lookoutvision.testing.service import Service

pytestmark = pytest.mark.one_database

PROJECTS = "/2020-11-20/projects"
MEBIBYTE = 1 << 20


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
def test_no_operation_is_there(method: str, path: str, signed_http: SignedHttpClient) -> None:
    answer = signed_http.send(method, path)
    assert (answer.status, answer.code) == (404, "UnknownOperationException")
    assert is_well_formed_error(answer)
    assert method in answer.message
    assert path in answer.message


@pytest.mark.parametrize("name", OPERATIONS)
def test_no_operation_answers_another_method(name: str, signed_http: SignedHttpClient) -> None:
    request = Case(name, minimal(OPERATIONS[name])).request()
    routes = {(operation.http["method"], operation.http["requestUri"]) for operation in OPERATIONS.values()}
    uri = OPERATIONS[name].http["requestUri"]
    for method in ("GET", "POST", "PATCH", "DELETE", "PUT", "OPTIONS", "TRACE"):
        if (method, uri) not in routes:
            answer = signed_http.send(method, request.path, request.query)
            assert (answer.status, answer.code) == (404, "UnknownOperationException")


def test_head_has_no_body(signed_http: SignedHttpClient) -> None:
    answer = signed_http.send("HEAD", PROJECTS)
    assert (answer.status, answer.code, answer.body) == (404, "UnknownOperationException", b"")


def test_labels_may_hold_anything_that_is_encoded(signed_http: SignedHttpClient) -> None:
    for label in ("a%2Fb", "a%0Ab", "%25", "a%3Fb", "a+b", "%E2%82%AC", "."):
        answer = signed_http.send("GET", f"{PROJECTS}/{label}/datasets/train")
        assert answer.code == "ValidationException", label
        assert "at 'ProjectName'" in answer.message
    assert signed_http.send("GET", f"{PROJECTS}/%70").code == "ResourceNotFoundException"
    assert (
        signed_http.send("GET", "/2020-11-20/tags/arn%3Aaws%3Alookoutvision%3A%3A%3Amodel%2Fp%2F1").status
        != 404
    )


@pytest.mark.parametrize("target", [f"{PROJECTS}/%ff", f"{PROJECTS}/%ED%A0%80", f"{PROJECTS}?nextToken=%ff"])
def test_what_is_not_utf_8_in_the_request_line(target: str, signed_http: SignedHttpClient) -> None:
    path, _, query = target.partition("?")
    answer = signed_http.send("GET", path, query)
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
def test_what_can_not_be_read(body: bytes, signed_http: SignedHttpClient) -> None:
    answer = signed_http.send("POST", PROJECTS, body=body)
    assert (answer.status, answer.code) == (400, "SerializationException")
    assert is_well_formed_error(answer)
    assert len(answer.body) < 1000
    assert signed_http.send("GET", PROJECTS).json == {"Projects": []}


def test_no_depth_of_nesting_is_too_much_for_the_error_text(signed_http: SignedHttpClient) -> None:
    # There is a depth that the parser can still read, and that can't be written into a message.
    for depth in (*range(10, 1500, 70), 2_000, 5_000, 10_000, 20_000, 50_000):
        for begin, end in ((b"[", b"]"), (b'{"a":', b"}")):
            body = b'{"ProjectName":' + begin * depth + b"1" + end * depth + b"}"
            answer = signed_http.send("POST", PROJECTS, body=body)
            assert (answer.status, answer.code) == (400, "SerializationException")


def test_nul_is_refused_where_there_is_no_pattern(signed_http: SignedHttpClient) -> None:
    answer = signed_http.send("GET", "/2020-11-20/tags/a%00b")
    assert (answer.status, answer.code) == (400, "ValidationException")
    assert "NUL" in answer.message


def test_the_last_of_a_repeated_name_counts_and_unknown_ones_do_not(signed_http: SignedHttpClient) -> None:
    answer = signed_http.send(
        "POST", PROJECTS, body=b'{"ProjectName":5,"ProjectName":"p","projectname":"q","":{}}'
    )
    assert answer.json["ProjectMetadata"]["ProjectName"] == "p"


@pytest.mark.parametrize(
    "content_type", ["", "application/json", "application/x-amz-json-1.1", "text/html; x"]
)
def test_any_content_type_will_do(content_type: str, signed_http: SignedHttpClient) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    assert signed_http.send("POST", PROJECTS, body=b'{"ProjectName":"p"}', headers=headers).status == 200


# What is too much, or not signed -------------------------------------------------------------------------


def test_a_body_that_is_announced_too_large_is_not_waited_for(
    signed_http: SignedHttpClient, service: Service
) -> None:
    with connect(service.endpoint_url) as connection:
        connection.sendall(
            signed_head(signed_http, "POST", PROJECTS, **{"Content-Length": str(MEBIBYTE + 1)})
        )
        answer = read_response(connection)
    assert answer.startswith("HTTP/1.1 413 ")
    assert "x-amzn-errortype: RequestEntityTooLargeException" in answer


def test_chunks_that_become_too_large(signed_http: SignedHttpClient) -> None:
    answer = signed_http.send("POST", PROJECTS, chunks=[b" " * 65536] * 17)
    assert (answer.status, answer.code) == (413, "RequestEntityTooLargeException")
    assert is_well_formed_error(answer)
    assert str(MEBIBYTE) in answer.message


def test_chunks_are_a_body_like_any_other(service: Service, signed_http: SignedHttpClient) -> None:
    body = b'{"ProjectName":"p"}'
    headers = {"Host": urlsplit(service.endpoint_url).netloc}
    headers |= signed_http.signature("POST", PROJECTS, body, headers)
    answer = signed_http.send_as_is("POST", PROJECTS, headers, chunks=[body[:3], body[3:]])
    assert answer.json["ProjectMetadata"]["ProjectName"] == "p"


def test_the_largest_json_body(signed_http: SignedHttpClient) -> None:
    body = b'{"ProjectName":"p"}'
    assert signed_http.send("POST", PROJECTS, body=body.ljust(MEBIBYTE)).status == 200
    assert signed_http.send("POST", PROJECTS, body=body.ljust(MEBIBYTE + 1)).status == 413


def test_a_body_nobody_wants_is_still_signed(signed_http: SignedHttpClient) -> None:
    assert signed_http.send("GET", PROJECTS, body=b"anything at all").status == 200


def test_who_does_not_sign_is_answered_before_the_body(service: Service) -> None:
    with connect(service.endpoint_url) as connection:
        connection.sendall(
            f"POST {PROJECTS} HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n".encode()
        )
        answer = read_response(connection)
    assert answer.startswith("HTTP/1.1 403 ")
    assert "x-amzn-errortype: MissingAuthenticationTokenException" in answer


def test_a_body_is_requested_only_after_a_signature(signed_http: SignedHttpClient, service: Service) -> None:
    body = b'{"ProjectName":"p"}'
    expecting = {"Content-Length": str(len(body)), "Expect": "100-continue"}
    with connect(service.endpoint_url) as connection:
        connection.sendall(signed_head(signed_http, "POST", PROJECTS, body, **expecting))
        assert read_response(connection).startswith("HTTP/1.1 100 ")
        connection.sendall(body)
        assert read_response(connection).startswith("HTTP/1.1 200 ")
    with connect(service.endpoint_url) as connection:
        connection.sendall(f"POST {PROJECTS} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n".encode())
        assert read_response(connection).startswith("HTTP/1.1 403 ")


def test_a_connection_survives_a_refusal(signed_http: SignedHttpClient, service: Service) -> None:
    with connect(service.endpoint_url) as connection:
        body = b"x" * (3 * MEBIBYTE)
        head = f"POST {PROJECTS} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        assert read_response(connection).startswith("HTTP/1.1 403 ")
        connection.sendall(signed_head(signed_http, "GET", PROJECTS))
        assert read_response(connection).startswith("HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "flood", [b"X-A: " + b"a" * 300_000, b"X-A: a\r\n" * 40_000, b"GET /" + b"a" * 300_000]
)
def test_a_head_without_end_is_cut_off(flood: bytes, service: Service) -> None:
    with connect(service.endpoint_url) as connection:
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
    with connect(service.endpoint_url) as connection:
        connection.sendall(garbage)
        assert read_response(connection).startswith("HTTP/1.1 400 ")


def test_other_forms_of_the_request_line(service: Service) -> None:
    with connect(service.endpoint_url) as connection:
        connection.sendall(b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read_response(connection).startswith("HTTP/1.1 403 ")
    with connect(service.endpoint_url) as connection:
        connection.sendall(b"GET http://elsewhere/2020-11-20/projects HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read_response(connection).startswith("HTTP/1.1 403 ")
