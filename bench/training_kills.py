"""Kills trainings, and their workers, at random moments: does each model come to an end, and nothing stay?

``python -m bench.training_kills [--kills N] [--seed N] [--database-url URL]``. Each training is killed once,
at a moment drawn from the time that one takes undisturbed: its process group with SIGKILL, or the worker that
watches it. Then its model must end TRAINED or TRAINING_FAILED, and no process, no folder, no frozen entry and
no job may be left of it.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from PIL import Image, ImageDraw

from airflow_provider_lookoutvision.server.settings import Settings
from airflow_provider_lookoutvision.server.storage.database import Database
from airflow_provider_lookoutvision.server.storage.opening import opened
from airflow_provider_lookoutvision.server.storage.schema import jobs, training_entries
from airflow_provider_lookoutvision.testing.service import Service, running_service
from bench.service import machine, new_client

PROJECT = {"ProjectName": "bench"}
OUTPUT = {"S3Location": {"Bucket": "parts", "Prefix": "out/"}}
DATASETS = {"train": ["normal"] * 10, "test": ["normal"] * 10 + ["anomaly"] * 10}
SIDE = 96
SECONDS = 300
TRAINER, WORKER = "server.models.training_process", "server.cli\0worker"


@dataclass(frozen=True)
class Outcome:
    """What became of one training that was killed; ``left`` names what should not be there."""

    target: str
    moment: float
    doing: str
    status: str
    message: str
    seconds: float
    left: str


def main() -> int:
    """Kill, print a table, and tell by the exit status whether all was well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--database-url", default="", help="SQLite in a temporary folder when empty")
    options = parser.parse_args()
    url = options.database_url
    print(f"{datetime.now(UTC):%Y-%m-%d}, {machine()}, Python {platform.python_version()}, ", end="")
    print(f"{sa.make_url(url).get_backend_name() if url else 'sqlite'}, seed {options.seed}")
    with tempfile.TemporaryDirectory(prefix="lookoutvision-bench-") as folder:
        flags = ["--database-url", url] if url else []
        with (
            running_service(Path(folder), flags) as service,
            opened(Settings(data_dir=service.data_dir, database_url=url)) as (database, _),
        ):
            bench = Bench(service, database)
            bench.prepare()
            bench.train_undisturbed()  # the first one also makes the network ready
            undisturbed = bench.train_undisturbed()
            print(f"undisturbed, a training takes {undisturbed:.1f} s\n")
            print("| killed | after | while | ended | after | what is left |")
            print("| --- | ---: | --- | --- | ---: | --- |")
            outcomes = []
            for outcome in bench.kill(options.kills, random.Random(options.seed), undisturbed):
                outcomes.append(outcome)
                ended = (
                    outcome.status if outcome.status == "TRAINED" else f"{outcome.status}: {outcome.message}"
                )
                print(
                    f"| {outcome.target} | {outcome.moment:.1f} s | {outcome.doing} | {ended} | "
                    f"{outcome.seconds:.1f} s | {outcome.left or 'nothing'} |",
                    flush=True,
                )
    bad = [o for o in outcomes if o.left or o.status not in {"TRAINED", "TRAINING_FAILED"}]
    print(f"\n{len(outcomes)} killed, {len(outcomes) - len(bad)} ended with nothing left behind")
    return 1 if bad else 0


class Bench:
    """A service, and one project in it to train again and again."""

    def __init__(self, service: Service, database: Database) -> None:
        self._service, self._database = service, database
        self._client = new_client(service)

    def prepare(self) -> None:
        """Datasets of drawn images, as few as there must be: what is learnt doesn't matter here."""
        folder = self._service.data_dir / "buckets" / "parts"
        folder.mkdir(parents=True)
        self._client.create_project(**PROJECT)
        for kind, labels in DATASETS.items():
            lines = []
            for number, label in enumerate(labels):
                key = f"{kind}-{number}.jpg"
                (folder / key).write_bytes(_drawn(number, label == "anomaly"))
                lines.append(json.dumps(_line(key, label)))
            (folder / kind).write_text("\n".join(lines))
            source = {"GroundTruthManifest": {"S3Object": {"Bucket": "parts", "Key": kind}}}
            self._client.create_dataset(**PROJECT, DatasetType=kind, DatasetSource=source)
        _until(
            lambda: all(
                dataset["Status"] == "CREATE_COMPLETE"
                for dataset in self._client.describe_project(**PROJECT)["ProjectDescription"]["Datasets"]
            )
        )

    def train_undisturbed(self) -> float:
        """How many seconds a training takes."""
        started = time.monotonic()
        version = self._create()
        described = self._ended(version)
        if described["Status"] != "TRAINED":
            raise RuntimeError(described["StatusMessage"])
        return time.monotonic() - started

    def kill(self, count: int, chance: random.Random, longest: float) -> Iterator[Outcome]:
        """Kill so many trainings; one that has ended before its moment doesn't count."""
        killed = 0
        while killed < count:
            target, moment = chance.choice(["training", "worker"]), chance.uniform(0, longest)
            started = time.monotonic()
            version = self._create()
            time.sleep(moment)
            doing = self._describe(version)
            self._kill(target)
            described = self._ended(version)
            seconds = time.monotonic() - started
            if doing["Status"] == "TRAINING":
                killed += 1
                ended = described["Status"], described["StatusMessage"]
                yield Outcome(target, moment, doing["StatusMessage"], *ended, seconds, self._left())

    def _create(self) -> str:
        answer = self._client.create_model(**PROJECT, OutputConfig=OUTPUT)
        return str(answer["ModelMetadata"]["ModelVersion"])

    def _describe(self, version: str) -> dict[str, Any]:
        return dict(self._client.describe_model(**PROJECT, ModelVersion=version)["ModelDescription"])

    def _ended(self, version: str) -> dict[str, Any]:
        _until(lambda: self._describe(version)["Status"] != "TRAINING")
        return self._describe(version)

    def _kill(self, target: str) -> None:
        data_dir = str(self._service.data_dir)
        if target == "training":
            for pid in _processes(TRAINER, data_dir):
                _signal(os.killpg, pid)
        else:
            for pid in _processes(WORKER):
                if _parent(pid) == self._service.process.pid:
                    _signal(os.kill, pid)

    def _left(self) -> str:
        """What there still is of the training, a moment after its end."""
        deadline = time.monotonic() + 10
        while (left := self._found()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return left

    def _found(self) -> str:
        data_dir = self._service.data_dir
        root = data_dir / "training"
        with self._database.read() as connection:
            counts = {
                "entries": connection.execute(
                    sa.select(sa.func.count()).select_from(training_entries)
                ).scalar_one(),
                "jobs": connection.execute(sa.select(sa.func.count()).select_from(jobs)).scalar_one(),
                "processes": len(_processes(TRAINER, str(data_dir))),
                "folders": len(list(root.iterdir())) if root.exists() else 0,
            }
        return ", ".join(f"{count} {name}" for name, count in counts.items() if count)


def _until(enough: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not enough():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {SECONDS} seconds")
        time.sleep(0.05)


def _processes(*words: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_text() if entry.name.isdigit() else ""
        except OSError:
            continue
        if command and all(word in command for word in words):
            found.append(int(entry.name))
    return found


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _signal(send: Callable[[int, int], None], pid: int) -> None:
    with suppress(ProcessLookupError):  # it has just ended
        send(pid, signal.SIGKILL)


def _drawn(number: int, scratched: bool) -> bytes:
    generator = np.random.default_rng(number)
    grain = generator.normal(140, 8, (SIDE, SIDE, 1)).repeat(3, axis=2)
    image = Image.fromarray(np.clip(grain, 0, 255).astype(np.uint8))
    if scratched:
        y = int(generator.integers(SIDE // 4, SIDE * 3 // 4))
        ImageDraw.Draw(image).line((8, y, SIDE - 8, SIDE - y), fill=(20, 20, 20), width=8)
    stream = io.BytesIO()
    image.save(stream, "JPEG")
    return stream.getvalue()


def _line(key: str, label: str) -> dict[str, Any]:
    return {
        "source-ref": f"s3://parts/{key}",
        "anomaly-label": int(label == "anomaly"),
        "anomaly-label-metadata": {
            "class-name": label,
            "type": "groundtruth/image-classification",
            "human-annotated": "yes",
        },
    }


if __name__ == "__main__":
    sys.exit(main())
