"""Detection through the API beside direct calls of the engine, in one run; and what the processes take.

``python -m bench.hosting some.manifest --images DIR --masks DIR`` or ``python -m bench.hosting FOLDER`` (as
``bench.engine_data``). It trains once through the API, hosts the model with one inference unit and then
with two, and lets three ways take turns, round by round, on the same images: direct calls of the engine, one
after another, in a process of their own, as many processes as there are units, each with as many threads as
a unit has; requests to the API over as many connections as ``--connections`` says, signed beforehand, from
a client that does next to nothing. A ratio is taken within a round before its median is.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from airflow_provider_lookoutvision.server.settings import Settings
from airflow_provider_lookoutvision.server.storage.database import Database
from airflow_provider_lookoutvision.server.storage.schema import model_artifacts
from airflow_provider_lookoutvision.testing.service import Service, running_service
from bench.engine_data import LabelledImages, add_image_arguments, read_images
from bench.load import measure
from bench.service import machine, new_client
from bench.wire import as_bytes

_WORKER = """
import pathlib, sys, time
from airflow_provider_lookoutvision.engine import load
detector = load(pathlib.Path(sys.argv[1]), cache=pathlib.Path(sys.argv[2]), threads=int(sys.argv[3]))
images = [pathlib.Path(path).read_bytes() for path in sys.argv[4:]]
for image in images[:5]:
    detector.detect(image)
print("ready", flush=True)
for line in sys.stdin:
    started = time.perf_counter()
    for number in range(int(line)):
        detector.detect(images[number % len(images)])
    print(time.perf_counter() - started, flush=True)
"""


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_image_arguments(parser)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--requests", type=int, default=126, help="in each round")
    parser.add_argument("--connections", type=int, default=4)
    options = parser.parse_args()
    whole = read_images(options)
    print(f"{datetime.now(UTC):%Y-%m-%d}, {machine()}, Python {platform.python_version()}")
    print(f"medians of {options.rounds} rounds of {options.requests} images")
    with tempfile.TemporaryDirectory(prefix="lookoutvision-bench-") as folder:
        data_dir = Path(folder, "data")
        with running_service(data_dir) as service:
            client = new_client(service)
            _train(client, data_dir, whole)
            model = _unpack(data_dir, Path(folder, "model"))
            for units in (1, 2):
                _host(client, units)
                _compare(service, client, model, whole.images, units, options)
                _memory(service)
                _stop(client)


def _train(client: Any, data_dir: Path, whole: LabelledImages) -> None:
    bucket = data_dir / "buckets" / "bench"
    bucket.mkdir(parents=True)
    lines = []
    for number, (image, label, mask) in enumerate(zip(whole.images, whole.labels, whole.masks, strict=True)):
        (bucket / f"{number}.image").write_bytes(image.read_bytes())
        line: dict[str, Any] = {
            "source-ref": f"{number}.image",
            "label": 0,
            "label-metadata": {"class-name": label, "type": "groundtruth/image-classification"},
        }
        if mask is not None and label == "anomaly":
            (bucket / f"{number}.mask").write_bytes(mask.read_bytes())
            colors = {
                str(index): {"class-name": found.name, "hex-color": found.color}
                for index, found in enumerate(whole.classes)
            }
            line["mask-ref"] = f"{number}.mask"
            line["mask-ref-metadata"] = {
                "internal-color-map": colors,
                "type": "groundtruth/semantic-segmentation",
            }
        lines.append(json.dumps(line))
    (bucket / "all.manifest").write_text("\n".join(lines))
    client.create_project(ProjectName="bench")
    source = {"GroundTruthManifest": {"S3Object": {"Bucket": "bench", "Key": "all.manifest"}}}
    client.create_dataset(ProjectName="bench", DatasetType="train", DatasetSource=source)
    client.get_waiter("dataset_created").wait(
        ProjectName="bench", DatasetType="train", WaiterConfig={"Delay": 1}
    )
    started = time.perf_counter()
    client.create_model(
        ProjectName="bench", OutputConfig={"S3Location": {"Bucket": "bench", "Prefix": "out/"}}
    )
    peak = 0
    while True:
        model = client.describe_model(ProjectName="bench", ModelVersion="1")["ModelDescription"]
        if model["Status"] != "TRAINING":
            break
        peak = max([peak, *_training_peaks(data_dir)])
        time.sleep(0.2)
    print(
        f"{model['Status']} on {len(lines)} images in {time.perf_counter() - started:.0f} s, in a process of "
        f"{peak} MB at most: {model['Performance']}"
    )


def _training_peaks(data_dir: Path) -> Iterator[int]:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_text()
            status = (process / "status").read_text()
        except OSError:
            continue
        if "training_process" in command and str(data_dir) in command and "VmHWM:" in status:
            yield int(status.split("VmHWM:")[1].split()[0]) // 1024


def _artifact(data_dir: Path) -> bytes:
    database = Database(Settings(data_dir=data_dir).url)
    with database.read() as connection:
        content: bytes = connection.execute(sa.select(model_artifacts.c.content)).scalar_one()
    database.close()
    return content


def _unpack(data_dir: Path, folder: Path) -> Path:
    with zipfile.ZipFile(io.BytesIO(_artifact(data_dir))) as archive:
        archive.extractall(folder)
    return folder


def _host(client: Any, units: int) -> None:
    started = time.perf_counter()
    client.start_model(
        ProjectName="bench", ModelVersion="1", MinInferenceUnits=units, MaxInferenceUnits=units
    )
    client.get_waiter("model_hosted").wait(
        ProjectName="bench",
        ModelVersion="1",
        WaiterConfig={"Delay": 0.2},
    )
    print(f"\nhosted with {units} inference unit(s) in {time.perf_counter() - started:.1f} s")


def _stop(client: Any) -> None:
    client.stop_model(ProjectName="bench", ModelVersion="1")
    client.get_waiter("model_stopped").wait(ProjectName="bench", ModelVersion="1", WaiterConfig={"Delay": 1})


def _compare(
    service: Service,
    client: Any,
    model: Path,
    images: Sequence[Path],
    units: int,
    options: argparse.Namespace,
) -> None:
    threads = max(1, len(os.sched_getaffinity(0)) // units)
    rounds: list[tuple[float, float]] = []
    with _direct(model, service.data_dir / "cache", threads, images, units) as direct:
        for number in range(options.rounds + 1):
            by_engine = direct(options.requests)
            cost = measure(
                service.endpoint_url,
                service.process.pid,
                [_request(client, images[n % len(images)]) for n in range(options.requests)],
                options.connections,
            )
            if number:  # the first is for warming up
                rounds.append((by_engine, cost.requests_per_second))
    engine, api = (statistics.median(column) for column in zip(*rounds, strict=True))
    ratio = statistics.median(api / engine for engine, api in rounds)
    print(f"| images/s, {units} unit(s), {options.connections} connections | images/s | of direct |")
    print("| --- | ---: | ---: |")
    print(
        f"| direct calls of the engine | {engine:.1f} | 1.00 |\n| through the API | {api:.1f} | {ratio:.2f} |"
    )


def _request(client: Any, path: Path) -> bytes:
    kind = "image/png" if path.read_bytes().startswith(b"\x89PNG") else "image/jpeg"
    return as_bytes(
        client,
        "detect_anomalies",
        ProjectName="bench",
        ModelVersion="1",
        Body=path.read_bytes(),
        ContentType=kind,
    )


@contextmanager
def _direct(model: Path, cache: Path, threads: int, images: Sequence[Path], processes: int) -> Iterator[Any]:
    """A function: images a second over so many images, by processes that load the model themselves."""
    command = [sys.executable, "-c", _WORKER, str(model), str(cache), str(threads), *map(str, images)]
    workers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]

    def line(worker: subprocess.Popen[str]) -> str:
        assert worker.stdout is not None
        return worker.stdout.readline()

    def run(count: int) -> float:
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write(f"{count // processes}\n")
            worker.stdin.flush()
        return count / max(float(line(worker)) for worker in workers)

    for worker in workers:
        line(worker)
    try:
        yield run
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


def _memory(service: Service) -> None:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_text().split("\0")
            status = (process / "status").read_text()
        except OSError:
            continue
        parent = status.split("PPid:")[1].split()[0]
        if int(process.name) == service.process.pid or int(parent) == service.process.pid:
            resident = int(status.split("VmRSS:")[1].split()[0]) // 1024
            name = next((part for part in command if part.startswith("airflow_provider")), "?")
            role = {"cli": command[3] if len(command) > 3 else "?"}.get(
                name.rpartition(".")[2], name.rpartition(".")[2]
            )
            print(f"{role}: {resident} MB resident")


if __name__ == "__main__":
    main()
