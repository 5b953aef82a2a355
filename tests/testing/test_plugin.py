"""The pytest plugin, as a user's test suite has it: in a pytest of its own, with Airflow."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import boto3
import pytest

from airflow_provider_lookoutvision.model import register_service_model
from airflow_provider_lookoutvision.testing.service import (
    Service,
    ServiceFailed,
    running_service,
    service_command,
)

MANUAL = Path(__file__).parents[2] / "docs" / "testing.md"
PLUGIN = 'pytest_plugins = ["airflow_provider_lookoutvision.testing.plugin"]\n'
MAKES_SOMETHING = """
from airflow_provider_lookoutvision.hooks.lookoutvision import LookoutVisionHook

MANIFEST = '{"source-ref": "1.png"}'


def test_makes_something(lookoutvision):
    hook = LookoutVisionHook(aws_conn_id=lookoutvision.conn_id)
    assert hook.conn.list_projects()["Projects"] == []
    hook.conn.create_project(ProjectName="p")
    assert lookoutvision.client.describe_project(ProjectName="p")
"""
IMPORTS_A_DATASET = """
    lookoutvision.bucket("images").joinpath("x.manifest").write_text(MANIFEST)
    source = {"GroundTruthManifest": {"S3Object": {"Bucket": "images", "Key": "x.manifest"}}}
    lookoutvision.client.create_dataset(ProjectName="p", DatasetType="train", DatasetSource=source)
"""
WAITS_FOR_IT = """
    lookoutvision.client.get_waiter("dataset_created").wait(ProjectName="p", DatasetType="train")


def test_finds_nothing_left(lookoutvision):
    assert lookoutvision.client.list_projects()["Projects"] == []
"""
ADDS_TO_THE_CONNECTION = """

def test_connection(lookoutvision):
    import json
    more = {"s3": {"endpoint_url": "http://s3"}, "lookoutvision": {"verify": False}}
    extra = json.loads(lookoutvision.connection(service_config=more, region_name="eu-west-1"))["extra"]
    assert extra == {
        "region_name": "eu-west-1",
        "endpoint_url": lookoutvision.endpoint_url,
        "service_config": {"lookoutvision": {"verify": False}, "s3": {"endpoint_url": "http://s3"}},
    }
"""

CLEANS_UP = MAKES_SOMETHING + IMPORTS_A_DATASET + WAITS_FOR_IT


def run(folder: Path, tests: str, *, passes: bool = True, conftest: str = "", **environ: str) -> str:
    (folder / "conftest.py").write_text(PLUGIN + conftest)
    (folder / "test_user.py").write_text(tests)
    command = ["-q", "-p", "no:randomly", "-p", "no:cacheprovider", str(folder)]
    variables = {**os.environ, "AIRFLOW_HOME": str(folder / "airflow"), **environ}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *command],
        env=variables,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert (done.returncode == 0) is passes, done.stdout + done.stderr
    return done.stdout


def settings_of(service: Service) -> dict[str, str]:
    """The environment variables of tests that use a running service."""
    return {
        "LOOKOUTVISION_TEST_SERVICE": service.endpoint_url,
        "AWS_ACCESS_KEY_ID": service.access_key_id,
        "AWS_SECRET_ACCESS_KEY": service.secret_access_key,
    }


def command_of(folder: Path, script: str) -> str:
    """An executable ``lookoutvision`` that runs a script."""
    file = folder / "lookoutvision"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return str(file)


def test_starts_a_service_and_cleans_up(tmp_path: Path) -> None:
    assert "3 passed" in run(tmp_path, CLEANS_UP + ADDS_TO_THE_CONNECTION)


def test_takes_the_command_of_another_environment(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    command = command_of(
        tmp_path, f'echo "$1" >> {shlex.quote(str(calls))}; exec {shlex.join(service_command())} "$@"'
    )
    assert "2 passed" in run(tmp_path, CLEANS_UP, LOOKOUTVISION_TEST_SERVICE=command)
    assert calls.read_text().split() == ["serve", "keys", "keys"]


def test_waits_no_longer_than_it_says_for_what_never_ends(tmp_path: Path) -> None:
    without_worker = command_of(
        tmp_path, f'export LOOKOUTVISION_WORKER=false; exec {shlex.join(service_command())} "$@"'
    )
    output = run(
        tmp_path,
        MAKES_SOMETHING + IMPORTS_A_DATASET,
        passes=False,
        conftest="from airflow_provider_lookoutvision.testing import cleanup; cleanup.TIMEOUT_SECONDS = 1",
        LOOKOUTVISION_TEST_SERVICE=without_worker,
    )
    assert "1 passed" in output
    assert "1 error" in output
    assert "ProjectName p, DatasetType train is still CREATE_IN_PROGRESS after 1 s" in output


def projects(service: Service) -> set[str]:
    session = boto3.Session(service.access_key_id, service.secret_access_key, region_name="us-east-1")
    client: Any = register_service_model(session).client("lookoutvision", endpoint_url=service.endpoint_url)
    return {project["ProjectName"] for project in client.list_projects()["Projects"]}


def test_deletes_nothing_by_itself_on_a_running_service(tmp_path: Path) -> None:
    somebody_else = """
    lookoutvision.client.create_project(ProjectName="somebody-elses")
    lookoutvision.client.create_project(ProjectName="mine")
    lookoutvision.delete_project("mine")
    lookoutvision.delete_project("mine")


def test_has_no_folders(lookoutvision):
    lookoutvision.bucket("images")
"""
    with running_service(flags=["--no-worker"]) as service:
        output = run(tmp_path, MAKES_SOMETHING + somebody_else, passes=False, **settings_of(service))
        assert projects(service) == {"p", "somebody-elses"}
    assert "has new projects since this test began" in output
    assert "p, somebody-elses" in output
    assert "1 failed, 1 passed" in output
    assert "the buckets are those of the service that LOOKOUTVISION_TEST_SERVICE names" in output


def test_says_when_there_is_no_key(tmp_path: Path) -> None:
    output = run(tmp_path, MAKES_SOMETHING, passes=False, LOOKOUTVISION_TEST_SERVICE="http://127.0.0.1:9")
    assert "boto3 finds no access key" in output


@pytest.mark.parametrize("command", ["/nowhere/lookoutvision", "false"])
def test_says_where_another_service_may_be_named(command: str) -> None:
    with (
        pytest.raises(ServiceFailed, match=f"{command}.*LOOKOUTVISION_TEST_SERVICE may name"),
        running_service(command=[command]),
    ):
        pass


def test_the_service_is_its_own_s3(tmp_path: Path) -> None:
    tests = """
from airflow.providers.amazon.aws.hooks.s3 import S3Hook


def test_s3(lookoutvision):
    lookoutvision.s3.create_bucket(Bucket="images")
    S3Hook(lookoutvision.conn_id).load_string("hello", "a/k", "images")
    assert lookoutvision.bucket("images").joinpath("a", "k").read_text() == "hello"


def test_buckets_are_gone(lookoutvision):
    assert lookoutvision.s3.list_buckets()["Buckets"] == []
"""
    no_moto = "import sys; sys.modules['moto'] = None"
    assert "2 passed" in run(tmp_path, tests, conftest=no_moto)


# -- the manual --------------------------------------------------------------------------------------------


@pytest.mark.timeout(400)
def test_the_dags_and_tests_of_the_manual(tmp_path: Path) -> None:
    text = MANUAL.read_text()
    files = re.findall(r"^```python\n# (\S+\.py)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    (commands,) = re.findall(r"^```\n(export AIRFLOW_HOME.*?)^```$", text, re.DOTALL | re.MULTILINE)
    (tmp_path / "dags").mkdir()
    for name, code in files:
        (tmp_path / name).write_text(code)
    commands = commands.replace("/tmp/airflow-for-tests", shlex.quote(str(tmp_path / "airflow")))
    done = subprocess.run(
        ["bash", "-euc", commands],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=390,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
