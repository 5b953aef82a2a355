"""What hosted models cost a process of the API on a Ray cluster.

``python -m bench.cluster`` measures the CPU of what a process does once a second: the fleet's look at the
database, and a look at what Serve says of its applications, with 1, 100 and 1,000 hosted models, whose units
are stubs.
"""

from __future__ import annotations

import argparse
import asyncio
import pickle
import platform
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow_provider_lookoutvision.server.cluster.remote_pool import RemotePool
from airflow_provider_lookoutvision.server.hosting.fleet import Fleet
from airflow_provider_lookoutvision.server.hosting.pool import Deployment, Load, PoolConfig
from airflow_provider_lookoutvision.server.settings import Settings
from airflow_provider_lookoutvision.server.storage.database import Database
from airflow_provider_lookoutvision.server.storage.opening import opened
from airflow_provider_lookoutvision.server.storage.schema import model_artifacts, models, projects
from bench.service import machine

_TURNS = 20


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=int, nargs="+", default=[1, 100, 1000])
    options = parser.parse_args()
    print(f"{datetime.now(UTC):%Y-%m-%d}, {machine()}, Python {platform.python_version()}")
    _hosted(options)


class _Stub:
    """A pool whose units do nothing."""

    fault = None
    start_fault = None
    ready = True
    load = Load(1, 0, 0)

    def __init__(self, _config: PoolConfig | None, _on_change: Callable[[], None] | None) -> None:
        pass

    def maintain(self) -> None:
        pass

    async def release(self) -> None:
        pass


def _hosted(options: argparse.Namespace) -> None:
    print("\n| hosted models | the fleet's look | Serve's status, read and shown to each pool |")
    print("| ---: | ---: | ---: |")
    for count in options.models:
        fleet, status = asyncio.run(_fleet(count)), _status(count)
        print(f"| {count} | {fleet * 1000:.1f} ms | {status * 1000:.1f} ms |")


async def _fleet(count: int) -> float:
    """Seconds of CPU of one look at the database."""
    with tempfile.TemporaryDirectory(prefix="lookoutvision-bench-") as folder:
        settings = Settings(data_dir=Path(folder))
        with opened(settings) as (database, _):
            _fill(database, count)
            fleet = Fleet(settings, database, _Stub)  # type: ignore[arg-type]  # it never detects
            await fleet._reconcile()
            begun = time.process_time()
            for _ in range(_TURNS):
                await fleet._reconcile()
            return (time.process_time() - begun) / _TURNS


def _fill(database: Database, count: int) -> None:
    with database.write() as connection:
        project = connection.execute(
            projects.insert().values(
                account_id="123456789012",
                region="us-east-1",
                name="p",
                created_at=0,
                last_model_version=count,
            )
        ).inserted_primary_key
        assert project is not None
        common = {
            "project_id": project[0],
            "status": "HOSTED",
            "status_message": "",
            "output_bucket": "b",
            "output_prefix": "",
            "created_at": 0,
            "hosting": 1,
            "min_units": 1,
        }
        for version in range(count):
            made = connection.execute(models.insert().values(version=version, **common)).inserted_primary_key
            assert made is not None
            connection.execute(model_artifacts.insert().values(model_id=made[0], content=b"-"))


def _application(name: str) -> dict[str, Any]:
    """What Serve's controller sends of an application of one unit (Ray 2.60)."""
    replica = {
        "replica_id": "a1b2c3d4",
        "state": "RUNNING",
        "pid": 1,
        "start_time_s": 1.0,
        "actor_name": "SERVE_REPLICA::unit",
        "actor_id": "0" * 32,
        "node_id": "0" * 56,
        "node_ip": "10.0.0.1",
        "node_instance_id": "",
        "worker_id": "0" * 56,
        "log_file_path": "/serve/replica_unit.log",
    }
    unit = {
        "name": "unit",
        "status": "HEALTHY",
        "status_trigger": "CONFIG_UPDATE_COMPLETED",
        "message": "",
        "deployment_config": {"name": "unit", "num_replicas": 1, "max_ongoing_requests": 2},
        "target_num_replicas": 1,
        "required_resources": {"CPU": 1},
        "replicas": [replica],
    }
    return {
        "name": name,
        "route_prefix": None,
        "docs_path": None,
        "status": "RUNNING",
        "message": "",
        "last_deployed_time_s": 1.0,
        "deployed_app_config": None,
        "source": "imperative",
        "external_scaler_enabled": False,
        "deployments": {"unit": unit},
    }


def _status(count: int) -> float:
    """Seconds of CPU to read what the controller sends of so many, and to show it to as many pools."""
    from ray.serve.schema import ServeInstanceDetails

    names = [f"lookoutvision-0123456789ab-{number}-1" for number in range(count)]
    nothing = ServeInstanceDetails.get_empty_schema_dict()
    sent = pickle.dumps({**nothing, "applications": {name: _application(name) for name in names}})
    pools = {name: _SeenPool() for name in names}
    begun = time.process_time()
    for _ in range(_TURNS):
        status = ServeInstanceDetails(**pickle.loads(sent))._get_status()
        for name, pool in pools.items():
            pool.see(status.applications[name])
    used = time.process_time() - begun
    assert all(pool.units == 1 for pool in pools.values())
    return used / _TURNS


class _SeenPool(RemotePool):
    """A pool of the cluster that watches nothing by itself."""

    def __init__(self) -> None:
        self.fault, self.units = None, 0
        self._handle = "there"
        self._config = PoolConfig("p/1", Deployment(1, 1), b"", Path(), 1, 1, 1, 1)
        self._on_change = lambda: None


if __name__ == "__main__":
    main()
