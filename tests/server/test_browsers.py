"""Clients in browsers: origins that are allowed, and connections that are kept."""

from __future__ import annotations

import json
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import pytest
from command_line import error_message, run_command
from services import NewService, client_of, first_key_of
from signed_http import HttpResponse, SignedHttpClient, connect, read_response, signed_head

from airflow_provider_lookoutvision.testing.service import Service

ALLOWED, OTHER = "https://app.example.com", "https://evil.example.com"
PATH = "/2020-11-20/projects"
WANTED = "authorization,content-type,x-amz-content-sha256,x-amz-date,x-amz-user-agent,x-amzn-client-token"


def preflight(endpoint_url: str, origin: str, method: str = "PATCH") -> HttpResponse:
    """What a browser sends before the request of an SDK; it isn't signed."""
    connection = HTTPConnection(urlsplit(endpoint_url).netloc, timeout=60)
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": WANTED,
    }
    connection.request("OPTIONS", PATH, headers=headers)
    answer = connection.getresponse()
    found = HttpResponse(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
    connection.close()
    return found


def origins_allowed(client: Any, origin: str) -> str | None:
    """What an answer says of origins, to a client in a page of this one."""

    def add_origin(request: Any, **_: Any) -> None:
        request.headers["Origin"] = origin

    client.meta.events.register("before-send.lookoutvision", add_origin)
    headers = client.list_projects()["ResponseMetadata"]["HTTPHeaders"]
    assert "x-amzn-requestid" in headers
    return headers.get("access-control-allow-origin")


@pytest.mark.one_database
def test_an_origin_that_is_allowed(new_service: NewService) -> None:
    service = new_service("--no-worker", "--allowed-origins", f"{ALLOWED}, http://localhost:5173")
    for origin in (ALLOWED, "http://localhost:5173"):
        answer = preflight(service.endpoint_url, origin)
        assert answer.status == 200
        assert answer.headers["access-control-allow-origin"] == origin
        assert "PATCH" in answer.headers["access-control-allow-methods"]
        assert set(WANTED.split(",")) <= set(
            answer.headers["access-control-allow-headers"].split(", ")[0].split(",")
        )
        assert "access-control-allow-credentials" not in answer.headers
    assert preflight(service.endpoint_url, OTHER).status == 400
    client = client_of(service.endpoint_url, first_key_of(service))
    assert origins_allowed(client, ALLOWED) == ALLOWED
    # The answer itself says what else a page may read, errors too.
    refused = SignedHttpClient(service.endpoint_url, first_key_of(service)).send(
        "GET", f"{PATH}/none", headers={"Origin": ALLOWED}
    )
    assert refused.code == "ResourceNotFoundException"
    assert "x-amzn-errortype" in refused.headers["access-control-expose-headers"]


@pytest.mark.one_database
def test_no_origin_is_allowed_by_default(service: Service) -> None:
    assert "access-control-allow-origin" not in preflight(service.endpoint_url, ALLOWED).headers
    assert origins_allowed(client_of(service.endpoint_url, first_key_of(service)), ALLOWED) is None


@pytest.mark.parametrize("origin", ["https://app.example.com/", "app.example.com", "https://", "null"])
def test_what_is_no_origin(origin: str) -> None:
    said = error_message(run_command("serve", "--allowed-origins", origin))
    assert f"allowed_origins has {origin!r}; an origin is a scheme, a host and perhaps a port" in said


@pytest.mark.one_database
def test_an_idle_connection_is_kept_for_as_long_as_the_setting_says(new_service: NewService) -> None:
    service = new_service("--no-worker", "--keep-alive-seconds", "1")
    signed_http = SignedHttpClient(service.endpoint_url, first_key_of(service))
    with connect(service.endpoint_url) as connection:
        connection.sendall(signed_head(signed_http, "GET", PATH))
        assert json.loads(read_response(connection).partition("\r\n\r\n")[2]) == {"Projects": []}
        # By default that would be 75 seconds, longer than the socket waits.
        assert connection.recv(1) == b""
