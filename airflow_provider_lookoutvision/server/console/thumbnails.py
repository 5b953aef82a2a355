"""Thumbnails: made once, by a process of their own, and kept in a folder that doesn't grow without end.

The process has the limits of the engine on what an image may be, and no image that it fails on can harm the
API. It starts with the first thumbnail, makes one after another, and ends after a while with nothing to do.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import secrets
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import anyio.to_thread

from airflow_provider_lookoutvision.server.hosting import frames

SIDE = 240
MOST_BYTES = 256 << 20
_MODULE = "airflow_provider_lookoutvision.server.console.thumbnail_process"
_IDLE_SECONDS = 60.0
_ANSWER_SECONDS = 30.0

log = logging.getLogger("lookoutvision")


class NoThumbnail(Exception):
    """There can be none; the message is the reason."""


class Thumbnails:
    """The thumbnails in a folder.

    :param most_bytes: of all together; beyond that, those that were used longest ago are deleted.
    """

    def __init__(self, folder: Path, most_bytes: int = MOST_BYTES) -> None:
        self._folder, self._most_bytes = folder, most_bytes
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._used = 0.0
        self._missing: str | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """End the process when it is idle, and at the end of the block."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._end_when_idle)
            try:
                yield
            finally:
                tasks.cancel_scope.cancel()
                self._kill()

    async def get(self, identity: str, read: Callable[[], bytes]) -> bytes:
        """The thumbnail of an image as JPEG, from the folder or made now.

        :param identity: of the image's bytes: another one when they change.
        :param read: the image's bytes, called in a thread.
        :raises NoThumbnail: when the image can't be used, or nothing is installed that could.
        """
        path = self._path(identity)
        if (known := await anyio.to_thread.run_sync(_read, path)) is not None:
            return known
        if self._missing:
            raise NoThumbnail(self._missing)
        async with self._turn:
            if (known := await anyio.to_thread.run_sync(_read, path)) is not None:
                return known
            answer = await self._make(await anyio.to_thread.run_sync(read))
        if "missing" in answer.members:
            self._missing = str(answer.members["missing"])
            log.warning("no thumbnails", extra={"reason": self._missing})
            raise NoThumbnail(self._missing)
        if "invalid" in answer.members:
            raise NoThumbnail(str(answer.members["invalid"]))
        await anyio.to_thread.run_sync(_write, path, answer.mask)
        return answer.mask

    def purge(self) -> int:
        """Delete the thumbnails that are too many; how many that were."""
        found = []
        for path in self._folder.glob("*/*.jpg"):
            with suppress(FileNotFoundError):
                status = path.stat()
                found.append((status.st_mtime, status.st_size, path))
        left, deleted = sum(size for _, size, _ in found), 0
        for _, size, path in sorted(found):
            if left <= self._most_bytes:
                break
            path.unlink(missing_ok=True)
            left, deleted = left - size, deleted + 1
        return deleted

    def _path(self, identity: str) -> Path:
        digest = hashlib.sha256(f"{SIDE} {identity}".encode()).hexdigest()
        return self._folder / digest[:2] / f"{digest[2:]}.jpg"

    async def _make(self, image: bytes) -> frames.Answer:
        self._used = time.monotonic()
        process = self._process
        if process is None or process.returncode is not None:
            process = self._process = await self._start()
        assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 (pipes)
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                process.stdin.write(frames.image_prefix(image, frames.Options()) + image)
                await process.stdin.drain()
                return await frames.read_answer(process.stdout)
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            log.error("the process of the thumbnails ended", extra={"reason": type(error).__name__})
            raise NoThumbnail("the image is too hard to decode") from None
        finally:
            self._used = time.monotonic()
            if sys.exc_info()[0] is not None:  # also cancelled: an answer would be on its way to nobody
                self._kill()

    async def _start(self) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", _MODULE, str(SIDE), stdin=pipe, stdout=pipe, start_new_session=True
        )

    def _kill(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process = None

    async def _end_when_idle(self) -> None:
        while True:
            await anyio.sleep(_IDLE_SECONDS)
            if not self._turn.locked() and time.monotonic() - self._used > _IDLE_SECONDS:
                self._kill()


def _read(path: Path) -> bytes | None:
    try:
        content = path.read_bytes()
        os.utime(path)
    except FileNotFoundError:
        return None
    return content


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{secrets.token_hex(8)}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
