"""Airflow finds the provider, and everything in its description is there."""

from __future__ import annotations

import json
from importlib import import_module, resources
from importlib.metadata import distribution

import jsonschema
from airflow.providers_manager import ProvidersManager

from airflow_provider_lookoutvision import __version__
from airflow_provider_lookoutvision.provider_info import get_provider_info

NAME = "airflow-provider-lookoutvision"


def test_airflow_discovers_the_provider() -> None:
    provider = ProvidersManager().providers[NAME]
    assert provider.version == __version__
    assert provider.data == {**provider.data, **get_provider_info()}


def test_keeps_to_airflows_schema() -> None:
    schema = json.loads(resources.files("airflow").joinpath("provider_info.schema.json").read_text())
    jsonschema.validate(get_provider_info(), schema)


def test_names_what_exists() -> None:
    info = get_provider_info()
    assert info["package-name"] == NAME == distribution("airflow_provider_lookoutvision").name
    integrations = {each["integration-name"] for each in info["integrations"]}
    for kind in ("hooks", "operators", "sensors", "triggers"):
        for entry in info[kind]:
            assert entry["integration-name"] in integrations
            for module in entry["python-modules"]:
                import_module(module)
