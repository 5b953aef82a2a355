"""A packaged model beside the service and beside its bare graph, in one run; its size and how fast it starts.

``python -m bench.edge some.manifest --images DIR --masks DIR`` or ``python -m bench.edge FOLDER`` (as
``bench.engine_quality``). It trains once through the API, packages the model, unpacks the component, installs
the four packages of its runner into an environment of their own, and starts the agent there. Then one image
after another is looked at in five ways, which take turns image by image: by the bare ONNX session on what the
network is to see; by the same after resizing the pixels; by the agent, with pixels in messages and in shared
memory; and by DetectAnomalies over HTTP, with the file. A ratio is taken within a round before its median is.
"""

from __future__ import annotations

import argparse
import http.client
import io
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from PIL import Image

from airflow_provider_lookoutvision.edge import components
from airflow_provider_lookoutvision.edge import edge_agent_pb2 as messages
from airflow_provider_lookoutvision.edge.command import NEEDED
from airflow_provider_lookoutvision.edge.runner import Runner
from airflow_provider_lookoutvision.testing.service import Service, running_service
from bench.engine_data import add_image_arguments, read_images
from bench.hosting import _host, _request, _train
from bench.processes import memory_mebibytes
from bench.service import machine, new_client

COMPONENT = "bench"
_BUCKET = "bench"
Way = Callable[[int], None]


def main() -> None:
    """Measure, and print two tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_image_arguments(parser)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--images-each", type=int, default=40, help="in each round")
    options = parser.parse_args()
    whole = read_images(options)
    print(f"{datetime.now(UTC):%Y-%m-%d}, {machine()}, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory(prefix="lookoutvision-bench-") as temporary:
        folder = Path(temporary)
        with running_service(folder / "data") as service:
            client = new_client(service)
            _train(client, folder / "data", whole)
            root = _packaged(client, service, folder)
            python = _device(folder)
            _host(client, 1)
            with _agent(python, root, folder) as channel:
                _compare(service, client, channel, root, whole.images, options)


def _packaged(client: Any, service: Service, folder: Path) -> Path:
    started = time.perf_counter()
    greengrass = {
        "S3OutputLocation": {"Bucket": _BUCKET, "Prefix": "components/"},
        "ComponentName": COMPONENT,
        "TargetPlatform": {"Os": "LINUX", "Arch": "X86_64"},
    }
    client.start_model_packaging_job(
        ProjectName="bench", ModelVersion="1", JobName="j", Configuration={"Greengrass": greengrass}
    )
    while True:
        job = client.describe_model_packaging_job(ProjectName="bench", JobName="j")[
            "ModelPackagingDescription"
        ]
        if job["Status"] in {"SUCCEEDED", "FAILED"}:
            break
        time.sleep(0.1)
    took = time.perf_counter() - started
    archive = service.data_dir / "buckets" / _BUCKET / "components" / f"{COMPONENT}-1.0.0.zip"
    print(f"{job['Status']} in {took:.1f} s: a component of {archive.stat().st_size / 1e6:.1f} MB")
    root = folder / "components"
    with zipfile.ZipFile(archive) as content:
        content.extractall(root / COMPONENT)
    return root


def _device(folder: Path) -> Path:
    """An environment with the four packages."""
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder / "venv"], check=True)
    constraints = Path(__file__).parents[1] / "constraints.txt"
    install = [uv, "pip", "install", "--quiet", "--python", folder / "venv", "--constraints", constraints]
    subprocess.run([*map(str, install), *NEEDED], check=True)
    size = sum(path.lstat().st_size for path in (folder / "venv").rglob("*") if path.is_file())
    print(f"its runner, installed: {size / 1e6:.0f} MB")
    return folder / "venv" / "bin" / "python"


@contextmanager
def _agent(python: Path, root: Path, folder: Path) -> Iterator[grpc.Channel]:
    socket = folder / "agent.sock"
    command = [python, root / COMPONENT / "agent.py", "--socket", socket, "--start", "all"]
    started = time.perf_counter()
    process = subprocess.Popen([*map(str, command)], stderr=subprocess.DEVNULL)
    sizes = [(f"grpc.max_{way}_message_length", 64 << 20) for way in ("send", "receive")]
    try:
        with grpc.insecure_channel(f"unix:{socket}", options=sizes) as channel:
            describe = channel.unary_unary(
                "/AWS.LookoutVision.EdgeAgent/DescribeModel",
                messages.DescribeModelRequest.SerializeToString,
                messages.DescribeModelResponse.FromString,
            )
            request = messages.DescribeModelRequest(model_component=COMPONENT)
            while describe(request, wait_for_ready=True).model_description.status != messages.RUNNING:
                time.sleep(0.01)
            print(f"the agent is up and its model RUNNING in {time.perf_counter() - started:.2f} s")
            yield channel
            print(f"the agent: {memory_mebibytes(process.pid, 'VmRSS'):.0f} MB resident")
            print(f"the agent: {memory_mebibytes(process.pid, 'VmHWM'):.0f} MB at most")
    finally:
        process.terminate()
        process.wait()


def _compare(
    service: Service,
    client: Any,
    channel: grpc.Channel,
    root: Path,
    paths: Sequence[Path],
    options: argparse.Namespace,
) -> None:
    files = [paths[number % len(paths)] for number in range(options.images_each)]
    pixels = [np.asarray(Image.open(io.BytesIO(path.read_bytes())).convert("RGB")) for path in files]
    height, width, _ = pixels[0].shape
    runner = Runner(components.find(root)[COMPONENT])
    prepared = [runner.prepare(width, height, each.tobytes()) for each in pixels]
    session = runner._session
    packed = [each.tobytes() for each in pixels]
    size = len(packed[0])
    requests = [_request(client, path) for path in files]
    connection = http.client.HTTPConnection("127.0.0.1", service.port)
    connection.connect()
    source, target = (shared_memory.SharedMemory(create=True, size=size) for _ in range(2))
    detect = channel.unary_unary(
        "/AWS.LookoutVision.EdgeAgent/DetectAnomalies",
        messages.DetectAnomaliesRequest.SerializeToString,
        messages.DetectAnomaliesResponse.FromString,
    )

    def request(**more: Any) -> messages.DetectAnomaliesRequest:
        return messages.DetectAnomaliesRequest(
            model_component=COMPONENT, bitmap=messages.Bitmap(width=width, height=height, **more)
        )

    def by_message(number: int) -> None:
        detect(request(byte_data=packed[number]))

    def by_memory(number: int) -> None:
        assert source.buf is not None
        source.buf[:size] = packed[number]
        asked = request(shared_memory_handle=messages.SharedMemoryHandle(name=source.name, size=size))
        asked.anomaly_mask_params.shared_memory_handle.CopyFrom(
            messages.SharedMemoryHandle(name=target.name, size=size)
        )
        detect(asked)

    def by_http(number: int) -> None:
        connection.send(requests[number])
        response = http.client.HTTPResponse(connection.sock)
        response.begin()
        response.read()
        assert response.status == 200, response.status

    ways: dict[str, Way] = {
        "the bare session": lambda number: _ignore(session.run(None, {"image": prepared[number]})),
        "and the image resized": lambda number: _ignore(
            runner.look(runner.prepare(width, height, packed[number]))
        ),
        "the agent, pixels in messages": by_message,
        "the agent, pixels in shared memory": by_memory,
        "DetectAnomalies over HTTP, a file": by_http,
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(options.rounds + 1):
        spent: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(options.images_each):
            for name, way in ways.items():
                begun = time.perf_counter()
                way(number)
                spent[name].append(time.perf_counter() - begun)
        if turn:  # the first is for warming up
            for name, each in spent.items():
                taken[name].append(statistics.median(each))
    bare = taken["the bare session"]
    resized = taken["and the image resized"]
    print(f"\n| {width} x {height} pixels | ms an image | of the bare session | with the image resized |")
    print("| --- | ---: | ---: | ---: |")
    for name, each in taken.items():
        ratios = [
            statistics.median(mine / its for mine, its in zip(each, other, strict=True))
            for other in (bare, resized)
        ]
        print(f"| {name} | {statistics.median(each) * 1e3:.1f} | {ratios[0]:.2f} | {ratios[1]:.2f} |")
    for block in (source, target):
        block.close()
        block.unlink()


def _ignore(_: object) -> None:
    pass


if __name__ == "__main__":
    main()
