"""Where requests go, by region, FIPS, dual-stack, and to a server of one's own."""

from __future__ import annotations

import copy
import logging
from typing import Any

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from botocore.endpoint_provider import EndpointProvider
from botocore.exceptions import EndpointProviderError
from botocore.loaders import Loader

REGIONS = [
    "us-east-1",
    "us-east-2",
    "us-west-2",
    "eu-west-1",
    "eu-central-1",
    "ap-northeast-1",
    "ap-northeast-2",
]
FIPS = {"use_fips_endpoint": True}
DUAL_STACK = {"use_dualstack_endpoint": True}


class EmptyObject:
    def stream(self, **_: object) -> list[bytes]:
        return [b"{}"]


def address_of_a_request(
    session: boto3.Session, region: str, endpoint_url: str | None = None, **config: Any
) -> str:
    """The URL that a real client sends ListProjects to, stopped before it leaves."""
    urls: list[str] = []

    def stop(request: Any, **_: object) -> AWSResponse:
        urls.append(request.url)
        return AWSResponse(request.url, 200, {}, EmptyObject())

    client = session.client(
        "lookoutvision", region_name=region, endpoint_url=endpoint_url, config=Config(**config)
    )
    client.meta.events.register("before-send.lookoutvision.ListProjects", stop)
    client.list_projects()
    (url,) = urls
    return url


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize(
    ("config", "host"),
    [
        ({}, "lookoutvision.{}.amazonaws.com"),
        (FIPS, "lookoutvision-fips.{}.amazonaws.com"),
        (DUAL_STACK, "lookoutvision.{}.api.aws"),
        (FIPS | DUAL_STACK, "lookoutvision-fips.{}.api.aws"),
    ],
    ids=["plain", "FIPS", "dual-stack", "FIPS and dual-stack"],
)
def test_a_region_has_its_host(
    session: boto3.Session, region: str, config: dict[str, Any], host: str
) -> None:
    url = address_of_a_request(session, region, **config)
    assert url == f"https://{host.format(region)}/2020-11-20/projects"


def test_another_partition_has_its_suffix(session: boto3.Session) -> None:
    assert address_of_a_request(session, "cn-north-1").startswith(
        "https://lookoutvision.cn-north-1.amazonaws.com.cn/"
    )


def test_a_server_of_ones_own_gets_the_request(session: boto3.Session) -> None:
    url = address_of_a_request(session, "eu-west-1", "http://127.0.0.1:8320/vision")
    assert url == "http://127.0.0.1:8320/vision/2020-11-20/projects"


def test_the_environment_names_the_server(session: boto3.Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_LOOKOUTVISION", "http://127.0.0.1:8321")
    assert address_of_a_request(session, "eu-west-1") == "http://127.0.0.1:8321/2020-11-20/projects"


def test_the_rules_are_used_and_not_the_legacy_endpoints(
    session: boto3.Session, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "botocore"):
        address_of_a_request(session, "us-east-1")
    assert [record.getMessage() for record in caplog.records if "legacy" in record.getMessage()] == []


@pytest.fixture(scope="module")
def partitions() -> dict[str, Any]:
    return Loader().load_data("partitions")


# A botocore client drops FIPS and dual-stack itself when it has an endpoint, so the rules are asked directly.
@pytest.mark.parametrize(("flag", "word"), [("UseFIPS", "FIPS"), ("UseDualStack", "dual-stack")])
def test_a_server_of_ones_own_excludes_fips_and_dual_stack(
    model_data: dict[str, Any], partitions: dict[str, Any], flag: str, word: str
) -> None:
    provider = EndpointProvider(model_data["endpoint-rule-set-1"], partitions)
    with pytest.raises(EndpointProviderError, match=f"custom endpoint cannot be combined with {word}"):
        provider.resolve_endpoint(Endpoint="http://127.0.0.1:8320", Region="us-east-1", **{flag: True})


@pytest.mark.parametrize(
    ("flags", "missing", "message"),
    [
        (["UseFIPS"], "supportsFIPS", "does not support FIPS$"),
        (["UseDualStack"], "supportsDualStack", "does not support dual-stack$"),
        (["UseFIPS", "UseDualStack"], "supportsFIPS", "FIPS together with dual-stack$"),
        (["UseFIPS", "UseDualStack"], "supportsDualStack", "FIPS together with dual-stack$"),
    ],
)
def test_a_partition_that_lacks_a_feature_says_so(
    model_data: dict[str, Any], partitions: dict[str, Any], flags: list[str], missing: str, message: str
) -> None:
    lacking = copy.deepcopy(partitions)
    for partition in lacking["partitions"]:
        partition["outputs"][missing] = False
    provider = EndpointProvider(model_data["endpoint-rule-set-1"], lacking)
    with pytest.raises(EndpointProviderError, match=message):
        provider.resolve_endpoint(Region="us-east-1", **dict.fromkeys(flags, True))


def test_without_region_and_endpoint_there_is_nowhere_to_go(
    model_data: dict[str, Any], partitions: dict[str, Any]
) -> None:
    provider = EndpointProvider(model_data["endpoint-rule-set-1"], partitions)
    with pytest.raises(EndpointProviderError, match="Missing Region"):
        provider.resolve_endpoint()
