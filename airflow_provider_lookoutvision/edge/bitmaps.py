"""Pixels that come in a message or lie in POSIX shared memory, and where a mask is to be put.

A client maps the memory; the agent opens what it names below ``/dev/shm`` and nothing else, and neither
creates nor deletes it.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager

from airflow_provider_lookoutvision.edge.edge_agent_pb2 import AnomalyMaskParams, Bitmap, SharedMemoryHandle

MIN_SIDE, MAX_SIDE = 64, 4096
_CHANNELS = 3
_FOLDER = "/dev/shm"  # noqa: S108 (that is where POSIX shared memory is)
_FILES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")


class UnusableBitmap(ValueError):
    """A bitmap, or a place for one, that can't be used; the message says why."""


def file_in(bitmap: Bitmap) -> bytes | None:
    """The JPEG or PNG that is in the message in the place of pixels, if one is."""
    content = bitmap.byte_data
    return content if content.startswith(_FILES) and len(content) != _length(bitmap) else None


@contextmanager
def pixels_of(bitmap: Bitmap) -> Iterator[bytes | memoryview]:
    """The packed RGB pixels of a bitmap.

    :raises UnusableBitmap: when it has a size that isn't allowed, or not as many bytes as that says.
    """
    for side, length in (("width", bitmap.width), ("height", bitmap.height)):
        if not MIN_SIDE <= length <= MAX_SIDE:
            raise UnusableBitmap(f"the bitmap's {side} is {length}; it must be {MIN_SIDE} to {MAX_SIDE}")
    length = _length(bitmap)
    kind = bitmap.WhichOneof("data")
    if kind is None:
        raise UnusableBitmap("the bitmap has neither byte_data nor a shared_memory_handle")
    if kind == "byte_data":
        content = bitmap.byte_data
        if len(content) != length:
            raise UnusableBitmap(
                f"the bitmap has {len(content)} bytes; {bitmap.width} x {bitmap.height} pixels of packed RGB "
                f"have {length}"
            )
        yield content
    else:
        with _mapped(bitmap.shared_memory_handle, length, writable=False) as memory:
            yield memory


def mask_handle(parameters: AnomalyMaskParams) -> SharedMemoryHandle | None:
    """Where the mask is to be written, in whichever of the two fields it came; None for the message."""
    for field in ("shared_memory_handle", "shared_memory_handle_3"):
        if parameters.HasField(field):
            handle: SharedMemoryHandle = getattr(parameters, field)
            return handle
    return None


def check_room(handle: SharedMemoryHandle, width: int, height: int) -> None:
    """Refuse a place for a mask that is none, before anything is looked at.

    :raises UnusableBitmap: when it can't take the mask.
    """
    with _mapped(handle, width * height * _CHANNELS, writable=True):
        pass


def write(handle: SharedMemoryHandle, content: bytes) -> None:
    """Write a mask into shared memory.

    :raises UnusableBitmap: when it can't take the mask.
    """
    with _mapped(handle, len(content), writable=True) as memory:
        memory[:] = content


def _length(bitmap: Bitmap) -> int:
    return int(bitmap.width) * int(bitmap.height) * _CHANNELS


@contextmanager
def _mapped(handle: SharedMemoryHandle, length: int, *, writable: bool) -> Iterator[memoryview]:
    name = handle.name.removeprefix("/")
    if not name or "/" in name or "\0" in name or name in {".", ".."}:
        raise UnusableBitmap(f"{handle.name!r} is no name of shared memory")
    if handle.size < length:
        raise UnusableBitmap(
            f"the handle of the shared memory {handle.name!r} has {handle.size} bytes, and {length} are "
            "needed"
        )
    try:
        flags = (os.O_RDWR if writable else os.O_RDONLY) | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(f"{_FOLDER}/{name}", flags)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UnusableBitmap(f"the shared memory {handle.name!r} can't be opened: {reason}") from None
    try:
        there = os.fstat(descriptor).st_size
        if handle.offset + length > there:
            raise UnusableBitmap(
                f"the shared memory {handle.name!r} has {there} bytes, and {length} from {handle.offset} on "
                "are needed"
            )
        start = handle.offset // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
        access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
        try:
            mapped = mmap.mmap(descriptor, handle.offset - start + length, access=access, offset=start)
        except (OSError, ValueError) as error:
            raise UnusableBitmap(f"the shared memory {handle.name!r} can't be mapped: {error}") from None
    finally:
        os.close(descriptor)
    with mapped, memoryview(mapped) as whole, whole[handle.offset - start :] as memory:
        yield memory
