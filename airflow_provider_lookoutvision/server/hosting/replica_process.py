"""One replica as its pool sees it: a process, the requests that it has, and the pipe to it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from airflow_provider_lookoutvision.server import logs
from airflow_provider_lookoutvision.server.hosting import frames
from airflow_provider_lookoutvision.server.hosting.frames import Answer, Options
from airflow_provider_lookoutvision.server.jobs.child_environment import minimal_environ

_MODULE = "airflow_provider_lookoutvision.server.hosting.replica"


@dataclass(eq=False)
class Request:
    """An image, and the future of its answer."""

    image: bytes = field(repr=False)
    options: Options
    answer: asyncio.Future[Answer]
    retried: bool = False
    assigned_at: float = 0.0
    request_id: str | None = field(default_factory=logs.request_id.get)

    def fail(self, error: Exception) -> None:
        """Answer with an error, unless there is an answer."""
        if not self.answer.done():
            self.answer.set_exception(error)


@dataclass(eq=False)
class ReplicaProcess:
    """A replica from its start to its end; its answers come in the order of its requests."""

    process: asyncio.subprocess.Process
    requests: deque[Request] = field(default_factory=deque)
    ready: bool = False
    retired: bool = False

    def assign(self, request: Request) -> None:
        """Send the image, and keep the request until its answer."""
        request.assigned_at = time.monotonic()
        self.requests.append(request)
        self.send(frames.image_prefix(request.image, request.options), request.image)

    def send(self, prefix: bytes, content: bytes) -> None:
        """Write a frame."""
        # At most DEPTH images are on their way, so little is buffered.
        assert self.process.stdin is not None  # noqa: S101 (a pipe was asked for)
        with suppress(OSError, RuntimeError):  # it has ended, as its reader will see
            self.process.stdin.write(prefix)
            self.process.stdin.write(content)

    def retire(self) -> None:
        """Assign no more requests: the replica ends after its last answer."""
        self.retired = True
        if self.process.stdin is not None:
            self.process.stdin.close()

    def kill(self) -> None:
        """End the process and all that it has started, at once."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


async def spawn(cache: Path, threads: int) -> asyncio.subprocess.Process:
    """Start a replica's process, the first of a process group of its own.

    :param threads: of its network.
    """
    command = [sys.executable, "-m", _MODULE, str(cache), str(threads)]
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        *command, env=minimal_environ(), stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
    )
