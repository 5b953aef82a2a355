"""Programs with each client, unchanged, which use S3 and the service with one key, both of which check it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from drawn_parts import drawn
from environments import node_modules, python_with

from airflow_provider_lookoutvision.model import MODEL_PATH

pytest_plugins = ["model_fixtures"]

HERE = Path(__file__).parent
OURS = {"AWS_DATA_PATH": MODEL_PATH}
BOTO3 = {
    # No variable for the endpoint before 1.28: the program passes it.
    "1.26": (("boto3==1.26.165",), {}, ["--endpoint"]),
    "1.40.59": (("boto3==1.40.59", "botocore==1.40.59"), {}, []),
    "newest": (("boto3",), OURS, []),
}
VERDICTS = {"NORMAL": False, "ANOMALY": True}


def run(command: Sequence[str | Path], environ: Mapping[str, str], **more: Any) -> Any:
    """What a program printed, which it ends with 0."""
    done = subprocess.run(
        [str(each) for each in command],
        env=dict(environ),
        capture_output=True,
        text=True,
        check=False,
        **more,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done


@pytest.fixture(params=BOTO3)
def boto3_program(request: pytest.FixtureRequest) -> tuple[list[str | Path], dict[str, str]]:
    """The program with a version of boto3, and the variables that it needs."""
    packages, variables, flags = BOTO3[request.param]
    if request.param == "1.26" and sys.version_info >= (3, 12):
        pytest.skip("NOT RUN: boto3 1.26 needs a Python before 3.12")
    python = python_with(f"boto3-{request.param}-alone", *packages, newest=request.param == "newest")
    return [python, HERE / "inspect_parts.py", *flags], variables


def test_boto3(boto3_program: Any, plant: dict[str, str], request: pytest.FixtureRequest) -> None:
    command, variables = boto3_program
    found = json.loads(run(command, plant | variables).stdout)
    assert found["verdicts"] == VERDICTS
    assert found["evaluated"] == 20
    status, stats, (entry,) = found["dataset"]
    assert (status, stats) == ("CREATE_COMPLETE", {"Total": 1, "Labeled": 1, "Normal": 1, "Anomaly": 0})
    assert entry["anomaly-label"] == 0
    # Both check the key: with another secret neither is to be had.
    refused = run(command, plant | variables | {"AWS_SECRET_ACCESS_KEY": "another"})
    assert json.loads(refused.stdout) == {"refused": "InvalidSignatureException"}


def test_aiobotocore(plant: dict[str, str]) -> None:
    python = python_with("aiobotocore", "aiobotocore", newest=True)
    found = json.loads(run([python, HERE / "aio.py"], plant | OURS).stdout)
    assert found["verdicts"] == VERDICTS
    assert found["models"] == ["1"]


@pytest.mark.parametrize("version", ["1.42.59", "newest"])
def test_aws_cli(version: str, plant: dict[str, str], old_boto3: Path, tmp_path: Path) -> None:
    python = old_boto3 if version == "1.42.59" else python_with("awscli-newest", "awscli", newest=True)
    environ = plant | ({} if version == "1.42.59" else OURS) | {"AWS_PAGER": ""}

    def aws(*arguments: str) -> Any:
        output = run([python, "-m", "awscli", *arguments, "--output", "json"], environ, cwd=tmp_path).stdout
        return json.loads(output) if output.startswith("{") else output

    model = ["--project-name", plant["PROJECT"], "--model-version", "1"]
    assert aws("lookoutvision", "describe-model", *model)["ModelDescription"]["Status"] == "HOSTED"
    for name, anomalous in VERDICTS.items():
        aws("s3", "cp", f"s3://{plant['BUCKET']}/{plant[name]}", f"{name}.jpg")
        body = ["--content-type", "image/jpeg", "--body", f"{name}.jpg"]
        answer = aws("lookoutvision", "detect-anomalies", *model, *body)
        assert answer["DetectAnomalyResult"]["IsAnomalous"] is anomalous


def test_the_sdk_of_the_notebooks(plant: dict[str, str], inspector: Any) -> None:
    for part, count in (("training", 0), ("test", 100)):
        for label in ("normal", "anomaly"):
            folder = inspector.folder / "sdk" / part / label
            folder.mkdir(parents=True)
            for number in range(10 if part == "test" or label == "normal" else 3):
                image = drawn(count + number, scratched=label == "anomaly")[0]
                (folder / f"{number}.jpg").write_bytes(image)
    python = python_with("lookoutvision-sdk", "lookoutvision==0.1.10", "boto3==1.40.59", "botocore==1.40.59")
    done = run([python, HERE / "sdk_lifecycle.py"], plant | {"MPLBACKEND": "Agg"})
    found = json.loads(done.stderr.splitlines()[-1])
    assert found["arn"].endswith(":project/of-the-sdk")
    assert found["datasets"] == {"training": "CREATE_COMPLETE", "test": "CREATE_COMPLETE"}
    assert found["trained"] == "Success!"
    assert found["metrics"] == ["F1Score", "Precision", "Recall"]
    assert found["single"]["IsAnomalous"] is False
    written = sorted((inspector.folder / "sdk-verdicts").iterdir())
    assert [json.loads(file.read_bytes())["IsAnomalous"] for file in written] == [True] * 10
    assert found["deleted"] == {"Success": True}


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A folder with the programs, which finds the SDKs."""
    modules = node_modules(
        "aws-sdk@2.1693.0", "@aws-sdk/client-lookoutvision@3.918.0", "@aws-sdk/client-s3@3.918.0"
    )
    for name in ("v3.mjs", "v2.js", "preload.js"):
        (tmp_path / name).write_bytes((HERE / name).read_bytes())
    (tmp_path / "node_modules").symlink_to(modules / "node_modules")
    return tmp_path


def test_javascript_v3(plant: dict[str, str], node: Path) -> None:
    found = json.loads(run(["node", "v3.mjs"], plant, cwd=node).stdout)
    assert found["verdicts"] == {**VERDICTS, "STREAM": True}
    assert found["models"] == ["1"]
    assert found["refused"] == ["ResourceNotFoundException", 404, "PROJECT"]


def test_javascript_v2(plant: dict[str, str], node: Path) -> None:
    environ = plant | {"AWS_SDK_JS_SUPPRESS_MAINTENANCE_MODE_MESSAGE": "1"}
    found = json.loads(run(["node", "-r", "./preload.js", "v2.js"], environ, cwd=node).stdout)
    assert found["verdicts"] == VERDICTS
    assert found["models"] == ["1"]
    assert found["refused"] == ["ResourceNotFoundException", 404]


def test_type_stubs_over_the_hook(tmp_path: Path) -> None:
    python = python_with("type-stubs", "mypy-boto3-lookoutvision==1.40.59", "botocore-stubs")
    stubs = next((python.parents[1] / "lib").iterdir()) / "site-packages"
    for name in ("mypy_boto3_lookoutvision", "botocore-stubs"):
        (tmp_path / name.removesuffix("-stubs")).symlink_to(stubs / name)
    # As `make lint` runs it, whose cache has Airflow's types already.
    command = [sys.executable, "-m", "mypy", str(HERE / "typed.py")]
    environ = {**os.environ, "MYPYPATH": f"{tmp_path}:{HERE.parents[1]}"}
    done = subprocess.run(
        command, env=environ, cwd=HERE.parents[1], capture_output=True, text=True, check=False
    )
    found = [line.partition("typed.py:")[2] for line in done.stdout.splitlines() if "typed.py:" in line]
    known, pages, wrong = (
        line.partition(": ")[2] for line in found if " error: " in line or " Revealed type " in line
    )
    assert known.startswith("note: Revealed type is")
    assert "float" in known
    assert "ListModelsResponse" in pages
    assert wrong.startswith("error: ")
    assert "MinInferenceUnits" in wrong
