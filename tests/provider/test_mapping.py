"""Every operator and sensor, mapped: one run of ``dags/mapping.py`` by ``airflow dags test``.

The run has a service of its own, whose buckets are in S3, and goes through a proxy: it keeps each request
with its client token, and loses the first answer that what may be quick waits for, so that this too waits, in
the task or deferred.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow_and_service import client_of
from moto_s3 import running_s3, running_service_on
from trained_models import plate

from airflow_provider_lookoutvision.idempotency import client_token
from airflow_provider_lookoutvision.operators import lookoutvision as operators
from airflow_provider_lookoutvision.sensors import lookoutvision as sensors
from airflow_provider_lookoutvision.testing.lossy_proxy import Exchange, LossyProxy
from airflow_provider_lookoutvision.testing.service import Service

pytestmark = pytest.mark.timeout(3600)

HERE = Path(__file__).parent
PROJECTS = ("left", "right")


@dataclass(frozen=True)
class Mapped:
    """What a run has left."""

    run_id: str
    instances: list[tuple[str, str, int, str, int]]  # operator, task, map index, state, try
    kept: dict[tuple[str, int], dict[str, Any]]  # from Airflow 3.3 on, by task and map index
    results: dict[str, list[Any]]
    log: str
    exchanges: list[Exchange]
    service: Service


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    """A client of an S3 that has the images of two projects."""
    with running_s3("plates", "manifests", "reports") as client:
        for project in PROJECTS:
            for number in range(30):
                folder = ("train/normal", "test/normal", "test/anomaly")[number // 10]
                image = plate(number, spotted=number >= 20)
                client.put_object(Bucket="plates", Key=f"{project}/{folder}/{number % 10}.png", Body=image)
        yield client


def losing_what_is_waited_for() -> Any:
    seen = set()

    def drop(exchange: Exchange) -> bool:
        # The Amazon provider's hook puts the calling class into the user agent.
        caller = re.search(
            r"Caller/(\w+Sensor|\w+((Stop|Delete)Model|(Create|Update)Dataset(Entries)?|PackagingJob)Operator)",
            exchange.headers["user-agent"],
        )
        if exchange.method != "GET" or not caller:
            return False
        known = (caller[1], exchange.path) in seen
        seen.add((caller[1], exchange.path))
        return not known

    return drop


@pytest.fixture(scope="module")
def mapped(s3: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapped]:
    home = tmp_path_factory.mktemp("airflow")
    (home / "dags").mkdir()
    (home / "dags" / "mapping.py").symlink_to(HERE / "dags" / "mapping.py")
    with (
        running_service_on(s3) as service,
        LossyProxy(service.endpoint_url, losing_what_is_waited_for()) as proxy,
    ):
        services = {"lookoutvision": proxy.endpoint_url, "s3": s3.meta.endpoint_url}
        connection = {
            "conn_type": "aws",
            "login": service.access_key_id,
            "password": service.secret_access_key,
            "extra": {
                "region_name": "eu-central-1",
                "config_kwargs": {"retries": {"total_max_attempts": 1}},
                "service_config": {name: {"endpoint_url": url} for name, url in services.items()},
            },
        }
        log = _dags_test(home, "mapping", connection, report=str(home / "report.json"))
        with sqlite3.connect(home / "airflow.db") as database:
            names = "operator, task_id, map_index, state, try_number"
            instances = list(database.execute(f"SELECT {names} FROM task_instance"))
            ((run_id,),) = database.execute("SELECT run_id FROM dag_run")
            kept = _kept(database)
        results = json.loads((home / "report.json").read_text())
        yield Mapped(run_id, instances, kept, results, log, list(proxy.exchanges), service)


def _dags_test(home: Path, dag_id: str, connection: dict[str, Any], **conf: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW_", "AWS_"))}
    env = kept | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW_CONN_SERVICE": json.dumps(connection),
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for command in (["db", "migrate"], ["dags", "test", dag_id, "--conf", json.dumps(conf)]):
        done = subprocess.run(
            [sys.executable, "-m", "airflow", *command],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-20_000:]
    return done.stdout


def test_every_operator_and_sensor_is_mapped_and_succeeds(mapped: Mapped) -> None:
    known = {
        *operators.__all__,
        *(name for name in vars(sensors) if re.fullmatch(r"L\w+(?<!Base)Sensor", name)),
    }
    found = defaultdict(list)
    for operator, _, map_index, state, try_number in mapped.instances:
        if map_index >= 0:
            found[operator].append((map_index, state, try_number))
    assert found.keys() == known
    for operator, instances in found.items():
        assert len(instances) >= 2
        assert sorted(instances) == [(index, "success", 1) for index in range(len(instances))], operator


def test_what_waits_does_so_in_the_task_and_deferred(mapped: Mapped) -> None:
    deferred = Counter(re.findall(r"(\w+): polling with (?:aiobotocore|threads)", mapped.log))
    assert deferred == {
        "DatasetCreated": 3,  # two datasets of the project "right", and the sensor
        "DatasetUpdated": 1,
        "ModelTrained": 1,
        "ModelPackagingJobSucceeded": 2,
        "ModelHosted": 2,  # the promotion's start, and the sensor
        "ModelStopped": 1,
        "ModelDeleted": 1,
    }
    assert sum(exchange.dropped for exchange in mapped.exchanges) == 9 * len(PROJECTS)


def test_each_instance_works_on_what_it_was_given(mapped: Mapped) -> None:
    results = mapped.results
    places = [each["train_manifest_s3_uri"] for each in results["build_manifest"]]
    assert places == [
        f"s3://manifests/{project}/{kind}/train.manifest"
        for project in PROJECTS
        for kind in ("train", "test")
    ]
    assert results["create_project"] == list(PROJECTS)
    datasets = [
        (each["ProjectName"], each["DatasetType"], each["ImageStats"]["Total"])
        for each in results["create_dataset"]
    ]
    assert datasets == [
        ("left", "train", 10),
        ("left", "test", 20),
        ("right", "train", 10),
        ("right", "test", 20),
    ]
    for task in ("wait_for_dataset", "update_entries"):
        assert [each["ProjectName"] for each in results[task]] == list(PROJECTS)
    assert all(each["F1Score"] > 0.5 for each in results["create_model"])
    arns = [each["ModelArn"].partition(":model/")[2] for each in results["wait_for_model"]]
    assert arns == ["left/1", "right/1"]
    assert (results["set_threshold"], results["promote_model"]) == ([0.5, 0.5], [True, True])
    assert {name: results[name] for name in ("start_model", "detect", "stop_model")} == {
        "start_model": ["HOSTED"] * 2,
        "detect": [10] * 2,
        "stop_model": ["TRAINED"] * 2,
    }
    assert client_of(mapped.service).list_projects()["Projects"] == []


def test_each_instance_has_a_token_of_its_own_that_another_try_would_have_too(mapped: Mapped) -> None:
    sent = [exchange.client_token for exchange in mapped.exchanges if exchange.client_token]
    derived = {
        _token(mapped, task, map_index, *purpose)
        for task, count, *purpose in (
            ("create_project", 2),
            ("create_dataset", 4),
            ("update_entries", 2, "UpdateDatasetEntries", "0"),
            ("create_model", 2),
            ("package", 2),
            ("promote_model", 2),
            ("start_model", 2),
            ("stop_model", 2),
            ("delete_dataset", 2),
            ("delete_model", 2),
            ("delete_project", 2),
            ("delete_project", 2, "DeleteDataset", "train"),
        )
        for map_index in range(count)
    }
    derived |= {
        _token(mapped, "import_datasets", map_index, *purpose)
        for map_index, project in enumerate(PROJECTS)
        for purpose in (("CreateProject", project), ("CreateDataset", f"{project}/train"))
    }
    assert Counter(sent) == dict.fromkeys(derived, 1)


def _token(mapped: Mapped, task_id: str, map_index: int, *purpose: str) -> str:
    ti = SimpleNamespace(
        dag_id="mapping",
        run_id=mapped.run_id,
        task_id=task_id,
        map_index=map_index,
        try_number=2,
        max_tries=2,
        task=SimpleNamespace(retries=2),
    )
    context: Any = {"ti": ti}
    if kept := mapped.kept.get((task_id, map_index)):
        context["task_state_store"] = kept
    return client_token(context, *purpose)


def _kept(database: sqlite3.Connection) -> dict[tuple[str, int], dict[str, Any]]:
    tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
    if "task_state_store" not in tables:
        return {}
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for task_id, map_index, key, value in database.execute(
        "SELECT task_id, map_index, key, value FROM task_state_store"
    ):
        found.setdefault((task_id, map_index), {})[key] = json.loads(value)
    return found
