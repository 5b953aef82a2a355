"""The hook's credentials: assumed roles, web identities, profiles, and botocore's own chain."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hook_calls import ELSEWHERE, both, list_projects, services
from moto.server import ThreadedMotoServer
from recording_server import RecordingServer, recording_server

from airflow_provider_lookoutvision.hooks.lookoutvision import LookoutVisionHook

ROLE = "arn:aws:iam::123456789012:role/line-4"


@pytest.fixture
def service() -> Iterator[RecordingServer]:
    with recording_server() as service:
        yield service


@pytest.fixture(scope="module")
def sts() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


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


def test_leaves_other_services_as_they_are(connect: Any, sts: str) -> None:
    hook = LookoutVisionHook(connect(service_config=services(ELSEWHERE, sts)))
    with closing(hook.get_session().client("sts", endpoint_url=sts)) as client:
        assert client.get_caller_identity()["Account"] == hook.account_id
