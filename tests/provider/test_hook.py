"""The hook: every way to configure an Amazon connection reaches the client, and none leads to AWS."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException
from botocore.config import Config
from botocore.exceptions import SSLError
from moto.server import ThreadedMotoServer
from recording_server import RecordingServer, certificate, wire

from airflow_provider_lookoutvision.hooks.lookoutvision import LookoutVisionEndpointError, LookoutVisionHook

ROLE = "arn:aws:iam::123456789012:role/line-4"
SERVICE_CONFIG = "service_config"
ELSEWHERE = "http://localhost:9/elsewhere"


@pytest.fixture
def service() -> Iterator[RecordingServer]:
    with wire() as service:
        yield service


@pytest.fixture(scope="module")
def sts() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def services(lookoutvision: str, sts: str | None = None) -> dict[str, Any]:
    config = {"lookoutvision": {"endpoint_url": lookoutvision}}
    return config | ({"sts": {"endpoint_url": sts}} if sts else {})


def list_projects(hook: LookoutVisionHook, *, deferrable: bool, times: int = 1) -> None:
    """Call the service, as a task does or as a trigger does."""

    async def from_a_trigger() -> None:
        async with await hook.get_async_conn() as client:
            for _ in range(times):
                await client.list_projects()

    if deferrable:
        asyncio.run(from_a_trigger())
    else:
        for _ in range(times):
            hook.conn.list_projects()


both = pytest.mark.parametrize("deferrable", [False, True], ids=["sync", "async"])


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


def test_makes_one_client(connect: Any) -> None:
    hook = LookoutVisionHook(connect(endpoint_url=ELSEWHERE))
    assert hook.conn is hook.conn
    assert hook.get_conn() is hook.conn


@both
def test_assumes_a_role(deferrable: bool, sts: str, service: RecordingServer, connect: Any) -> None:
    hook = LookoutVisionHook(connect(role_arn=ROLE, service_config=services(service.url, sts)))

    list_projects(hook, deferrable=deferrable)

    (request,) = service.requests
    assert request.credential[0].startswith("ASIA")  # a temporary key
    assert request.headers["X-Amz-Security-Token"]


@both
def test_refreshes_an_assumed_role(
    deferrable: bool, sts: str, service: RecordingServer, connect: Any
) -> None:
    # The shortest that STS gives, and the moment that botocore begins to look for new credentials.
    shortest = {"DurationSeconds": 900}
    hook = LookoutVisionHook(
        connect(role_arn=ROLE, assume_role_kwargs=shortest, service_config=services(service.url, sts))
    )

    list_projects(hook, deferrable=deferrable, times=2)

    first, second = service.requests
    assert first.credential[0] != second.credential[0]
    assert second.headers["X-Amz-Security-Token"] != first.headers["X-Amz-Security-Token"]


@both
def test_assumes_a_role_with_a_web_identity(
    deferrable: bool,
    sts: str,
    service: RecordingServer,
    connect: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    (tmp_path / "token").write_text("a.web.identity")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", sts)
    hook = LookoutVisionHook(
        connect(
            role_arn=ROLE,
            assume_role_method="assume_role_with_web_identity",
            assume_role_with_web_identity_federation="file",
            assume_role_with_web_identity_token_file=str(tmp_path / "token"),
            service_config=services(service.url),
        )
    )

    list_projects(hook, deferrable=deferrable)

    assert service.requests[0].credential[0].startswith("ASIA")


@both
def test_reads_a_profile(deferrable: bool, service: RecordingServer, connect: Any, tmp_path: Path) -> None:
    (tmp_path / "aws-config").write_text(
        "[profile plant]\nregion = us-west-2\naws_access_key_id = AKIDPLANT\naws_secret_access_key = secret\n"
        f"endpoint_url = {service.url}\n"
    )
    conn_id = connect(login=None, password=None, profile_name="plant", region_name="us-west-2")

    list_projects(LookoutVisionHook(conn_id), deferrable=deferrable)

    access_key, _, region, *_ = service.requests[0].credential
    assert (access_key, region) == ("AKIDPLANT", "us-west-2")


@both
def test_works_without_a_connection(
    deferrable: bool, service: RecordingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDENVIRON")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_ENDPOINT_URL_LOOKOUTVISION", service.url)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")

    list_projects(LookoutVisionHook(None), deferrable=deferrable)

    assert service.requests[0].credential[0] == "AKIDENVIRON"


def test_its_own_region_and_configuration_come_before_the_connections(
    service: RecordingServer, connect: Any
) -> None:
    conn_id = connect(endpoint_url=service.url, config_kwargs={"retries": {"total_max_attempts": 9}})
    hook = LookoutVisionHook(
        conn_id,
        region_name="us-east-2",
        config={"retries": {"total_max_attempts": 2}, "user_agent_extra": "x/1"},
    )

    hook.conn.list_projects()

    assert service.requests[0].credential[2] == "us-east-2"
    assert " x/1" in service.requests[0].headers["User-Agent"]
    assert hook.conn.meta.config.retries["total_max_attempts"] == 2


def test_the_connections_configuration_counts(connect: Any) -> None:
    hook = LookoutVisionHook(connect(endpoint_url=ELSEWHERE, config_kwargs={"read_timeout": 7}))
    assert hook.conn.meta.config.read_timeout == 7


@both
def test_goes_through_a_proxy(deferrable: bool, service: RecordingServer, connect: Any) -> None:
    target = "http://lookoutvision.plant.example:8320"
    hook = LookoutVisionHook(connect(endpoint_url=target, config_kwargs={"proxies": {"http": service.url}}))

    list_projects(hook, deferrable=deferrable)

    assert service.requests[0].target == f"{target}/2020-11-20/projects"


@both
@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_verifies_certificates_as_it_is_told(deferrable: bool, connect: Any, tmp_path: Path) -> None:
    bundle = str(certificate(tmp_path))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(bundle)
    once = Config(retries={"total_max_attempts": 1})
    with wire(tls) as service:
        conn_id = connect(endpoint_url=service.url)
        with pytest.raises(SSLError):
            list_projects(LookoutVisionHook(conn_id, config=once), deferrable=deferrable)
        assert not service.requests

        list_projects(LookoutVisionHook(conn_id, verify=bundle), deferrable=deferrable)
        conn_id = connect(endpoint_url=service.url, verify=False)
        list_projects(LookoutVisionHook(conn_id), deferrable=deferrable)
        assert len(service.requests) == 2


def test_finds_our_waiters(connect: Any) -> None:
    hook = LookoutVisionHook(connect(endpoint_url=ELSEWHERE))

    assert {"model_trained", "model_hosted"} <= set(hook.list_waiters())
    assert hook.get_waiter("model_trained").name == "ModelTrained"

    async def from_a_trigger() -> Any:
        async with await hook.get_async_conn() as client:
            return hook.get_waiter("model_trained", deferrable=True, client=client)

    waiter = asyncio.run(from_a_trigger())
    assert waiter.name == "ModelTrained"
    assert asyncio.iscoroutinefunction(waiter.wait)


def test_the_namespace_comes_from_the_connection(connect: Any) -> None:
    assert LookoutVisionHook(connect(client_token_namespace="plant-1")).client_token_namespace == "plant-1"
    assert LookoutVisionHook(connect()).client_token_namespace == ""
    assert LookoutVisionHook(None).client_token_namespace == ""


def test_the_rate_of_questions_comes_from_the_connection(connect: Any) -> None:
    assert LookoutVisionHook(connect(requests_per_second="0.5")).requests_per_second == 0.5
    assert LookoutVisionHook(connect()).requests_per_second == 5


@pytest.mark.parametrize("rate", ["0", 0, -1, "fast", "nan", "inf", []])
def test_a_rate_that_can_not_be_is_named(rate: Any, connect: Any) -> None:
    told = (
        f"requests_per_second of the connection 'lookoutvision_test' is {rate!r}; it must be a number above 0"
    )
    with pytest.raises(AirflowFailException, match=re.escape(told)):
        _ = LookoutVisionHook(connect(requests_per_second=rate)).requests_per_second


def test_tests_the_connection_by_asking_the_service(service: RecordingServer, connect: Any) -> None:
    hook = LookoutVisionHook(connect(endpoint_url=service.url))
    assert hook.test_connection() == (True, f"{service.url} answers in region eu-central-1.")
    assert service.requests[0].target == "/2020-11-20/projects?maxResults=1"


def test_says_why_the_connection_does_not_work(connect: Any) -> None:
    works, reason = LookoutVisionHook(connect()).test_connection()
    assert not works
    assert "2025-10-31" in reason


def test_leaves_other_services_as_they_are(connect: Any, sts: str) -> None:
    hook = LookoutVisionHook(connect(service_config=services(ELSEWHERE, sts)))
    with closing(hook.get_session().client("sts", endpoint_url=sts)) as client:
        assert client.get_caller_identity()["Account"] == hook.account_id
