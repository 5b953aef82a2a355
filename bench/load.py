"""A load on an HTTP server: requests as ready bytes, over connections that stay open, and what they cost.

The client does next to nothing a request, so that on two cores it is the server that is measured; the CPU
time is the server process's own, from the kernel, and counts all its threads.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import uvloop

from bench.processes import cpu_seconds


@dataclass(frozen=True)
class Cost:
    """What a number of requests cost: in a second, and each of them in microseconds of the server's CPU."""

    requests_per_second: float
    cpu_microseconds: float


def measure(url: str, pid: int, requests: Sequence[bytes], connections: int) -> Cost:
    """Send every request once, over so many connections at a time, and wait for all answers.

    :param pid: the server's process.
    :raises RuntimeError: when an answer isn't 200.
    """
    address = urlsplit(url)
    cpu, started = cpu_seconds(pid), time.perf_counter()
    uvloop.run(_send_all(address.hostname or "", address.port or 80, iter(requests), connections))
    elapsed, used = time.perf_counter() - started, cpu_seconds(pid) - cpu
    return Cost(len(requests) / elapsed, used / len(requests) * 1e6)


async def _send_all(host: str, port: int, requests: Iterator[bytes], connections: int) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(_send_some(host, port, requests))


async def _send_some(host: str, port: int, requests: Iterator[bytes]) -> None:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        for request in requests:
            if reader.at_eof():
                writer.close()
                reader, writer = await asyncio.open_connection(host, port)
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            if head.split(b" ", 2)[1] != b"200":
                raise RuntimeError(f"{request[:100]!r} was answered {head!r}")
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]
            await reader.readexactly(int(length))
            if b"connection: close" in head.lower():
                await reader.read()
    finally:
        writer.close()
