"""The messages between a pool and its replicas, over pipes: images one way, answers the other.

The model's artifact comes first: four bytes of length (big-endian) and its bytes. An image has what is wanted
of it before that: the threshold, and whether its anomaly map is to be answered. An answer is the lengths of
its three parts, a JSON object and the bytes of a mask and of a map, and then the parts.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

# How many images a replica has at a time: one in the network, one on its way there or back.
DEPTH = 2

_LENGTH = struct.Struct(">I")
_LENGTHS = struct.Struct(">III")
_OPTIONS = struct.Struct(">d?I")


@dataclass(frozen=True)
class Options:
    """What is wanted of an image.

    :param threshold: of the probability that it is anomalous, between 0 and 1.
    :param anomaly_map: whether its anomaly map is to be answered.
    """

    threshold: float = 0.5
    anomaly_map: bool = False


@dataclass(frozen=True)
class Answer:
    """The answer of a replica.

    :param members: of a ``DetectAnomalyResult`` without its mask; or one of ``ready``, ``fault`` (the model
        can't be loaded, and why), ``invalid`` (the image can't be used, and why) and ``error``.
    :param mask: a PNG, or nothing.
    :param anomaly_map: a PNG, or nothing.
    """

    members: Mapping[str, Any]
    mask: bytes = b""
    anomaly_map: bytes = b""


def artifact_prefix(content: bytes) -> bytes:
    """The bytes before an artifact."""
    return _LENGTH.pack(len(content))


def image_prefix(content: bytes, options: Options) -> bytes:
    """The bytes before an image."""
    return _OPTIONS.pack(options.threshold, options.anomaly_map, len(content))


def read_artifact(stream: BinaryIO) -> bytes | None:
    """The artifact; None at the end."""
    prefix = stream.read(_LENGTH.size)
    if len(prefix) < _LENGTH.size:
        return None
    return _read(stream, *_LENGTH.unpack(prefix))


def read_image(stream: BinaryIO) -> tuple[bytes, Options] | None:
    """The next image, and what is wanted of it; None at the end."""
    prefix = stream.read(_OPTIONS.size)
    if len(prefix) < _OPTIONS.size:
        return None
    threshold, anomaly_map, length = _OPTIONS.unpack(prefix)
    content = _read(stream, length)
    return None if content is None else (content, Options(threshold, anomaly_map))


def _read(stream: BinaryIO, length: int) -> bytes | None:
    content = stream.read(length)
    return content if len(content) == length else None


def write_answer(stream: BinaryIO, answer: Answer) -> None:
    """Write one answer."""
    text = json.dumps(answer.members).encode()
    lengths = _LENGTHS.pack(len(text), len(answer.mask), len(answer.anomaly_map))
    stream.write(lengths + text + answer.mask + answer.anomaly_map)
    stream.flush()


async def read_answer(stream: asyncio.StreamReader) -> Answer:
    """The next answer.

    :raises asyncio.IncompleteReadError: when the replica has ended.
    """
    lengths = _LENGTHS.unpack(await stream.readexactly(_LENGTHS.size))
    text, mask, anomaly_map = [await stream.readexactly(length) for length in lengths]
    return Answer(json.loads(text), mask, anomaly_map)
