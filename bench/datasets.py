"""What datasets cost: a manifest of 16,000 lines imported, and a page of entries, early and late.

``python -m bench.datasets [--database-url URL] [--rounds N] [--requests N] [--entries N]``. An import is
timed from its request to CREATE_COMPLETE, as a client that asks every 20 ms sees it; the memory is the most
that the worker process has had resident. Pages are asked for over one connection, in turns, and each ratio
is taken within a round before its median is.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import sqlalchemy as sa

from airflow_provider_lookoutvision.server.protocol import pagination
from airflow_provider_lookoutvision.server.settings import DEFAULT_ACCOUNT, Settings
from airflow_provider_lookoutvision.server.storage.opening import opened
from airflow_provider_lookoutvision.server.storage.schema import dataset_entries, datasets, projects
from airflow_provider_lookoutvision.testing.service import Service, running_service
from bench.load import measure
from bench.processes import children, memory_mebibytes
from bench.service import REGION, machine, new_client
from bench.wire import as_bytes

LINES = 16_000
PAGE = 100
PROJECT = {"ProjectName": "bench", "DatasetType": "train"}


def main() -> None:
    """Measure, and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database-url", default="", help="SQLite in a temporary folder when empty")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--requests", type=int, default=200, help="pages of each kind, in each round")
    parser.add_argument("--entries", type=int, default=1_000_000)
    options = parser.parse_args()
    url = options.database_url
    print(f"{datetime.now(UTC):%Y-%m-%d}, {machine()}, Python {platform.python_version()}, ", end="")
    print(sa.make_url(url).get_backend_name() if url else "sqlite")
    with tempfile.TemporaryDirectory(prefix="lookoutvision-bench-") as folder:
        flags = ["--database-url", url] if url else []
        with running_service(Path(folder), flags) as service:
            _measure_imports(service, options.rounds)
            _measure_pages(service, url, options.entries, options.rounds, options.requests)


def _measure_imports(service: Service, rounds: int) -> None:
    client = new_client(service)
    client.create_project(ProjectName="bench")
    folder = service.data_dir / "buckets" / "images"
    folder.mkdir(parents=True)
    size = (folder / "x.manifest").write_text("".join(f"{json.dumps(_line(n))}\n" for n in range(LINES)))
    source = {"GroundTruthManifest": {"S3Object": {"Bucket": "images", "Key": "x.manifest"}}}
    worker = _worker(service)
    before = memory_mebibytes(worker, "VmHWM")
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        client.create_dataset(**PROJECT, DatasetSource=source)
        while (found := client.describe_dataset(**PROJECT)["DatasetDescription"])[
            "Status"
        ] != "CREATE_COMPLETE":
            if found["Status"] == "CREATE_FAILED":
                raise RuntimeError(found["StatusMessage"])
            time.sleep(0.02)
        seconds.append(time.perf_counter() - started)
        client.delete_dataset(**PROJECT)
    what = f"{LINES:,} lines, {size / 1e6:.1f} MB"
    print(f"\n| {what} | median | slowest of {rounds} | the worker's memory, at most |")
    print("| --- | ---: | ---: | ---: |")
    memory = f"{memory_mebibytes(worker, 'VmHWM'):.0f} MB ({before:.0f} MB before)"
    print(f"| import | {statistics.median(seconds):.1f} s | {max(seconds):.1f} s | {memory} |")


def _measure_pages(service: Service, url: str, entries: int, rounds: int, requests: int) -> None:
    client = new_client(service)
    token = _fill(service, url, entries)
    anomalies = {"AnomalyClass": "anomaly"}
    cases = {
        f"entry {PAGE}": {"NextToken": token(PAGE)},
        f"entry {entries:,}": {"NextToken": token(entries)},
        f"anomalies, entry {PAGE}": {**anomalies, "NextToken": token(PAGE, "anomaly")},
        f"anomalies, entry {entries:,}": {**anomalies, "NextToken": token(entries, "anomaly")},
    }
    sending = {
        name: [as_bytes(client, "list_dataset_entries", **PROJECT, **more)] for name, more in cases.items()
    }
    for members in cases.values():
        if len(client.list_dataset_entries(**PROJECT, **members)["DatasetEntries"]) != PAGE:
            raise RuntimeError("a page is not full")
    taken: list[Mapping[str, float]] = [
        {
            name: 1000
            / measure(service.endpoint_url, service.process.pid, sent * requests, 1).requests_per_second
            for name, sent in sending.items()
        }
        for _ in range(rounds)
    ]
    print(f"\n| page of {PAGE} entries after | median | of the page after entry {PAGE} |")
    print("| --- | ---: | ---: |")
    for number, name in enumerate(cases):
        first = list(cases)[number // 2 * 2]
        ratio = statistics.median(each[name] / each[first] for each in taken)
        print(f"| {name} | {statistics.median(each[name] for each in taken):.1f} ms | {ratio:.2f} |")


def _fill(service: Service, url: str, entries: int) -> Callable[..., str]:
    """Put entries into a dataset, past all limits; the function gives the token of the page after one."""
    client = new_client(service)
    client.create_dataset(**PROJECT)
    columns = dataset_entries.c
    with opened(Settings(data_dir=service.data_dir, database_url=url)) as (database, cipher):
        with database.read() as connection:
            dataset = connection.execute(
                sa.select(datasets.c.id).join(projects).where(projects.c.name == PROJECT["ProjectName"])
            ).scalar_one()
        for rows in _batches(dataset, entries + 2 * PAGE):
            with database.write() as connection:
                connection.execute(dataset_entries.insert(), rows)
        with database.read() as connection:
            first = connection.execute(
                sa.select(sa.func.min(columns.id)).where(columns.dataset_id == dataset)
            ).scalar_one()

    def token(entry: int, label: str | None = None) -> str:
        filters = [None, label, "None", "None", None]
        scope = [DEFAULT_ACCOUNT, REGION, service.access_key_id, "ListDatasetEntries", dataset, *filters]
        last = [SimpleNamespace(id=first + entry - 1)] * 2
        return pagination.page(cipher, scope, None, 1).cut(last, "id")[1] or ""

    return token


def _batches(dataset: int, entries: int) -> Iterator[Sequence[Mapping[str, Any]]]:
    for begin in range(0, entries, 10_000):
        yield [
            {
                "dataset_id": dataset,
                "source_ref": f"s3://images/{number}.png",
                "label": "anomaly" if number % 2 else "normal",
                "line": json.dumps(_line(number)),
                "created_at": 0,
            }
            for number in range(begin, min(begin + 10_000, entries))
        ]


def _line(number: int) -> dict[str, Any]:
    """A line as Ground Truth writes it; of two, one has a mask."""
    label = "anomaly" if number % 2 else "normal"
    common = {
        "job-name": "labeling-job/line-7",
        "human-annotated": "yes",
        "creation-date": "2022-08-22T20:52:51.851",
    }
    line = {
        "source-ref": f"s3://images/camera-7/{number}.png",
        "anomaly-label": number % 2,
        "anomaly-label-metadata": {
            "class-name": label,
            "confidence": 1,
            "type": "groundtruth/image-classification",
            **common,
        },
    }
    if number % 2:
        line |= {
            "anomaly-mask-ref": f"s3://images/masks/{number}.png",
            "anomaly-mask-ref-metadata": {
                "internal-color-map": {
                    "0": {"class-name": "BACKGROUND", "hex-color": "#ffffff", "confidence": 0},
                    "1": {"class-name": "scratch", "hex-color": "#2ca02c", "confidence": 0},
                },
                "type": "groundtruth/semantic-segmentation",
                **common,
            },
        }
    return line


def _worker(service: Service) -> int:
    while not (found := children(service.process.pid)):
        time.sleep(0.05)
    time.sleep(3)  # until it has loaded what it needs
    return found[0]


if __name__ == "__main__":
    main()
