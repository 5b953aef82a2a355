"""The messages between a pool and its replicas, over pipes: images one way, answers the other.

An image is four bytes of length (big-endian) and its bytes; so is the model's artifact, which comes first. An
answer is the lengths of its two parts, a JSON object and the bytes of a mask, and then the parts.
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
_LENGTHS = struct.Struct(">II")


@dataclass(frozen=True)
class Answer:
    """The answer of a replica.

    :param members: of a ``DetectAnomalyResult`` without its mask; or one of ``ready``, ``fault`` (the model
        can't be loaded, and why), ``invalid`` (the image can't be used, and why) and ``error``.
    :param mask: a PNG, or nothing.
    """

    members: Mapping[str, Any]
    mask: bytes = b""


def length_prefix(content: bytes) -> bytes:
    """The bytes before an image or an artifact."""
    return _LENGTH.pack(len(content))


def read(stream: BinaryIO) -> bytes | None:
    """The next image or artifact; None at the end."""
    prefix = stream.read(_LENGTH.size)
    if len(prefix) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(prefix)
    content = stream.read(length)
    return content if len(content) == length else None


def write_answer(stream: BinaryIO, answer: Answer) -> None:
    """Write one answer."""
    text = json.dumps(answer.members).encode()
    stream.write(_LENGTHS.pack(len(text), len(answer.mask)) + text + answer.mask)
    stream.flush()


async def read_answer(stream: asyncio.StreamReader) -> Answer:
    """The next answer.

    :raises asyncio.IncompleteReadError: when the replica has ended.
    """
    lengths = _LENGTHS.unpack(await stream.readexactly(_LENGTHS.size))
    text, mask = [await stream.readexactly(length) for length in lengths]
    return Answer(json.loads(text), mask)
