"""The console in a frame, as Airflow shows it, and from links of other sites."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from playwright.sync_api import Browser, FrameLocator, Page, expect
from services import NewService, first_key_of

from airflow_provider_lookoutvision.testing.service import Key, Service

pytestmark = pytest.mark.one_database

SignIn = Callable[..., Page]
# As Airflow 3.1 to 3.3 has it: no dialogs of the browser, no new tabs.
SANDBOX = "allow-scripts allow-same-origin allow-forms allow-downloads"


class Site:
    """Another server on this machine; ``html`` is its page. By the service's host it is of the same site."""

    def __init__(self, port: int) -> None:
        self.same, self.other = f"http://127.0.0.1:{port}", f"http://localhost:{port}"
        self.html = ""

    def frames(self, service: Service) -> None:
        address = f"{service.endpoint_url}/console/"
        self.html = f'<iframe sandbox="{SANDBOX}" width=1000 height=700 src="{address}"></iframe>'


@pytest.fixture
def site() -> Iterator[Site]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(site.html.encode())

        def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        site = Site(server.server_port)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield site
        server.shutdown()


def enter(page: Page | FrameLocator, key: Key) -> None:
    page.get_by_label("Access key ID").fill(key.access_key_id)
    page.get_by_label("Secret access key").fill(key.secret_access_key)
    page.get_by_role("button", name="Sign in").click()


def test_in_a_frame(browser: Browser, new_service: NewService, site: Site) -> None:
    service = new_service("--no-worker", "--console-frame-ancestors", f"{site.same}, {site.other}")
    key = first_key_of(service)
    site.frames(service)
    page = browser.new_page()
    try:
        page.goto(site.same)
        console = page.frame_locator("iframe")
        enter(console, key)
        console.get_by_label("New project").fill("in-a-frame")
        console.get_by_role("button", name="Create").click()
        console.get_by_role("heading", name="in-a-frame").wait_for()
        console.get_by_role("button", name="Create", exact=True).first.click()
        console.get_by_role("button", name="Delete").click()
        console.get_by_role("dialog").get_by_role("button", name="Delete").click()
        console.get_by_role("heading", name="in-a-frame").wait_for()
        expect(console.get_by_role("button", name="Create", exact=True)).to_have_count(2)

        # Browsers send no cookie there.
        page.goto(site.other)
        problem = console.get_by_role("alert")
        expect(problem).to_contain_text("In a frame of another site")
        expect(problem).to_contain_text(f"{service.endpoint_url}/console/")
        enter(console, key)
        expect(problem).to_contain_text("the browser doesn't send the session's cookie back")
    finally:
        page.close()


def test_a_link_of_another_site_needs_no_second_sign_in(sign_in: SignIn, new_key: Any, site: Site) -> None:
    page = sign_in(new_key())
    address = f"{page.url}?name=x"
    site.html = f'<a href="{address}">Project</a>'
    page.goto(site.other)
    page.get_by_role("link", name="Project").click()
    page.get_by_role("button", name="Sign out").wait_for()
    assert page.url == address
