"""What README, the connection's manual and the quickstart show works as it stands."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from test_docs import README, ROOT, snippets

from airflow_provider_lookoutvision.testing.service import Service, running_service


def test_the_dag_of_the_readme_is_one(tmp_path: Path) -> None:
    (source,) = (code for code in snippets(README, "python") if "dag" in code)
    file = tmp_path / "readme_dag.py"
    file.write_text(source)
    look = (
        "import json; from airflow.dag_processing.dagbag import DagBag;"
        "(dag,) = DagBag('readme_dag.py').dags.values();"
        "print(json.dumps({task.task_id: sorted(task.downstream_task_ids) for task in dag.tasks}))"
    )
    done = _run([sys.executable, "-c", look], tmp_path, {"AIRFLOW_HOME": str(tmp_path)})
    assert json.loads(done.splitlines()[-1]) == {"create_project": ["report"], "report": []}
    assert len([line for line in source.splitlines() if line.strip()]) <= 15


@pytest.fixture(scope="module")
def documented_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("service")) as service:
        yield service


def test_old_boto3_code_of_the_readme(documented_service: Service, tmp_path: Path) -> None:
    (exports,) = (code for code in snippets(README, "bash") if "AWS_DATA_PATH" in code)
    (old_code,) = (code for code in snippets(README, "python") if "boto3" in code)
    (tmp_path / "old_code.py").write_text(old_code)
    script = exports.replace("http://127.0.0.1:8320", documented_service.endpoint_url)
    # The AWS CLI insists on a botocore of its own, and so on an environment of its own.
    script = "\n".join(line for line in script.splitlines() if not line.startswith("aws "))
    environ = {
        "AWS_ACCESS_KEY_ID": documented_service.access_key_id,
        "AWS_SECRET_ACCESS_KEY": documented_service.secret_access_key,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    create = "import boto3; boto3.client('lookoutvision').create_project(ProjectName='circuit-boards')"
    commands = [script, f'{sys.executable} -c "{create}"', f"{sys.executable} old_code.py"]
    told = _run(["bash", "-euc", "\n".join(commands)], tmp_path, environ)
    assert "arn:aws:lookoutvision:us-east-1:123456789012:project/circuit-boards" in told


def test_the_connection_of_the_manual_reaches_the_service(
    documented_service: Service, tmp_path: Path
) -> None:
    (text,) = snippets((ROOT / "docs" / "connection.md").read_text(), "json")
    connection = json.loads(text)
    connection["login"] = documented_service.access_key_id
    connection["password"] = documented_service.secret_access_key
    connection["extra"]["endpoint_url"] = documented_service.endpoint_url
    look = (
        "from airflow_provider_lookoutvision.hooks.lookoutvision import LookoutVisionHook;"
        "print(LookoutVisionHook(aws_conn_id='aws_default').test_connection())"
    )
    environ = {"AIRFLOW_HOME": str(tmp_path), "AIRFLOW_CONN_AWS_DEFAULT": json.dumps(connection)}
    assert "(True, " in _run([sys.executable, "-c", look], tmp_path, environ)


@pytest.mark.timeout(3600)
def test_the_quickstart_ends_green(documented_service: Service, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "quickstart.md").read_text()
    (source,) = snippets(text, "python")
    (add,) = (code for code in snippets(text, "") if "connections add" in code)
    (delete,) = (code for code in snippets(text, "") if "connections delete" in code)
    (run,) = (code for code in snippets(text, "") if "dags test" in code)
    *connect, connection = shlex.split(add)
    key = {"login": documented_service.access_key_id, "password": documented_service.secret_access_key}
    connection = json.dumps(json.loads(connection) | key)
    connection = connection.replace("http://127.0.0.1:8320", documented_service.endpoint_url)
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "first.py").write_text(source)
    environ = {"AIRFLOW_HOME": str(tmp_path), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}

    commands = [
        ["airflow", "db", "migrate"],
        # An empty aws_default among them, as Airflow 2.11's `standalone` makes it.
        ["airflow", "connections", "create-default-connections"],
        shlex.split(delete),
        [*connect, connection],
        shlex.split(run),
    ]
    for command in commands:
        told = _run([sys.executable, "-m", *command], tmp_path, environ)

    assert "arn:aws:lookoutvision:us-east-1:123456789012:project/first-project" in told
    (shown,) = re.findall(r"The last line of the log has `([^`]+)`", text)
    assert shown in told.splitlines()[-1]


def _run(command: list[str], folder: Path, environ: Mapping[str, str]) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
