"""A thousand waits in one event loop, as a triggerer has them: how often each polls, and what they cost.

``python -m bench.triggers [--waits N ...] [--minutes M]``. For each count of waits a process of its own runs
as many triggers on one connection, each polling a dataset that is never imported every
``--delay`` seconds; the service's log has the time of each request. Printed are the longest time between two
requests of one wait, the rate of all, and the process's resident memory, also of one with no waits.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from airflow_provider_lookoutvision.server.settings import DEFAULT_ACCOUNT, Settings
from airflow_provider_lookoutvision.server.storage.opening import opened
from airflow_provider_lookoutvision.server.storage.schema import datasets, projects
from airflow_provider_lookoutvision.testing.service import Service, running_service
from bench.service import REGION, machine

_TRIGGERER = """
import asyncio, logging, pathlib, sys, time
from airflow_provider_lookoutvision.triggers.lookoutvision import LookoutVisionWaiterTrigger
from airflow_provider_lookoutvision.hooks.lookoutvision import LookoutVisionHook
import airflow_provider_lookoutvision.waiters.polling as polling
count, delay, seconds, ways = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
if ways == "threads":
    polling.has_aiobotocore = lambda: False
LookoutVisionHook(aws_conn_id="bench").conn.list_projects(MaxResults=1)
async def one(number):
    trigger = LookoutVisionWaiterTrigger(
        waiter_name="DatasetCreated", waiter_args={"ProjectName": f"p-{number}", "DatasetType": "train"},
        waiter_delay=delay, waiter_max_attempts=100_000, aws_conn_id="bench")
    async for event in trigger.run():
        print("ended", event, file=sys.stderr)
async def main():
    tasks = [asyncio.create_task(one(number)) for number in range(count)]
    await asyncio.sleep(seconds)
    status = pathlib.Path("/proc/self/status").read_text()
    print(int(status.split("VmRSS:")[1].split()[0]) // 1024, flush=True)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
asyncio.run(main())
"""


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--waits", type=int, nargs="+", default=[0, 10, 1000])
    parser.add_argument("--delay", type=float, default=30)
    parser.add_argument("--minutes", type=float, default=11)
    parser.add_argument("--ways", nargs="+", default=["aiobotocore", "threads"])
    options = parser.parse_args()
    print(f"{datetime.now(UTC):%Y-%m-%d}, {machine()}, Python {platform.python_version()}")
    print(f"each wait polls every {options.delay:g} s; {options.minutes:g} minutes for each row\n")
    print("| way | waits | longest time between two requests | median | requests/s | resident |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory(prefix="lookoutvision-bench-") as folder:
        data_dir = Path(folder)
        _prepare(data_dir, max(options.waits))
        with running_service(data_dir, ["--no-worker"]) as service:
            for way in options.ways:
                for waits in options.waits:
                    seconds = options.minutes * 60 if waits else 5
                    _measure(service, way, waits, options.delay, seconds)


def _measure(service: Service, way: str, waits: int, delay: float, seconds: float) -> None:
    began = time.time()
    command = [sys.executable, "-c", _TRIGGERER, str(waits), str(delay), str(seconds), way]
    done = subprocess.run(
        command, env=_environ(service), capture_output=True, text=True, check=True, timeout=seconds + 300
    )
    polled: dict[str, list[float]] = defaultdict(list)
    for line in service.log_file.read_text().splitlines():
        entry: dict[str, Any] = json.loads(line) if line.startswith("{") else {}
        if entry.get("operation") == "DescribeDataset":
            when = datetime.fromisoformat(entry["time"]).timestamp()
            if when > began:
                polled[entry["project"]].append(when)
    gaps = [after - before for times in polled.values() for before, after in pairwise(times)]
    total = sum(map(len, polled.values()))
    longest, middle = (f"{max(gaps):.1f} s", f"{statistics.median(gaps):.1f} s") if gaps else ("", "")
    memory = done.stdout.split()[-1]
    print(f"| {way} | {waits} | {longest} | {middle} | {total / seconds:.2f} | {memory} MB |", flush=True)
    if len(polled) < waits:
        print(f"only {len(polled)} of {waits} waits have polled: {done.stderr[-500:]}")


def _prepare(data_dir: Path, count: int) -> None:
    """Projects with a dataset whose import nobody does."""
    with opened(Settings(data_dir=data_dir)) as (database, _), database.write() as connection:
        for number in range(count):
            project = connection.execute(
                projects.insert()
                .values(account_id=DEFAULT_ACCOUNT, region=REGION, name=f"p-{number}", created_at=0)
                .returning(projects.c.id)
            ).scalar_one()
            connection.execute(
                datasets.insert().values(
                    project_id=project,
                    type="train",
                    status="CREATE_IN_PROGRESS",
                    status_message="",
                    created_at=0,
                    updated_at=0,
                    total=0,
                    normal=0,
                    anomaly=0,
                )
            )


def _environ(service: Service) -> dict[str, str]:
    extra = {
        "region_name": REGION,
        "service_config": {"lookoutvision": {"endpoint_url": service.endpoint_url}},
    }
    connection = {
        "conn_type": "aws",
        "login": service.access_key_id,
        "password": service.secret_access_key,
        "extra": extra,
    }
    return {**os.environ, "AIRFLOW_CONN_BENCH": json.dumps(connection), "PYTHONWARNINGS": "ignore"}


if __name__ == "__main__":
    main()
