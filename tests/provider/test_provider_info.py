"""Airflow finds the provider, and everything in its description is there."""

from __future__ import annotations

import json
from importlib import import_module, resources
from importlib.metadata import distribution, metadata

import jsonschema
from airflow.providers.common.compat.sdk import BaseOperatorLink
from airflow.providers_manager import ProvidersManager

from airflow_provider_lookoutvision import __version__
from airflow_provider_lookoutvision.operators import lookoutvision as operators
from airflow_provider_lookoutvision.provider_info import CONNECTION_TYPE, HOME_PAGE, HOOK, get_provider_info

NAME = "airflow-provider-lookoutvision"


def test_airflow_discovers_the_provider() -> None:
    provider = ProvidersManager().providers[NAME]
    assert provider.version == __version__
    assert provider.data == {**provider.data, **get_provider_info()}


def test_keeps_to_airflows_schema() -> None:
    schema = json.loads(resources.files("airflow").joinpath("provider_info.schema.json").read_text())
    jsonschema.validate(get_provider_info(), schema)


def test_the_connection_type_is_there_with_its_form() -> None:
    manager = ProvidersManager()
    hook = manager.hooks["lookoutvision"]
    assert hook
    assert hook.hook_class_name == HOOK
    assert (hook.hook_name, hook.connection_id_attribute_name) == ("Lookout for Vision", "aws_conn_id")
    assert hook.connection_testable
    fields = {f"extra__lookoutvision__{name}" for name in CONNECTION_TYPE["conn-fields"]}
    assert fields <= manager.connection_form_widgets.keys()
    behaviour = manager.field_behaviours["lookoutvision"]
    assert behaviour["hidden_fields"] == ["host", "schema", "port"]
    assert behaviour["relabeling"]["login"] == "Access key ID"
    assert not any(manager.connection_form_widgets[name].is_sensitive for name in fields)


def test_the_package_leads_to_a_page_of_its_own_and_to_none_that_has_ended() -> None:
    urls = metadata(NAME).get_all("Project-URL") or []
    assert f"Homepage, {HOME_PAGE}" in urls
    assert "amazon" not in json.dumps([urls, get_provider_info()["integrations"]]).replace("Amazon", "")


def test_names_what_exists() -> None:
    info = get_provider_info()
    assert info["package-name"] == NAME == distribution("airflow_provider_lookoutvision").name
    integrations = {each["integration-name"] for each in info["integrations"]}
    for kind in ("hooks", "operators", "sensors", "triggers"):
        for entry in info[kind]:
            assert entry["integration-name"] in integrations
            for module in entry["python-modules"]:
                import_module(module)
    for link in info["extra-links"]:
        module, _, name = link.rpartition(".")
        assert issubclass(getattr(import_module(module), name), BaseOperatorLink)


def test_each_link_of_an_operator_is_registered() -> None:
    registered = set(get_provider_info()["extra-links"])
    for name in operators.__all__:
        for link in vars(operators)[name].operator_extra_links:
            assert f"{type(link).__module__}.{type(link).__name__}" in registered
