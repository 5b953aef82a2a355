"""The last AWS CLI that has the command, as its users call it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_lookoutvision.testing.service import Service

Environ = Callable[..., dict[str, str]]
Aws = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def aws(old_boto3: Path, environ: Environ, compared_service: Service, account: str) -> Aws:
    """``aws("create-project", ...)``, with the endpoint as a flag."""
    variables = environ(account, AWS_PAGER="")
    del variables["AWS_ENDPOINT_URL_LOOKOUTVISION"]

    def aws(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(old_boto3), "-m", "awscli", "lookoutvision", *arguments]
        command += ["--endpoint-url", compared_service.endpoint_url, "--output", "json"]
        return subprocess.run(
            command, env=variables, capture_output=True, text=True, timeout=120, check=False
        )

    return aws


def done(process: subprocess.CompletedProcess[str]) -> Any:
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


def test_a_life_of_a_project(aws: Aws, account: str) -> None:
    arn = f"arn:aws:lookoutvision:eu-central-1:{account}:project/p"
    made = done(aws("create-project", "--project-name", "p", "--client-token", "t"))
    assert made["ProjectMetadata"]["ProjectArn"] == arn
    assert done(aws("create-project", "--project-name", "p", "--client-token", "t")) == made
    refused = aws("create-project", "--project-name", "p")
    assert refused.returncode == 255
    assert "An error occurred (ConflictException) when calling the CreateProject operation" in refused.stderr
    assert done(aws("describe-project", "--project-name", "p"))["ProjectDescription"]["Datasets"] == []
    done(aws("create-project", "--project-name", "q"))
    listed = done(aws("list-projects", "--max-items", "1"))
    assert [project["ProjectName"] for project in listed["Projects"]] == ["p"]
    rest = done(aws("list-projects", "--starting-token", listed["NextToken"], "--page-size", "1"))
    assert [project["ProjectName"] for project in rest["Projects"]] == ["q"]
    assert done(aws("delete-project", "--project-name", "p")) == {"ProjectArn": arn}
    assert "(ResourceNotFoundException)" in aws("delete-project", "--project-name", "p").stderr


def test_a_life_of_a_model(aws: Aws, tmp_path: Path) -> None:
    image = tmp_path / "image.jpg"
    image.write_bytes(b"no image")
    of_project = ["--project-name", "with-models"]
    done(aws("create-project", *of_project))
    done(aws("create-dataset", *of_project, "--dataset-type", "train"))
    output = '{"S3Location": {"Bucket": "some-bucket", "Prefix": "a/"}}'
    made = done(aws("create-model", *of_project, "--output-config", output, "--tags", "Key=a,Value=b"))
    assert made["ModelMetadata"]["Status"] == "TRAINING"
    of_model = [*of_project, "--model-version", "1"]
    assert "(ConflictException)" in aws("start-model", *of_model, "--min-inference-units", "1").stderr
    assert "(ConflictException)" in aws("stop-model", *of_model).stderr
    detecting = aws("detect-anomalies", *of_model, "--content-type", "image/jpeg", "--body", str(image))
    assert "(ConflictException)" in detecting.stderr
    arn = made["ModelMetadata"]["ModelArn"]
    tags = done(aws("list-tags-for-resource", "--resource-arn", arn))
    assert tags == {"Tags": [{"Key": "a", "Value": "b"}]}
    assert done(aws("delete-model", *of_model)) == {"ModelArn": arn}
    assert done(aws("list-models", *of_project)) == {"Models": []}
