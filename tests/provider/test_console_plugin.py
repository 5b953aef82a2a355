"""The console inside Airflow's UI."""

from __future__ import annotations

import asyncio
import html
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest
from airflow import __version__
from airflow_and_service import Deployment

from airflow_provider_lookoutvision.links.lookoutvision import XCOM_KEY
from airflow_provider_lookoutvision.plugins import console, framing

HAS_VIEWS = tuple(int(part) for part in __version__.split(".")[:2]) >= (3, 1)
needs_views = pytest.mark.skipif(not HAS_VIEWS, reason="before 3.1 Airflow's UI has no external views")


@pytest.fixture
def default_connection(deployment: Deployment) -> Iterator[str]:
    """``aws_default`` leads to the service; its console's address."""
    endpoint = deployment.service.endpoint_url
    extra = json.dumps({"service_config": {"lookoutvision": {"endpoint_url": endpoint}}})
    body = {"connection_id": "aws_default", "conn_type": "aws", "extra": extra}
    deployment.airflow.remove_connection("aws_default")
    deployment.airflow.request("POST", "/connections", json=body)
    yield f"{endpoint}/console"
    deployment.airflow.remove_connection("aws_default")


def view_of(deployment: Deployment, destination: str) -> dict[str, Any]:
    plugins = deployment.airflow.request("GET", "/plugins", params={"limit": 100})["plugins"]
    (plugin,) = (each for each in plugins if each["name"] == "lookoutvision_console")
    (view,) = (each for each in plugin["external_views"] if each["destination"] == destination)
    return dict(view)


@needs_views
def test_the_navigation_leads_to_the_console(deployment: Deployment, default_connection: str) -> None:
    place = view_of(deployment, "nav")["href"]
    answer = deployment.airflow.open(place)
    assert (answer.status_code, answer.headers["location"]) == (307, f"{default_connection}/")


@needs_views
def test_a_frame_that_browsers_refuse_says_why(deployment: Deployment, default_connection: str) -> None:
    place = view_of(deployment, "nav")["href"]
    in_frame = {"Sec-Fetch-Dest": "iframe", "Referer": "https://airflow.example/plugin/lookoutvision"}
    answer = deployment.airflow.open(place, **in_frame)
    assert "Airflow has TLS and the service hasn't" in html.unescape(answer.text)
    assert f'href="{default_connection}/"' in answer.text
    in_frame["Referer"] = "http://airflow.example:8080/"
    answer = deployment.airflow.open(place, **in_frame)
    assert "--console-frame-ancestors http://airflow.example:8080" in answer.text
    # Not in a frame; in one of its own site; and where nobody knows.
    assert deployment.airflow.open(place, **in_frame | {"Sec-Fetch-Dest": "document"}).status_code == 307
    assert framing.obstacle(default_connection, default_connection.removesuffix("/console")) is None
    assert framing.obstacle("http://127.0.0.1:9/console", "http://airflow.example") is None


@needs_views
def test_without_an_address_it_says_what_to_set(deployment: Deployment) -> None:
    deployment.airflow.remove_connection("aws_default")
    answer = deployment.airflow.open(view_of(deployment, "nav")["href"])
    assert answer.status_code == 503
    assert "aws_default" in answer.text


@needs_views
def test_the_tab_of_a_task_leads_to_its_page(deployment: Deployment) -> None:
    project = "of-the-tab"
    run = deployment.airflow.run("create_and_announce", conn_id=deployment.conn_id, project_name=project)
    run.wait()
    names = {"dag_id": run.dag_id, "run_id": run.run_id, "task_id": "create"}
    place = view_of(deployment, "task_instance")["href"]
    for name, value in {**names, "map_index": "-1"}.items():
        place = place.replace("{" + name.upper() + "}", value)
    assert parse_qs(urlsplit(place).query)["run_id"] == [run.run_id]
    page = f"{deployment.service.endpoint_url}/console/projects/{project}"
    instances = f"/dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances/create"
    keys = deployment.airflow.request("GET", f"{instances}/xcomEntries")["xcom_entries"]
    if XCOM_KEY not in {each["key"] for each in keys}:
        assert "has no page" in deployment.airflow.open(place).text
        body = {"key": XCOM_KEY, "value": {"project": page}}
        deployment.airflow.request("POST", f"{instances}/xcomEntries", json=body)
    assert deployment.airflow.open(place).headers["location"] == page


@needs_views
@pytest.mark.parametrize("path", ["/", "/task?dag_id=d&run_id=r&task_id=t&map_index=-1"])
def test_nobody_passes_without_airflows_login(path: str) -> None:
    # Not of the deployment's Airflow, which lets everybody in.
    async def get() -> httpx.Response:
        transport = httpx.ASGITransport(console.LookoutVisionConsolePlugin.fastapi_apps[0]["app"])
        async with httpx.AsyncClient(transport=transport, base_url="http://airflow") as client:
            return await client.get(path)

    assert asyncio.run(get()).status_code == 401


@needs_views
def test_another_address_than_of_the_web_is_not_followed(deployment: Deployment) -> None:
    run = deployment.airflow.run("create_and_announce", conn_id=deployment.conn_id, project_name="no-tab")
    run.wait()
    instances = f"/dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances/create"
    path = f"{instances}/xcomEntries/{XCOM_KEY}"
    keys = deployment.airflow.request("GET", f"{instances}/xcomEntries")["xcom_entries"]
    value = {"project": "javascript:alert(1)"}
    if XCOM_KEY in {each["key"] for each in keys}:
        deployment.airflow.request("PATCH", path, json={"value": value})
    else:
        deployment.airflow.request("POST", f"{instances}/xcomEntries", json={"key": XCOM_KEY, "value": value})
    query = urlencode({"dag_id": run.dag_id, "run_id": run.run_id, "task_id": "create", "map_index": -1})
    answer = deployment.airflow.open(f"{console.PREFIX}/task?{query}")
    assert answer.status_code == 503
    assert "is no address of a console" in answer.text


def test_it_is_a_plugin_of_every_airflow() -> None:
    plugin = console.LookoutVisionConsolePlugin
    assert bool(plugin.fastapi_apps) == bool(plugin.external_views) == HAS_VIEWS
    assert plugin.appbuilder_menu_items == []
