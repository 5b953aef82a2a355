"""What a request to the service costs, beside a bare Starlette route and a moto server, in one run.

``python -m bench.service [--rounds N] [--requests N] [--connections N ...]``. The servers take turns, round
by round. Each number is the median of its rounds, and each ratio is taken within a round before its median
is, since a ratio holds where the machine has other things to do.
"""

from __future__ import annotations

import argparse
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import boto3

from airflow_provider_lookoutvision.model import teach
from airflow_provider_lookoutvision.server.settings import DEFAULT_ACCOUNT, Settings
from airflow_provider_lookoutvision.server.storage.opening import opened
from airflow_provider_lookoutvision.server.storage.schema import projects
from airflow_provider_lookoutvision.testing.service import Service, running_service
from bench.load import Cost, measure
from bench.wire import as_bytes

REGION = "us-east-1"
START_SECONDS = 60
# What the service's own answers are long.
CREATED_BYTES, LISTED_BYTES = 170, 130


@dataclass(frozen=True)
class Case:
    """One kind of request to one server process. ``requests`` makes so many of them, each for one sending."""

    name: str
    url: str
    pid: int
    requests: Callable[[int], Sequence[bytes]]


def main() -> None:
    """Measure, and print a table for each operation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--requests", type=int, default=500, help="of each kind, in each round")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 8], help="at a time")
    options = parser.parse_args()
    print(f"{datetime.now(UTC):%Y-%m-%d}, {machine()}, Python {platform.python_version()}")
    print(f"medians of {options.rounds} rounds of {options.requests} requests")
    with ExitStack() as stack, tempfile.TemporaryDirectory(prefix="lookoutvision-bench-") as folder:
        operations = {
            "CreateProject": list(_creating(stack, Path(folder))),
            "ListProjects": list(_listing(stack, Path(folder))),
        }
        for operation, cases in operations.items():
            for connections in options.connections:
                for case in cases:
                    measure(case.url, case.pid, case.requests(50), connections)
                rounds = [
                    {
                        case.name: measure(case.url, case.pid, case.requests(options.requests), connections)
                        for case in cases
                    }
                    for _ in range(options.rounds)
                ]
                _print(f"{operation}, {connections} at a time", rounds)


def _creating(stack: ExitStack, folder: Path) -> Iterator[Case]:
    service = stack.enter_context(running_service(folder / "create"))
    client = new_client(service)
    create = _each(lambda n: as_bytes(client, "create_project", ProjectName=f"project-{n}"))
    yield Case("bare route", *stack.enter_context(_bare_route(folder, CREATED_BYTES)), create)
    yield Case("CreateProject", service.endpoint_url, service.process.pid, create)
    url, pid = stack.enter_context(_process("moto.server", "-p", "{port}"))
    things, tables = _moto_client("iot", url), _moto_client("dynamodb", url)
    key: dict[str, Any] = {
        "KeySchema": [{"AttributeName": "key", "KeyType": "HASH"}],
        "AttributeDefinitions": [{"AttributeName": "key", "AttributeType": "S"}],
        "BillingMode": "PAY_PER_REQUEST",
    }
    yield Case(
        "moto, IoT CreateThing",
        url,
        pid,
        _each(lambda n: as_bytes(things, "create_thing", thingName=f"thing-{n}")),
    )
    yield Case(
        "moto, DynamoDB CreateTable",
        url,
        pid,
        _each(lambda n: as_bytes(tables, "create_table", TableName=f"table-{n}", **key)),
    )


def _listing(stack: ExitStack, folder: Path) -> Iterator[Case]:
    few = stack.enter_context(_service_with(100, folder))
    many = stack.enter_context(_service_with(100_000, folder))
    url, pid = stack.enter_context(_bare_route(folder, 100 * LISTED_BYTES))
    yield Case("bare route, answer as long", url, pid, _same(few))
    yield Case("100 projects", few.endpoint_url, few.process.pid, _same(few))
    yield Case("100,000 projects, first page", many.endpoint_url, many.process.pid, _same(many))
    pages = new_client(many).get_paginator("list_projects").paginate()
    token = next(page["NextToken"] for number, page in enumerate(pages, 1) if number == 500)
    yield Case(
        "100,000 projects, page 501", many.endpoint_url, many.process.pid, _same(many, NextToken=token)
    )


def _each(make: Callable[[int], bytes]) -> Callable[[int], Sequence[bytes]]:
    numbers = count()
    return lambda n: [make(next(numbers)) for _ in range(n)]


def _same(service: Service, **parameters: str) -> Callable[[int], Sequence[bytes]]:
    client = new_client(service)
    return lambda n: [as_bytes(client, "list_projects", **parameters)] * n


def new_client(service: Service) -> Any:
    return teach(boto3.Session()).client(
        "lookoutvision",
        region_name=REGION,
        endpoint_url=service.endpoint_url,
        aws_access_key_id=service.access_key_id,
        aws_secret_access_key=service.secret_access_key,
    )


def _moto_client(name: str, url: str) -> Any:
    keys = {"aws_access_key_id": "any", "aws_secret_access_key": "any"}
    return boto3.client(name, region_name=REGION, endpoint_url=url, **keys)


@contextmanager
def _service_with(number: int, folder: Path) -> Iterator[Service]:
    data_dir = folder / str(number)
    rows = (
        {"account_id": DEFAULT_ACCOUNT, "region": REGION, "name": f"project-{n:06}", "created_at": n}
        for n in range(number)
    )
    with opened(Settings(data_dir=data_dir)) as (database, _), database.write() as connection:
        connection.execute(projects.insert(), list(rows))
    with running_service(data_dir) as service:
        yield service


@contextmanager
def _bare_route(folder: Path, length: int) -> Iterator[tuple[str, int]]:
    answer = folder / f"{length}.json"
    answer.write_bytes(b"{" + b" " * (length - 2) + b"}")
    with _process("bench.bare_route", "{port}", str(answer)) as address:
        yield address


@contextmanager
def _process(module: str, *arguments: str) -> Iterator[tuple[str, int]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", module, *(argument.format(port=port) for argument in arguments)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(port, process)
        yield f"http://127.0.0.1:{port}", process.pid
    finally:
        process.kill()
        process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"{process.args!r} does not listen")


def _print(operation: str, rounds: Sequence[Mapping[str, Cost]]) -> None:
    bare, *_ = rounds[0]
    print(f"\n| {operation} | requests/s | of the bare route's | CPU a request | of the bare route's |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name in rounds[0]:
        rate = statistics.median(costs[name].requests_per_second for costs in rounds)
        cpu = statistics.median(costs[name].cpu_microseconds for costs in rounds)
        of_rate = statistics.median(
            costs[name].requests_per_second / costs[bare].requests_per_second for costs in rounds
        )
        of_cpu = statistics.median(
            costs[name].cpu_microseconds / costs[bare].cpu_microseconds for costs in rounds
        )
        print(f"| {name} | {rate:,.0f} | {of_rate:.2f} | {cpu:,.0f} µs | {of_cpu:.1f} |")


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


if __name__ == "__main__":
    main()
