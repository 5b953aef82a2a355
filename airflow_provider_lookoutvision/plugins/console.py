"""The service's console in Airflow's UI, from Airflow 3.1 on: in the navigation, and as a tab of each task.

Both are views of Airflow's own address, which only who is signed in to Airflow reaches. They lead to the
console: the tab to the page that the task was about, which its XCom ``lookoutvision_console`` keeps. The
console asks for an access key of the service by itself, since Airflow's users and the service's keys are not
the same. Older Airflows get a link in their menu, if the setting below is there.

Where the console is: ``[lookoutvision] console_url`` of Airflow's configuration; else, of the connection
``[lookoutvision] conn_id`` (``aws_default``), the extra ``console_url``, or ``/console`` at its endpoint.
"""

from __future__ import annotations

import html
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from airflow import __version__
from airflow.configuration import conf
from airflow.plugins_manager import AirflowPlugin

from airflow_provider_lookoutvision.links.lookoutvision import XCOM_KEY
from airflow_provider_lookoutvision.plugins import framing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

SECTION = "lookoutvision"
PREFIX = "/lookoutvision"
# The page that says most about a task, first.
_PAGES = ("verdicts", "evaluation", "model", "dataset", "project")
_HAS_VIEWS = tuple(int(part) for part in __version__.split(".")[:2]) >= (3, 1)


class NoConsole(Exception):
    """Nothing says where the console is; the message says what to set."""


def console_url() -> str:
    """The console's address, without a slash at its end.

    :raises NoConsole: when no setting has it.
    """
    from airflow.models import Connection

    from airflow_provider_lookoutvision.hooks.connection import aws_connection

    if given := conf.get(SECTION, "console_url", fallback=""):
        return _checked(given)
    conn_id = conf.get(SECTION, "conn_id", fallback="aws_default")
    try:
        extra = aws_connection(Connection.get_connection_from_secrets(conn_id)).extra_dejson
    except Exception as error:
        raise NoConsole(f"The connection {conn_id!r} can't be read: {error}") from error
    if own := extra.get("console_url"):
        return _checked(str(own))
    service = (extra.get("service_config") or {}).get("lookoutvision") or {}
    endpoint = service.get("endpoint_url") or extra.get("endpoint_url")
    if not endpoint:
        raise NoConsole(
            f"The connection {conn_id!r} has no endpoint_url: set [lookoutvision] conn_id in Airflow's "
            "configuration to the connection of the service, or console_url to the console's address"
        )
    return _checked(f"{str(endpoint).rstrip('/')}/console")


def page_of_task(dag_id: str, run_id: str, task_id: str, map_index: int) -> str | None:
    """The page that a task instance was about; None when it has kept none."""
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    query = XComModel.get_many(
        run_id=run_id, key=XCOM_KEY, dag_ids=dag_id, task_ids=task_id, map_indexes=map_index, limit=1
    )
    with create_session() as session:
        row = session.scalars(query).first()
        pages = XComModel.deserialize_value(row) if row is not None else None
    if not isinstance(pages, dict):
        return None
    found = next((pages[name] for name in _PAGES if pages.get(name)), None)
    return _checked(str(found)) if found else None


def _checked(url: str) -> str:
    if urlsplit(url).scheme not in {"http", "https"}:
        raise NoConsole(f"{url!r} is no address of a console: it must begin with http:// or https://")
    return url.rstrip("/")


@cache
def _application() -> Any:
    """The pages of the plugin, made when they are first opened: most processes of Airflow never are."""
    from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
    from airflow.api_fastapi.core_api.security import get_user, requires_access_dag
    from fastapi import Depends, FastAPI, Header
    from fastapi.responses import HTMLResponse, RedirectResponse, Response

    application = FastAPI(title="Lookout for Vision", openapi_url=None, docs_url=None, redoc_url=None)
    of_task = requires_access_dag("GET", DagAccessEntity.XCOM)

    def lead_to(address: Callable[[], str | None], nothing: str, frame: str | None) -> Response:
        try:
            found = address()
        except NoConsole as error:
            return HTMLResponse(_page(str(error)), 503)
        if found is None:
            return HTMLResponse(_page(nothing))
        if frame and (reason := _obstacle(found, frame)):
            return HTMLResponse(_page(reason, found))
        return RedirectResponse(found, 307)

    def show_console(sec_fetch_dest: str = Header(""), referer: str = Header("")) -> Response:
        frame = framing.origin_of_frame(sec_fetch_dest, referer)
        return lead_to(lambda: f"{console_url()}/", "", frame)

    def show_task(
        dag_id: str,
        run_id: str,
        task_id: str,
        map_index: str,
        sec_fetch_dest: str = Header(""),
        referer: str = Header(""),
    ) -> Response:
        index = int(map_index) if map_index.lstrip("-").isdigit() else -1
        return lead_to(
            lambda: page_of_task(dag_id, run_id, task_id, index),
            "This task has no page in the Lookout for Vision console, or has not come to it yet.",
            framing.origin_of_frame(sec_fetch_dest, referer),
        )

    application.add_api_route("/", show_console, dependencies=[Depends(get_user)])
    application.add_api_route("/task", show_task, dependencies=[Depends(of_task)])
    return application


def _obstacle(page: str, frame: str) -> str | None:
    """Why the page won't be shown in a frame. Only the console of the configuration is requested for that."""
    try:
        console = console_url()
    except NoConsole:
        return None
    return framing.obstacle(console, frame) if page.startswith(f"{console}/") else None


def _page(text: str, address: str = "") -> str:
    there = html.escape(address)
    link = f'<p>In a tab of its own: <a href="{there}" target="_blank">{there}</a>' if address else ""
    return (
        "<!doctype html><meta charset=utf-8><meta name=color-scheme content='light dark'>"
        f"<title>Lookout for Vision</title><p>{html.escape(text)}{link}"
    )


async def _lazy_application(
    scope: MutableMapping[str, Any],
    receive: Callable[[], Awaitable[Any]],
    send: Callable[[Any], Awaitable[None]],
) -> None:
    await _application()(scope, receive, send)


def _views() -> list[dict[str, str]]:
    # Airflow puts what it knows of the task in the place of these names.
    names = {"dag_id": "DAG_ID", "run_id": "RUN_ID", "task_id": "TASK_ID", "map_index": "MAP_INDEX"}
    query = "&".join(f"{name}={{{place}}}" for name, place in names.items())
    base = {"name": "Lookout for Vision", "icon": _ICON}
    return [
        {**base, "href": f"{PREFIX}/", "destination": "nav", "url_route": "lookoutvision"},
        {
            **base,
            "href": f"{PREFIX}/task?{query}",
            "destination": "task_instance",
            "url_route": "lookoutvision-task",
        },
    ]


_ICON = "data:image/svg+xml," + quote(
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><circle cx="14" cy="14" r="9" fill="none" '
    'stroke="#0b8f80" stroke-width="3"/><path d="m20.500 20.500 7 7" stroke="#0b8f80" stroke-width="4" '
    'stroke-linecap="round"/></svg>'
)


def _menu() -> list[dict[str, str]]:
    given = "" if _HAS_VIEWS else conf.get(SECTION, "console_url", fallback="")
    return [{"name": "Lookout for Vision", "href": given, "category": "Browse"}] if given else []


class LookoutVisionConsolePlugin(AirflowPlugin):
    """The console in Airflow's UI."""

    name = "lookoutvision_console"
    fastapi_apps = (
        [{"app": _lazy_application, "url_prefix": PREFIX, "name": "Lookout for Vision"}] if _HAS_VIEWS else []
    )
    external_views = _views() if _HAS_VIEWS else []
    appbuilder_menu_items = _menu()
