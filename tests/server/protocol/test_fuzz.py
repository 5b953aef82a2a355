"""Whatever is sent, signed as it is: an answer, with an error that is known, and never a fault."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model_requests import MODEL, OPERATIONS, complete, to_wire
from signed_http import HttpResponse, SignedHttpClient

KNOWN = {
    *(shape.name for shape in MODEL.error_shapes),
    "AuthorizationHeaderMalformed",
    "ExpiredTokenException",
    "IncompleteSignatureException",
    "InvalidSignatureException",
    "MissingAuthenticationTokenException",
    "NotImplementedException",
    "RequestEntityTooLargeException",
    "RequestExpired",
    "RequestInTheFuture",
    "SerializationException",
    "UnknownOperationException",
    "UnrecognizedClientException",
} - {"InternalServerException"}

# The account is new in each test; within one, what an example leaves behind is the next one's surprise.
calmly = settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

texts = (
    st.text(max_size=40) | st.text(st.characters(), max_size=5) | st.sampled_from(["", "p", "\0", "a" * 3000])
)
numbers = st.integers(-(1 << 70), 1 << 70) | st.floats()
json_values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@st.composite
def almost_valid_requests(draw: st.DrawFn) -> tuple[str, str, str, bytes, dict[str, str]]:
    """An operation with valid members, some of which became anything at all, or went away."""
    operation = OPERATIONS[draw(st.sampled_from(sorted(OPERATIONS)))]
    params = complete(operation)
    for name in draw(st.sets(st.sampled_from(sorted(params)), max_size=3)) if params else ():
        location = operation.input_shape.members[name].serialization.get("location")
        if name == operation.input_shape.serialization.get("payload"):
            params[name] = draw(st.binary(max_size=200))
        elif location == "header":
            params[name] = draw(
                st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=80)
            )
        elif location is not None:
            params[name] = draw(texts | numbers | st.booleans())
        else:
            mutate(draw, params, name)
    request = to_wire(operation, params)
    return request.method, request.path, request.query, request.body, dict(request.headers)


def mutate(draw: st.DrawFn, holder: Any, key: Any) -> None:
    """Replace or remove the value, or one somewhere below it."""
    inner = holder[key]
    if isinstance(inner, dict | list) and inner and draw(st.booleans()):
        mutate(
            draw,
            inner,
            draw(st.sampled_from(sorted(inner) if isinstance(inner, dict) else range(len(inner)))),
        )
    elif isinstance(holder, dict) and draw(st.booleans()):
        del holder[key]
    else:
        holder[key] = draw(json_values)


@pytest.fixture
def with_projects(signed_http: SignedHttpClient) -> SignedHttpClient:
    """With a project of each name that requests have, and a dataset in it: there is something to meet."""
    for name in ("1", "p"):
        signed_http.send("POST", "/2020-11-20/projects", body=json.dumps({"ProjectName": name}).encode())
        signed_http.send("POST", f"/2020-11-20/projects/{name}/datasets", body=b'{"DatasetType":"train"}')
    return signed_http


def is_known(answer: HttpResponse) -> bool:
    assert answer.request_id
    if answer.code is None:
        assert answer.status in {200, 202}
    else:
        assert answer.code in KNOWN, answer
        assert 400 <= answer.status < 500 or answer.status == 501
        assert not answer.body or answer.message
    return True


@calmly
@given(request=almost_valid_requests())
def test_requests_that_are_almost_valid(request: tuple[Any, ...], with_projects: SignedHttpClient) -> None:
    assert is_known(with_projects.send(*request))


methods = st.sampled_from(["GET", "POST", "PATCH", "DELETE", "PUT", "HEAD", "OPTIONS"])
routes = st.sampled_from([(model.http["method"], model.http["requestUri"]) for model in OPERATIONS.values()])
names = st.sampled_from(["p", "train", "test", "1", "latest", "%70"])
binary = st.binary(max_size=20)
query_names = st.sampled_from(
    ["maxResults", "nextToken", "labeled", "createdBefore", "tagKeys", "X-Amz-Date", "x"]
)


@calmly
@given(
    route=routes
    | routes
    | st.tuples(methods, binary.map(lambda raw: "/" + quote_from_bytes(raw, safe="/+;:~"))),
    labels=st.lists(
        names | binary.map(lambda raw: quote_from_bytes(raw, safe="+;:~") or "p"), min_size=2, max_size=2
    ),
    query=st.lists(
        st.tuples(query_names, binary.map(quote_from_bytes)).map("=".join) | st.just("&"), max_size=3
    ),
    body=st.binary(max_size=100) | json_values.map(lambda value: json.dumps(value).encode()),
    token=st.none() | st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=70),
)
def test_requests_of_all_kinds(
    route: tuple[str, str],
    labels: list[str],
    query: list[str],
    body: bytes,
    token: str | None,
    with_projects: SignedHttpClient,
) -> None:
    method, path = route
    for label in labels:
        path = re.sub(r"\{\w+\}", lambda _, label=label: label, path, count=1)
    headers = {} if token is None else {"X-Amzn-Client-Token": token}
    assert is_known(with_projects.send(method, path, "&".join(query), body, headers))
