"""The pytest plugin, as a user's test suite has it: in a pytest of its own, with Airflow."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_provider_lookoutvision.testing.service import running_service, service_command

PLUGIN = 'pytest_plugins = ["airflow_provider_lookoutvision.testing.plugin"]\n'
TESTS = """
from airflow_provider_lookoutvision.hooks.lookoutvision import LookoutVisionHook

MANIFEST = '{"source-ref": "1.png"}'


def test_makes_something(lookoutvision):
    hook = LookoutVisionHook(aws_conn_id=lookoutvision.conn_id)
    assert hook.conn.list_projects()["Projects"] == []
    hook.conn.create_project(ProjectName="p")
    assert lookoutvision.client.describe_project(ProjectName="p")
    BUCKET


def test_finds_nothing_left(lookoutvision):
    assert lookoutvision.client.list_projects()["Projects"] == []
"""
BUCKET = """lookoutvision.bucket("images").joinpath("x.manifest").write_text(MANIFEST)
    source = {"GroundTruthManifest": {"S3Object": {"Bucket": "images", "Key": "x.manifest"}}}
    lookoutvision.client.create_dataset(ProjectName="p", DatasetType="train", DatasetSource=source)
    lookoutvision.client.get_waiter("dataset_created").wait(ProjectName="p", DatasetType="train")"""


def run(folder: Path, tests: str, **environ: str) -> str:
    (folder / "conftest.py").write_text(PLUGIN)
    (folder / "test_user.py").write_text(tests)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:randomly",
        "-p",
        "no:cacheprovider",
        str(folder),
    ]
    variables = {**os.environ, "AIRFLOW_HOME": str(folder / "airflow"), **environ}
    done = subprocess.run(
        command, env=variables, cwd=folder, capture_output=True, text=True, timeout=170, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_starts_a_service_and_cleans_up(tmp_path: Path) -> None:
    assert "2 passed" in run(tmp_path, TESTS.replace("BUCKET", BUCKET))


def test_takes_the_command_of_another_environment(tmp_path: Path) -> None:
    told = tmp_path / "told"
    script = tmp_path / "lookoutvision"
    script.write_text(
        f'#!/bin/sh\necho "$1" >> {shlex.quote(str(told))}\nexec {shlex.join(service_command())} "$@"\n'
    )
    script.chmod(0o755)
    assert "2 passed" in run(
        tmp_path, TESTS.replace("BUCKET", BUCKET), LOOKOUTVISION_TEST_SERVICE=str(script)
    )
    assert told.read_text().split() == ["serve", "keys", "keys"]


def test_takes_the_url_of_a_running_service(tmp_path: Path) -> None:
    tests = TESTS.replace(
        "BUCKET",
        "import pytest\n    with pytest.raises(RuntimeError):\n        lookoutvision.bucket('images')",
    )
    with running_service(flags=["--no-worker"]) as service:
        output = run(
            tmp_path,
            tests,
            LOOKOUTVISION_TEST_SERVICE=service.endpoint_url,
            AWS_ACCESS_KEY_ID=service.access_key_id,
            AWS_SECRET_ACCESS_KEY=service.secret_access_key,
        )
        assert "2 passed" in output
        requests = [
            json.loads(line) for line in service.log_file.read_text().splitlines() if "operation" in line
        ]
        assert "DeleteProject" in {request["operation"] for request in requests}


def test_says_when_there_is_no_key(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="boto3 finds no access key"):
        run(tmp_path, TESTS.replace("BUCKET", ""), LOOKOUTVISION_TEST_SERVICE="http://127.0.0.1:9")
