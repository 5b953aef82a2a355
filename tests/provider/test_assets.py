"""The events of a task's outlets: the project or model that it made."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import Asset
from airflow_and_service import Deployment
from airflow_instance import Run

from airflow_provider_lookoutvision.assets import asset_uri, emit_asset_event

pytestmark = pytest.mark.timeout(3600)

ARN = "arn:aws:lookoutvision:us-east-1:123456789012:model/circuit-boards/1"
URI = "lookoutvision://us-east-1/123456789012/model/circuit-boards/1"


def test_the_uri_is_the_arns() -> None:
    assert asset_uri(ARN) == URI == Asset(URI).uri
    assert asset_uri(ARN.replace("model/circuit-boards/1", "project/p")).endswith("/project/p")


@pytest.fixture(scope="module")
def run(deployment: Deployment) -> Run:
    return deployment.airflow.run("create_and_announce", conn_id=deployment.conn_id, project_name="announced")


def test_an_alias_gets_the_asset_and_an_asset_the_extra(run: Run) -> None:
    assert run.wait() == "success"

    project = run.xcom("create")
    uri = "lookoutvision://eu-central-1/123456789012/project/announced"
    assert run.asset_events() == {uri: project, "s3://somewhere/projects": {"uri": uri, **project}}


@pytest.mark.parametrize("context", [{}, {"task": None}, {"task": SimpleNamespace(outlets=[])}])
def test_without_outlets_nothing_happens(context: Any) -> None:
    emit_asset_event(context, ARN, {})
