"""The hook finds its endpoint wherever a connection or botocore may have it, and never goes to AWS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException
from hook_calls import ELSEWHERE, both, list_projects, services
from recording_server import RecordingServer, recording_server

from airflow_provider_lookoutvision.hooks.endpoint import LookoutVisionEndpointError
from airflow_provider_lookoutvision.hooks.lookoutvision import LookoutVisionHook

SERVICE_CONFIG = "service_config"


@pytest.fixture
def service() -> Iterator[RecordingServer]:
    with recording_server() as service:
        yield service


# Where the endpoint may stand: in the connection's extra, the environment, the AWS configuration file.
ENDPOINTS: dict[str, tuple[dict[str, Any], dict[str, str], str]] = {
    "connection, this service": ({SERVICE_CONFIG: services("URL")}, {}, ""),
    "connection, all services": ({"endpoint_url": "URL"}, {}, ""),
    "connection, this service before all": (
        {SERVICE_CONFIG: services("URL"), "endpoint_url": ELSEWHERE},
        {},
        "",
    ),
    "connection before environment": (
        {SERVICE_CONFIG: services("URL")},
        {"AWS_ENDPOINT_URL_LOOKOUTVISION": ELSEWHERE},
        "",
    ),
    "connection, environment ignored": (
        {SERVICE_CONFIG: services("URL")},
        {"AWS_ENDPOINT_URL": ELSEWHERE, "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"},
        "",
    ),
    "environment, this service": ({}, {"AWS_ENDPOINT_URL_LOOKOUTVISION": "URL"}, ""),
    "environment, all services": ({}, {"AWS_ENDPOINT_URL": "URL"}, ""),
    "file, this service": (
        {},
        {},
        "[default]\nservices = local\n[services local]\nlookoutvision =\n  endpoint_url = URL\n",
    ),
    "file, all services": ({}, {}, "[default]\nendpoint_url = URL\n"),
}


@both
@pytest.mark.parametrize("place", ENDPOINTS)
def test_finds_the_endpoint_wherever_it_is_configured(
    place: str,
    deferrable: bool,
    service: RecordingServer,
    connect: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    extra, environment, config_file = ENDPOINTS[place]

    def resolved(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: resolved(member) for key, member in value.items()}
        return value.replace("URL", service.url) if value == "URL" else value

    for name, value in resolved(environment).items():
        monkeypatch.setenv(name, value)
    (tmp_path / "aws-config").write_text(config_file.replace("URL", service.url))
    hook = LookoutVisionHook(connect(**resolved(extra)))

    list_projects(hook, deferrable=deferrable)

    (request,) = service.requests
    assert request.target == "/2020-11-20/projects"
    assert request.credential[0] == "AKIDEXAMPLE"
    assert request.credential[2:4] == ["eu-central-1", "lookoutvision"]


@both
@pytest.mark.parametrize(
    ("extra", "environment"),
    [
        ({}, {}),
        ({}, {"AWS_ENDPOINT_URL": ELSEWHERE, "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"}),
        ({}, {"AWS_ENDPOINT_URL_S3": ELSEWHERE}),
        ({}, {"AWS_USE_FIPS_ENDPOINT": "true"}),
        ({}, {"AWS_USE_DUALSTACK_ENDPOINT": "true"}),
        ({SERVICE_CONFIG: {"s3": {"endpoint_url": ELSEWHERE}}}, {}),
        ({"config_kwargs": {"use_fips_endpoint": True, "use_dualstack_endpoint": True}}, {}),
        ({"config_kwargs": {"ignore_configured_endpoint_urls": True}}, {"AWS_ENDPOINT_URL": ELSEWHERE}),
        ({"region_name": "us-east-1"}, {}),
        ({"region_name": "cn-north-1"}, {}),
        ({"region_name": "us-iso-east-1"}, {}),
        ({"region_name": "eu-newest-9"}, {}),
        ({"endpoint_url": "https://lookoutvision.us-east-1.amazonaws.com"}, {}),
        ({"endpoint_url": "https://vpce-0f1-2e3.lookoutvision.us-east-1.vpce.amazonaws.com"}, {}),
    ],
)
def test_never_goes_to_aws(
    extra: dict[str, Any],
    environment: dict[str, str],
    deferrable: bool,
    connect: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    hook = LookoutVisionHook(connect(**extra))

    with pytest.raises(LookoutVisionEndpointError) as refused:
        list_projects(hook, deferrable=deferrable)

    assert isinstance(refused.value, AirflowException)
    message = str(refused.value)
    assert "2025-10-31" in message
    for way in (
        "'lookoutvision_test'",
        "service_config",
        "AWS_ENDPOINT_URL_LOOKOUTVISION",
        "lookoutvision serve",
    ):
        assert way in message


@pytest.mark.parametrize(
    "url",
    [
        "https://lookoutvision.plant.example:8320",
        "https://lookoutvision-1234.us-east-1.elb.amazonaws.com",
        "https://abc.execute-api.us-east-1.amazonaws.com/lookoutvision",
    ],
)
def test_takes_a_service_of_ones_own_on_aws(url: str, connect: Any) -> None:
    assert LookoutVisionHook(connect(endpoint_url=url)).conn.meta.endpoint_url == url
