"""S3 as the operators use it: URIs, connections, and which errors a retry helps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from botocore.exceptions import ClientError
from moto_s3 import running_s3

from airflow_provider_lookoutvision.operators.datasets import LookoutVisionUpdateDatasetEntriesOperator
from airflow_provider_lookoutvision.operators.manifests import LookoutVisionBuildManifestOperator
from airflow_provider_lookoutvision.operators.s3 import (
    fail_fast_on_s3_errors,
    parse_s3_folder,
    parse_s3_prefix,
    parse_s3_uri,
    s3_hook,
)


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    with running_s3("images") as s3:
        yield s3.meta.endpoint_url


@pytest.fixture
def conn_id(s3_url: str, connect: Any) -> str:
    return str(connect(service_config={"s3": {"endpoint_url": s3_url}}, region_name="us-east-1"))


# -- URIs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["a/b.png", "part?1.png", "part#1.png", "/a", "a//b", "50%.png", "ä ö;x"])
def test_a_key_is_taken_as_it_is(key: str) -> None:
    assert parse_s3_uri("p", f"s3://bucket/{key}") == ("bucket", key)
    assert parse_s3_prefix("p", f"s3://bucket/{key}") == ("bucket", key)
    assert parse_s3_folder("p", f"s3://bucket/{key}") == ("bucket", f"{key}/")


def test_a_prefix_may_be_empty_and_a_folder_ends_with_a_slash() -> None:
    for uri in ("s3://bucket", "s3://bucket/"):
        assert parse_s3_prefix("p", uri) == parse_s3_folder("p", uri) == ("bucket", "")
    assert parse_s3_folder("p", "s3://bucket/a/") == ("bucket", "a/")


@pytest.mark.parametrize("uri", ["", "bucket/key", "/tmp/key", "s3:/bucket/key", "s3:///key", "https://b/k"])
@pytest.mark.parametrize("parse", [parse_s3_uri, parse_s3_prefix, parse_s3_folder])
def test_the_error_names_the_parameter(parse: Any, uri: str) -> None:
    with pytest.raises(AirflowFailException, match=r"^manifest_s3_uri is .* it must be s3://bucket/"):
        parse("manifest_s3_uri", uri)


def test_an_object_needs_a_key() -> None:
    with pytest.raises(AirflowFailException, match="it must be s3://bucket/key"):
        parse_s3_uri("p", "s3://bucket/")


# -- connections and errors ------------------------------------------------------------------------------


def test_missing_changes_are_not_retried(conn_id: str) -> None:
    update = LookoutVisionUpdateDatasetEntriesOperator(
        task_id="update",
        aws_conn_id=conn_id,
        project_name="p",
        dataset_type="train",
        changes_s3_uri="s3://images/missing.jsonl",
    )
    with pytest.raises(AirflowFailException, match=r"^s3://images/missing.jsonl: .*NoSuchKey"):
        update.execute({})


@pytest.mark.parametrize(
    ("code", "raised"),
    [
        ("AccessDenied", AirflowFailException),
        ("InvalidAccessKeyId", AirflowFailException),
        ("SignatureDoesNotMatch", AirflowFailException),
        ("404", AirflowFailException),
        ("SlowDown", ClientError),
        ("InternalError", ClientError),
    ],
)
def test_what_may_pass_is_left_to_the_retries(code: str, raised: type[Exception]) -> None:
    refusal = ClientError({"Error": {"Code": code, "Message": "no"}}, "GetObject")
    with pytest.raises(raised, match=rf"\({code}\)"), fail_fast_on_s3_errors():
        raise refusal


def test_s3_has_the_operators_settings_unless_it_has_a_connection(
    conn_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = {"region_name": "eu-west-3"}
    other = {"conn_type": "aws", "login": "AKIDOTHER", "password": "secret", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", json.dumps(other))
    operator = LookoutVisionBuildManifestOperator(
        task_id="build",
        images_s3_prefix="s3://images/",
        manifests_s3_prefix="s3://images/",
        aws_conn_id=conn_id,
        region_name="eu-west-1",
        verify=False,
        botocore_config={"read_timeout": 7},
    )

    def settings(s3_conn_id: str | None) -> tuple[Any, ...]:
        hook = s3_hook(operator, s3_conn_id)
        timeout = hook.conn.meta.config.read_timeout
        return hook.get_credentials().access_key, hook.conn.meta.region_name, hook.verify, timeout

    assert settings(None) == ("AKIDEXAMPLE", "eu-west-1", False, 7)
    assert settings("other") == ("AKIDOTHER", "eu-west-3", None, 60)
