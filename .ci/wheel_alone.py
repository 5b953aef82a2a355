"""Checks the wheel in an environment of its own, without extras: what a DAG author installs."""

import re
import runpy
import subprocess
import sysconfig
from importlib import import_module
from importlib.metadata import entry_points, requires
from importlib.util import find_spec
from pathlib import Path

import boto3

from airflow_provider_lookoutvision.hooks.lookoutvision import LookoutVisionHook
from airflow_provider_lookoutvision.model import MODEL_PATH, teach
from airflow_provider_lookoutvision.operators.lookoutvision import (
    LookoutVisionCreateProjectOperator,
    LookoutVisionDeleteProjectOperator,
)

assert LookoutVisionHook(aws_conn_id=None).client_type == "lookoutvision"
assert LookoutVisionCreateProjectOperator(task_id="create", project_name="p")
assert LookoutVisionDeleteProjectOperator(task_id="delete", project_name="p")
print("the hook and the operators import")

base = {
    re.split(r"[^\w-]", line)[0]
    for line in requires("airflow-provider-lookoutvision")
    if "extra ==" not in line
}
assert all(name.startswith("apache-airflow") for name in base), base
# Airflow itself brings Starlette and uvicorn; these it doesn't.
for module in ("PIL", "aiobotocore", "onnx", "onnxruntime", "psycopg", "regex", "sklearn"):
    assert find_spec(module) is None, f"{module} arrived with the base"
print("nothing of the service or the engine arrived with them")

client = teach(boto3.Session()).client(
    "lookoutvision",
    region_name="us-east-1",
    endpoint_url="http://127.0.0.1:9",
    aws_access_key_id="nobody",
    aws_secret_access_key="nothing",
)
operations = client.meta.service_model.operation_names
assert len(operations) == 22, operations
assert client.waiter_names
assert client.can_paginate("list_projects")
print(f"the API model is in it: {len(operations)} operations, {len(client.waiter_names)} waiters")

(provider,) = (
    point for point in entry_points(group="apache_airflow_provider") if "lookoutvision" in point.value
)
described = provider.load()()
assert described["package-name"] == "airflow-provider-lookoutvision"
for kind in ("hooks", "operators", "triggers"):
    for module in (module for entry in described[kind] for module in entry["python-modules"]):
        import_module(module)

examples = sorted(Path(find_spec("airflow_provider_lookoutvision").origin).parent.glob("example_dags/*.py"))
assert len(examples) > 10, examples
for example in examples:
    runpy.run_path(str(example))
print(f"the examples are in it: {len(examples)} DAGs")

command = Path(sysconfig.get_path("scripts")) / "lookoutvision"
told = subprocess.run([command, "model-path"], capture_output=True, text=True, check=True).stdout.strip()
assert told == MODEL_PATH, told
refusal = subprocess.run([command, "serve"], capture_output=True, text=True, check=False)
assert refusal.returncode == 2, refusal
assert "pip install 'airflow-provider-lookoutvision[server]'" in refusal.stderr, refusal.stderr
print(f"`lookoutvision serve` says: {refusal.stderr.strip()}")
