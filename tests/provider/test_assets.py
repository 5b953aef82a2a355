"""What the events of a task's outlets tell of the project or model that it made."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import Asset, AssetAlias
from airflow.sdk.execution_time.context import OutletEventAccessors

from airflow_provider_lookoutvision.assets import announce, asset_uri

ARN = "arn:aws:lookoutvision:us-east-1:123456789012:model/circuit-boards/1"
URI = "lookoutvision://us-east-1/123456789012/model/circuit-boards/1"


def announced(*outlets: Any) -> Any:
    events = OutletEventAccessors()
    announce({"task": SimpleNamespace(outlets=list(outlets)), "outlet_events": events}, ARN, {"F1Score": 0.9})
    return events


def test_the_uri_is_the_arns() -> None:
    assert asset_uri(ARN) == URI == Asset(URI).uri
    assert asset_uri(ARN.replace("model/circuit-boards/1", "project/p")).endswith("/project/p")


def test_an_alias_gets_the_asset() -> None:
    alias = AssetAlias("models")
    (event,) = announced(alias)[alias].asset_alias_events
    assert event.dest_asset_key.uri == URI
    assert event.extra == {"F1Score": 0.9}


def test_an_asset_gets_the_extra() -> None:
    asset = Asset("s3://somewhere/models")
    assert announced(asset)[asset].extra == {"uri": URI, "F1Score": 0.9}


@pytest.mark.parametrize("context", [{}, {"task": None}, {"task": SimpleNamespace(outlets=[])}])
def test_without_outlets_nothing_happens(context: Any) -> None:
    announce(context, ARN, {})
