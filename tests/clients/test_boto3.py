"""boto3 1.40.59 with its own model, today's with ours: the same calls, the same answers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import boto3
from calls import calls

from airflow_provider_lookoutvision.model import MODEL_PATH, teach
from airflow_provider_lookoutvision.testing.service import Service

CALLS = Path(__file__).with_name("calls.py")
ACCOUNT = "000000000000"  # what differs between accounts, and would differ in the comparison
Environ = Callable[..., dict[str, str]]


def called_by(python: Path | str, environ: Mapping[str, str], account: str) -> tuple[str, list[Any]]:
    """The version of boto3, and what all calls came to."""
    command = [str(python), str(CALLS)]
    done = subprocess.run(
        command, env=dict(environ), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.replace(account, ACCOUNT))
    return seen["boto3"], seen["calls"]


def test_the_old_and_the_new_see_the_same(old_boto3: Path, environ: Environ) -> None:
    old_version, old = called_by(old_boto3, environ("111111111111"), "111111111111")
    new_version, new = called_by(
        sys.executable, environ("222222222222", AWS_DATA_PATH=MODEL_PATH), "222222222222"
    )
    assert old_version == "1.40.59"
    assert new_version == boto3.__version__ != old_version
    assert old == new
    assert len(old) > 40
    arn = f"arn:aws:lookoutvision:eu-central-1:{ACCOUNT}:project/p-0"
    made = {"ProjectArn": arn, "ProjectName": "p-0", "CreationTimestamp": "a moment"}
    assert old[0] == [200, {"Projects": []}]
    assert old[1] == old[2] == [200, {"ProjectMetadata": made}]
    assert old[3][:2] == old[4][:2] == ["ConflictException", 409]
    assert old[11] == [200, {"ProjectDescription": {**made, "Datasets": []}}]
    assert old[-3:] == ["PROJECT", "p-0", [200, {"Projects": []}]]


def test_a_taught_session_sees_the_same(old_boto3: Path, environ: Environ, compared_service: Service) -> None:
    of_taught = environ("444444444444")
    client = teach(boto3.Session()).client(
        "lookoutvision",
        region_name=of_taught["AWS_DEFAULT_REGION"],
        endpoint_url=compared_service.endpoint_url,
        aws_access_key_id=of_taught["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=of_taught["AWS_SECRET_ACCESS_KEY"],
    )
    taught = json.loads(json.dumps(list(calls(client))).replace("444444444444", ACCOUNT))
    assert taught == called_by(old_boto3, environ("333333333333"), "333333333333")[1]


def test_without_the_model_todays_boto3_knows_nothing(environ: Environ) -> None:
    done = subprocess.run(
        [sys.executable, str(CALLS)], env=environ("555555555555"), capture_output=True, text=True, check=False
    )
    assert "UnknownServiceError" in done.stderr
