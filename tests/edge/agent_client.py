"""A client of the agent, written from what is known of the messages: no stubs, no protobuf, only the wire.

A message is a mapping of field numbers to values; an int is a varint, bytes and str are as long as they are,
a nested mapping is a message.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any

import grpc

STOPPED, STARTING, RUNNING, FAILED, STOPPING = range(5)
_START_SECONDS = 60
Fields = Mapping[int, Any]


def encode(fields: Fields) -> bytes:
    parts = []
    for number, value in fields.items():
        if isinstance(value, int):
            parts.append(_varint(number << 3) + _varint(value))
            continue
        content = encode(value) if isinstance(value, Mapping) else value
        content = content.encode() if isinstance(content, str) else content
        parts += [_varint(number << 3 | 2), _varint(len(content)), content]
    return b"".join(parts)


def decode(content: bytes) -> dict[int, list[Any]]:
    """The values of each field: ints, floats, and bytes, which may be messages."""
    found: dict[int, list[Any]] = {}
    position = 0
    while position < len(content):
        key, position = _read_varint(content, position)
        match key & 7:
            case 0:
                value, position = _read_varint(content, position)
            case 2:
                length, position = _read_varint(content, position)
                value, position = content[position : position + length], position + length
            case 5:
                (value,) = struct.unpack_from("<f", content, position)
                position += 4
            case other:
                raise AssertionError(f"wire type {other}")
        found.setdefault(key >> 3, []).append(value)
    return found


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(content: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


@dataclass(frozen=True)
class Found:
    """DetectAnomalyResult."""

    is_anomalous: bool
    confidence: float
    mask: bytes | None
    mask_size: tuple[int, int] | None
    anomalies: dict[str, tuple[float, str]]
    score: float
    threshold: float
    mask_handle: bytes | None = None


@dataclass(frozen=True)
class State:
    component: str
    arn: str
    status: int
    message: str


class Client:
    """The five calls."""

    def __init__(self, socket: Path) -> None:
        sizes = [(f"grpc.max_{way}_message_length", 100 << 20) for way in ("send", "receive")]
        self._channel = grpc.insecure_channel(f"unix:{socket}", options=sizes)

    def close(self) -> None:
        self._channel.close()

    def call(self, name: str, fields: Fields, timeout: float = 60) -> dict[int, list[Any]]:
        method = self._channel.unary_unary(f"/AWS.LookoutVision.EdgeAgent/{name}")
        return decode(method(encode(fields), timeout=timeout, wait_for_ready=True))

    def detect(
        self, component: str, width: int, height: int, pixels: bytes | None = None, **more: Fields
    ) -> Found:
        """DetectAnomalies: ``handle`` is where the pixels are, ``mask`` are the AnomalyMaskParams."""
        data = {3: pixels} if pixels is not None else {4: more["handle"]} if "handle" in more else {}
        fields = {1: component, 2: {1: width, 2: height, **data}}
        if "mask" in more:
            fields[3] = more["mask"]
        [result] = self.call("DetectAnomalies", fields)[1]
        members = decode(result)
        mask = decode(members[3][0]) if 3 in members else {}
        anomalies = {}
        for each in members.get(4, []):
            anomaly = decode(each)
            area = decode(anomaly[2][0])
            anomalies[anomaly[1][0].decode()] = (area.get(1, [0.0])[0], area[2][0].decode())
        return Found(
            bool(members.get(1, [0])[0]),
            members[2][0],
            mask.get(3, [None])[0],
            (mask[1][0], mask[2][0]) if mask else None,
            anomalies,
            members.get(5, [0.0])[0],
            members[6][0],
            mask.get(4, [None])[0],
        )

    def start(self, component: str) -> int:
        return int(self.call("StartModel", {1: component}).get(1, [0])[0])

    def stop(self, component: str) -> int:
        return int(self.call("StopModel", {1: component}).get(1, [0])[0])

    def describe(self, component: str) -> State:
        return _state(self.call("DescribeModel", {1: component})[1][0])

    def list(self) -> list[State]:
        return [_state(each) for each in self.call("ListModels", {}).get(1, [])]

    def started(self, component: str) -> State:
        """StartModel, and the model's state once it isn't STARTING any more."""
        assert self.start(component) == STARTING
        waiting = threading.Event()
        for _ in range(600):
            state = self.describe(component)
            if state.status != STARTING:
                return state
            waiting.wait(0.1)
        raise AssertionError("still STARTING")


def _state(content: bytes) -> State:
    members = decode(content)
    return State(
        members[1][0].decode(), members[2][0].decode(), members.get(3, [0])[0], members[4][0].decode()
    )


def code_of(error: grpc.RpcError) -> str:
    return str(error.code().name)


class Agent:
    """An agent in a process of its own."""

    def __init__(self, command: Sequence[str], socket: Path, log: Path, environ: Mapping[str, str]) -> None:
        self.socket, self.log = socket, log
        with log.open("w") as file:
            self.process = subprocess.Popen(
                [*command, "--socket", str(socket)], stderr=file, stdout=file, env=dict(environ)
            )
        self.client = Client(socket)

    def said(self) -> str:
        return self.log.read_text()

    def until_ready(self) -> None:
        ready = grpc.channel_ready_future(self.client._channel)
        try:
            ready.result(_START_SECONDS)
        except grpc.FutureTimeoutError:
            raise AssertionError(self.said()) from None

    def end(self) -> int:
        self.client.close()
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(60)


PACKAGED_HERE = (sys.executable, "-m", "airflow_provider_lookoutvision.server.cli", "edge-agent")


@contextmanager
def running_agent(
    components: Path,
    folder: Path,
    *flags: str,
    command: Sequence[str] = PACKAGED_HERE,
    environ: Mapping[str, str] = os.environ,
) -> Iterator[Agent]:
    """An agent of the components in a folder, that listens; its socket and its log are in ``folder``."""
    agent = Agent(
        [*command, "--components", str(components), *flags], folder / "agent.sock", folder / "log", environ
    )
    try:
        agent.until_ready()
        yield agent
    finally:
        agent.end()


@contextmanager
def memory(size: int, content: bytes = b"") -> Iterator[shared_memory.SharedMemory]:
    block = shared_memory.SharedMemory(create=True, size=size)
    try:
        block.buf[: len(content)] = content
        yield block
    finally:
        block.close()
        block.unlink()


def handle(block: shared_memory.SharedMemory, size: int, offset: int = 0) -> Fields:
    return {1: f"/{block.name}", 2: size, 3: offset}
