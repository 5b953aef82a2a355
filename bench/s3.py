"""What the service's S3 costs: large objects whole and in parts, images, and lists.

``python -m bench.s3 [GIGABYTES]``: the memory is the most that the service process has had so far.
"""

from __future__ import annotations

import io
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config

from airflow_provider_lookoutvision.testing.service import Service, running_service
from bench.processes import cpu_seconds, memory_mebibytes

IMAGES, IMAGE = 2000, b"x" * 200_000
THREADS = 8
_BLOCK = bytes(range(256)) * 4096


class Pattern(io.RawIOBase):
    """A file of so many bytes, which takes no memory and no disk."""

    def __init__(self, size: int) -> None:
        self._size, self._position = size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position = offset + (0, self._position, self._size)[whence]
        return self._position

    def read(self, size: int = -1) -> bytes:
        size = min(self._size - self._position, size if size >= 0 else self._size)
        begin = self._position % 256
        self._position += size
        return (_BLOCK * (size // len(_BLOCK) + 2))[begin : begin + size]


def main() -> None:
    gigabytes = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    size = gigabytes << 30
    with tempfile.TemporaryDirectory() as folder, running_service(Path(folder), ["--no-worker"]) as service:
        s3 = client(service)
        s3.create_bucket(Bucket="bench")
        shown("start", 0, 0.0, service, 0.0)
        parts = TransferConfig(multipart_chunksize=64 << 20, max_concurrency=4)

        def get() -> None:
            body = s3.get_object(Bucket="bench", Key="large")["Body"]
            while body.read(1 << 20):
                pass

        for name, work in {
            "put whole": lambda: s3.put_object(
                Bucket="bench", Key="large", Body=Pattern(size), ContentLength=size
            ),
            "get": get,
            "copy": lambda: s3.copy_object(Bucket="bench", Key="copy", CopySource="bench/large"),
            "delete both": lambda: s3.delete_objects(
                Bucket="bench", Delete={"Objects": [{"Key": "large"}, {"Key": "copy"}]}
            ),
            "upload in parts": lambda: s3.upload_fileobj(Pattern(size), "bench", "parts", Config=parts),
        }.items():
            timed(name, work, service, size / 1e6, "MB/s")
        s3.delete_object(Bucket="bench", Key="parts")
        keys = [f"images/{number:05}.png" for number in range(IMAGES)]
        many(service, keys, "put", lambda s3, key: s3.put_object(Bucket="bench", Key=key, Body=IMAGE))
        many(service, keys, "get", lambda s3, key: s3.get_object(Bucket="bench", Key=key)["Body"].read())
        timed("list images", lambda: listed(s3), service, IMAGES, "keys/s")


def client(service: Service) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=service.endpoint_url,
        aws_access_key_id=service.access_key_id,
        aws_secret_access_key=service.secret_access_key,
        region_name="us-east-1",
        config=Config(read_timeout=300, s3={"payload_signing_enabled": False}),
    )


def listed(s3: Any) -> int:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket="bench")
    return sum(len(page["Contents"]) for page in pages)


def many(service: Service, keys: list[str], name: str, work: Callable[[Any, str], Any]) -> None:
    queue: SimpleQueue[str] = SimpleQueue()
    for key in keys:
        queue.put(key)

    def work_off() -> None:
        s3 = client(service)
        while True:
            try:
                key = queue.get_nowait()
            except Empty:
                return
            work(s3, key)

    def all_of_them() -> None:
        threads = [threading.Thread(target=work_off) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    timed(f"{name} images of {len(IMAGE) // 1000} kB", all_of_them, service, len(keys), "1/s")


def timed(name: str, work: Callable[[], Any], service: Service, amount: float, unit: str) -> None:
    cpu, begin = cpu_seconds(service.process.pid), time.perf_counter()
    work()
    seconds = time.perf_counter() - begin
    shown(name, amount / seconds, seconds, service, cpu_seconds(service.process.pid) - cpu, unit)


def shown(name: str, rate: float, seconds: float, service: Service, cpu: float, unit: str = "") -> None:
    peak = memory_mebibytes(service.process.pid, "VmHWM")
    print(
        f"{name:<24} {seconds:8.1f} s {rate:9.0f} {unit:<6} {cpu:7.1f} s of CPU, {peak:4.0f} MB at most",
        flush=True,
    )


if __name__ == "__main__":
    main()
