"""Connections of the type ``lookoutvision``: one URL for the service and its S3, and a form to test it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from airflow.models import Connection
from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from airflow_and_service import Deployment
from airflow_rest import REST

from airflow_provider_lookoutvision.hooks.lookoutvision import LookoutVisionHook
from airflow_provider_lookoutvision.operators.lookoutvision import LookoutVisionBuildManifestOperator
from airflow_provider_lookoutvision.operators.s3 import s3_hook
from airflow_provider_lookoutvision.testing.service import Service, running_service

NOWHERE = "http://localhost:9"
CONN_ID = "of_its_own_type"


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running_service() as service:
        yield service


@pytest.fixture
def connect(service: Service, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make a connection of the type, as its form stores it; return its ID."""

    def connect(**extra: Any) -> str:
        extra = {"endpoint_url": service.endpoint_url, "region_name": "eu-central-1", **extra}
        connection = {
            "conn_type": "lookoutvision",
            "login": service.access_key_id,
            "password": service.secret_access_key,
            "extra": extra,
        }
        monkeypatch.setenv(f"AIRFLOW_CONN_{CONN_ID.upper()}", json.dumps(connection))
        return CONN_ID

    return connect


def test_one_url_is_the_service_and_its_s3(connect: Any, service: Service) -> None:
    conn_id = connect(s3_endpoint_url="", client_token_namespace="", requests_per_second=None)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # the Amazon provider's, about another type
        hook = LookoutVisionHook(conn_id)
        assert hook.test_connection() == (True, f"{service.endpoint_url} answers in region eu-central-1.")
        assert (hook.client_token_namespace, hook.requests_per_second) == ("", 5)
        operator = LookoutVisionBuildManifestOperator(
            task_id="task", aws_conn_id=conn_id, images_s3_prefix="s3://b/", manifests_s3_prefix="s3://b/"
        )
        for given in (None, conn_id):
            assert s3_hook(operator, given).conn.meta.endpoint_url == service.endpoint_url
    # For whatever else reads S3 with this connection.
    s3 = S3Hook(conn_id)
    s3.create_bucket("of-its-own-type")
    s3.load_string("text", "key", "of-its-own-type")
    assert s3.read_key("key", "of-its-own-type") == "text"


def test_the_fields_of_the_form(connect: Any, service: Service) -> None:
    hook = LookoutVisionHook(connect(client_token_namespace="plant-1", requests_per_second="0.5"))
    assert (hook.client_token_namespace, hook.requests_per_second) == ("plant-1", 0.5)
    conn_id = connect(s3_endpoint_url=NOWHERE, verify=False, config_kwargs={"connect_timeout": 7})
    operator = LookoutVisionBuildManifestOperator(
        task_id="task", aws_conn_id=conn_id, images_s3_prefix="s3://b/", manifests_s3_prefix="s3://b/"
    )
    assert s3_hook(operator, None).conn.meta.endpoint_url == NOWHERE
    assert LookoutVisionHook(conn_id).conn.meta.endpoint_url == service.endpoint_url
    assert LookoutVisionHook(conn_id).conn.meta.config.connect_timeout == 7


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({"endpoint_url": ""}, "the Endpoint of the connection 'of_its_own_type'"),
        ({"endpoint_url": "127.0.0.1:8320"}, "must be a URL with its scheme"),
        ({"endpoint_url": NOWHERE}, "Could not connect"),
        ({"region_name": ""}, "No region is configured"),
        ({"s3_endpoint_url": NOWHERE}, f"answers, but {NOWHERE} is not its S3"),
    ],
)
def test_the_test_of_a_connection_names_what_is_wrong(connect: Any, extra: dict[str, str], said: str) -> None:
    works, message = LookoutVisionHook(
        connect(config_kwargs={"retries": {"total_max_attempts": 1}}, **extra)
    ).test_connection()
    assert not works
    assert said in message


@pytest.mark.parametrize("scheme", ["", "http://"])
def test_a_connection_that_is_a_url(service: Service, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    url = httpx.URL(service.endpoint_url)
    connection = Connection(
        conn_id="a_url",
        conn_type="lookoutvision",
        host=f"{scheme}{url.host}",
        port=url.port,
        login=service.access_key_id,
        password=service.secret_access_key,
        extra=json.dumps({"region_name": "eu-central-1"}),
    )
    monkeypatch.setenv("AIRFLOW_CONN_A_URL", connection.get_uri())
    assert LookoutVisionHook("a_url").test_connection()[0]


# -- in a real Airflow -----------------------------------------------------------------------------------


def test_the_form_and_its_test_button(deployment: Deployment) -> None:
    """The form's fields reach the UI, and its button tests what is in the form."""
    body = {
        "connection_id": "in_the_form",
        "conn_type": "lookoutvision",
        "login": deployment.service.access_key_id,
        "password": deployment.service.secret_access_key,
        "extra": json.dumps({"endpoint_url": deployment.service.endpoint_url, "region_name": "eu-central-1"}),
    }
    answer = deployment.airflow.request("POST", "/connections/test", json=body)
    assert answer == {
        "status": True,
        "message": f"{deployment.service.endpoint_url} answers in region eu-central-1.",
    }
    body["extra"] = json.dumps(
        {
            "endpoint_url": NOWHERE,
            "region_name": "eu-central-1",
            "config_kwargs": {"retries": {"total_max_attempts": 1}},
        }
    )
    answer = deployment.airflow.request("POST", "/connections/test", json=body)
    assert not answer["status"]
    assert "Could not connect" in answer["message"]


@pytest.mark.skipif(not REST.connection_forms, reason="Airflow 2 renders its forms itself")
def test_the_forms_fields_reach_the_ui(deployment: Deployment) -> None:
    forms = {each["connection_type"]: each for each in deployment.airflow.connection_forms()}
    form = forms["lookoutvision"]
    assert set(form["extra_fields"]) == {
        "endpoint_url", "region_name", "s3_endpoint_url", "client_token_namespace", "requests_per_second",
    }  # fmt: skip
    assert form["extra_fields"]["endpoint_url"]["schema"]["title"] == "Endpoint"
    assert form["standard_fields"]["login"]["title"] == "Access key ID"
    assert form["standard_fields"]["host"]["hidden"]
