"""Signing in and out, and what a page demands of requests that change something."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Callable

import httpx
import pytest
from playwright.sync_api import Page
from services import REGION, NewKey, NewService, Storage

from airflow_provider_lookoutvision.server.storage.schema import access_keys, console_sessions
from airflow_provider_lookoutvision.testing.service import Key, Service

pytestmark = pytest.mark.one_database


@pytest.fixture
def http(service: Service) -> httpx.Client:
    return httpx.Client(base_url=service.endpoint_url, timeout=60)


def enter(http: httpx.Client, key: Key, **more: str) -> httpx.Response:
    fields = {
        "access_key_id": key.access_key_id,
        "secret_access_key": key.secret_access_key,
        "region": REGION,
    }
    return http.post("/console/sign-in", data={**fields, **more})


def csrf_of(http: httpx.Client) -> str:
    found = re.search(r'name="csrf" content="(\w+)"', http.get("/console/").text)
    assert found
    return found[1]


def test_a_browser_at_the_root_is_led_to_the_console(http: httpx.Client) -> None:
    assert http.get("/", headers={"Accept": "text/html"}).headers["location"] == "/console/"
    # ... and who signs requests of S3 there isn't.
    assert http.get("/", headers={"Accept": "*/*"}).status_code == 403


def test_the_cookie_is_for_the_browser_alone(http: httpx.Client, new_key: NewKey) -> None:
    cookie = enter(http, new_key()).headers["set-cookie"]
    assert {"HttpOnly", "SameSite=strict", "Path=/console"} <= set(cookie.split("; "))
    assert "Max-Age=" in cookie
    assert "Secure" not in cookie  # there is no TLS here
    over_tls = httpx.Client(base_url=http.base_url, headers={"X-Forwarded-Proto": "https"})
    assert "Secure" in enter(over_tls, new_key()).headers["set-cookie"].split("; ")


def test_another_secret_is_refused(http: httpx.Client, new_key: NewKey) -> None:
    answer = enter(http, new_key(), secret_access_key="x" * 40)
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers
    assert "There is no such access key, or its secret is another one." in answer.text


def test_the_page_that_was_asked_for_follows(http: httpx.Client, new_key: NewKey) -> None:
    asked = http.get("/console/projects/p/datasets/train?label=none").headers["location"]
    assert enter_at(http, asked, new_key()) == "/console/projects/p/datasets/train?label=none"


@pytest.mark.parametrize("elsewhere", ["//evil.example/", "https://evil.example/", "/\\evil.example"])
def test_no_other_site_follows(http: httpx.Client, new_key: NewKey, elsewhere: str) -> None:
    address = "/console/sign-in?to=" + urllib.parse.quote(elsewhere, safe="")
    assert enter_at(http, address, new_key()) == "/console/"


def enter_at(http: httpx.Client, address: str, key: Key) -> str:
    fields = {
        "access_key_id": key.access_key_id,
        "secret_access_key": key.secret_access_key,
        "region": REGION,
    }
    on = http.post(address, data=fields).headers["location"]
    return http.get(on).headers["location"]


def test_a_browser_that_keeps_no_cookie_is_told(http: httpx.Client, new_key: NewKey) -> None:
    on = enter(http, new_key()).headers["location"]
    http.cookies.clear()
    answer = http.get(on)
    assert answer.status_code == 401
    assert "Allow cookies here" in answer.text
    assert f"{http.base_url}/console/" in answer.text


def test_a_key_that_is_deleted_is_signed_out(http: httpx.Client, new_key: NewKey, storage: Storage) -> None:
    key = new_key()
    enter(http, key)
    assert http.get("/console/").status_code == 200
    with storage.database.write() as connection:
        connection.execute(access_keys.delete().where(access_keys.c.access_key_id == key.access_key_id))
    assert http.get("/console/").headers["location"].startswith("/console/sign-in")


def test_a_session_expires(http: httpx.Client, new_key: NewKey, storage: Storage) -> None:
    key = new_key()
    enter(http, key)
    with storage.database.write() as connection:
        mine = console_sessions.c.access_key_id == key.access_key_id
        connection.execute(console_sessions.update().where(mine).values(expires_at=1))
    assert http.get("/console/").headers["location"].startswith("/console/sign-in")


@pytest.mark.parametrize(
    "headers", [{}, {"X-CSRF-Token": "0" * 32}, {"Origin": "https://evil.example"}], ids=str
)
def test_what_another_site_sends_changes_nothing(
    http: httpx.Client, new_key: NewKey, headers: dict[str, str]
) -> None:
    enter(http, new_key())
    if "Origin" in headers:
        headers = {**headers, "X-CSRF-Token": csrf_of(http)}
    answer = http.post("/console/projects", data={"name": "p"}, headers=headers)
    assert answer.status_code == 403
    assert "/projects/p" not in http.get("/console/").text


def test_a_form_that_is_sent_twice_takes_effect_once(http: httpx.Client, new_key: NewKey) -> None:
    enter(http, new_key())
    fields = {"name": "p", "csrf": csrf_of(http), "token": "of-the-form"}
    assert [http.post("/console/projects", data=fields).status_code for _ in range(2)] == [303, 303]
    fields["token"] = "another"
    assert http.post("/console/projects", data=fields).status_code == 409


def test_another_region_is_another_place(http: httpx.Client, new_key: NewKey) -> None:
    enter(http, new_key())
    http.post("/console/projects", data={"name": "here", "csrf": csrf_of(http)})
    http.post("/console/region", data={"region": "us-west-2", "csrf": csrf_of(http)})
    there = http.get("/console/").text
    assert "projects/here" not in there
    assert f"region={REGION}" in there, "it says where projects are"
    back = http.get(f"/console/projects/here?region={REGION}")
    assert (back.status_code, back.headers["location"]) == (303, "/console/projects/here")
    assert http.get("/console/projects/here").status_code == 200


def test_pages_allow_nothing_from_elsewhere(http: httpx.Client, new_key: NewKey) -> None:
    enter(http, new_key())
    policy = http.get("/console/").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    text = http.get("/console/").text
    assert not re.search(r"<script(?![^>]*src=)|\son\w+=|style=|https?://", text)


def test_it_can_be_turned_off(new_service: NewService) -> None:
    service = new_service("--no-console")
    answer = httpx.get(f"{service.endpoint_url}/console/", headers={"Accept": "text/html"})
    assert answer.headers["x-amzn-errortype"] == "MissingAuthenticationTokenException"


def test_in_a_browser(sign_in: Callable[..., Page], new_key: NewKey) -> None:
    page = sign_in(new_key())
    page.get_by_label("New project").fill("circuit-boards")
    page.get_by_role("button", name="Create").click()
    page.get_by_role("heading", name="circuit-boards").wait_for()
    page.get_by_role("button", name="Sign out").click()
    page.get_by_label("Access key ID").wait_for()
    page.go_back()
    page.get_by_label("Access key ID").wait_for()
