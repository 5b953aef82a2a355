"""A real browser, and people who are signed in with keys of their own.

=========== ======= ====================================================================================
``browser`` module  Debian's chromium; without one the tests are skipped, or fail if REQUIRE_BROWSER is set
``key``     test    an access key that may do everything
``sign_in`` test    a function: the page of somebody in a browser of their own, signed in with a key
=========== ======= ====================================================================================

A page that reports an error of a script, or that its policy has refused something, fails its test.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from services import REGION, NewKey

from airflow_provider_lookoutvision.testing.service import Key, Service

FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
SignIn = Callable[..., Page]
MOST_MS = 60_000  # of a busy machine


@pytest.fixture(scope="module")  # no longer: tests beside it run event loops of their own in this thread
def browser() -> Iterator[Browser]:
    command = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if command is None:
        reason = "there is no chromium here: on Debian, apt-get install chromium"
        if os.environ.get("REQUIRE_BROWSER"):
            pytest.fail(reason)
        pytest.skip(reason)
    expect.set_options(timeout=MOST_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=command, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def key(new_key: NewKey) -> Key:
    """Of somebody who may do everything."""
    return new_key()


@pytest.fixture
def sign_in(browser: Browser, service: Service) -> Iterator[SignIn]:
    """``sign_in(key, service=..., to="/", color_scheme=...)``"""
    problems: list[str] = []
    with ExitStack() as stack:

        def sign_in(key: Key, service: Service = service, to: str = "/", **context: Any) -> Page:
            context = {"viewport": {"width": 1280, "height": 900}, **context}
            page = browser.new_context(base_url=service.endpoint_url, **context).new_page()
            stack.callback(page.context.close)
            page.set_default_timeout(MOST_MS)
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.on("console", lambda said: problems.append(said.text) if _is_fault(said) else None)
            page.goto(f"/console{to}")
            page.get_by_label("Access key ID").fill(key.access_key_id)
            page.get_by_label("Secret access key").fill(key.secret_access_key)
            page.get_by_label("Region").fill(REGION)
            page.get_by_role("button", name="Sign in").click()
            page.get_by_role("button", name="Sign out").wait_for()
            return page

        yield sign_in
    assert not problems


def _is_fault(said: Any) -> bool:
    # Answers other than 2xx are what some tests are about.
    return said.type == "error" and "Failed to load resource" not in said.text
