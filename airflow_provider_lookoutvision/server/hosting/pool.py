"""One hosted model: its replicas, the requests that wait for them, and how many replicas there are.

Everything here happens in the event loop's thread, one step at a time. A request is given to the replica that
has the least to do, or waits; when as many wait as are allowed, the next one is refused. Replicas are added,
up to the most, while requests wait, and taken away again when there has been little to do for a while. A
replica that dies is replaced, and what it was doing is given to another, once.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from airflow_provider_lookoutvision.server.hosting import frames
from airflow_provider_lookoutvision.server.hosting.frames import DEPTH, Answer
from airflow_provider_lookoutvision.server.protocol.errors import (
    ConflictException,
    InternalServerException,
    ResourceType,
    ThrottlingException,
    ValidationException,
)

_MODULE = "airflow_provider_lookoutvision.server.hosting.replica"
# A little under what botocore waits for an answer.
ANSWER_SECONDS = 50.0
_START_SECONDS = 120.0
_IDLE_SECONDS = 60.0
_LONGEST_PAUSE_SECONDS = 30.0

log = logging.getLogger("lookoutvision")


@dataclass(eq=False)
class Request:
    """An image and who waits for what is found in it."""

    image: bytes = field(repr=False)
    answer: asyncio.Future[Answer]
    was_lost: bool = False
    given_at: float = 0.0


@dataclass(frozen=True)
class PoolConfig:
    """What a pool is to be.

    :param name: of the model, for messages: project and version.
    :param threads: of each replica's network.
    :param queue_per_unit: the most requests that wait, for each replica that there may be.
    """

    name: str
    artifact: bytes
    cache: Path
    min_units: int
    max_units: int
    threads: int
    queue_per_unit: int


@dataclass(eq=False)
class _Replica:
    process: asyncio.subprocess.Process
    requests: deque[Request] = field(default_factory=deque)
    ready: bool = False
    retired: bool = False

    def give(self, request: Request) -> None:
        request.given_at = time.monotonic()
        self.requests.append(request)
        self.send(request.image)

    def send(self, content: bytes) -> None:
        # At most DEPTH images are on their way, so what the pipe doesn't take yet is little.
        assert self.process.stdin is not None  # noqa: S101 (a pipe was asked for)
        with suppress(OSError, RuntimeError):  # it has ended, and whoever listens to it will see
            self.process.stdin.write(frames.head(content))
            self.process.stdin.write(content)

    def retire(self) -> None:
        """No more requests: it ends when it has answered."""
        self.retired = True
        if self.process.stdin is not None:
            self.process.stdin.close()

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


class Pool:
    """The replicas of one hosted model.

    ``fault`` tells why its model can't be loaded, if it never could; ``failed_starts`` counts the replicas
    that have ended before they were ready, since one was.

    :param changed: called when a replica has become ready, or a fault has been found.
    """

    def __init__(self, config: PoolConfig, changed: Callable[[], None]) -> None:
        self.fault: str | None = None
        self.failed_starts = 0
        self._config, self._changed = config, changed
        self._replicas: list[_Replica] = []
        self._waiting: deque[Request] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._starting = 0
        self._was_ready = False
        self._seconds_an_image = 0.1
        self._busy_at = time.monotonic()
        self._closed = False
        for _ in range(config.min_units):
            self._start()

    @property
    def units(self) -> int:
        """How many replicas are ready."""
        return sum(replica.ready and not replica.retired for replica in self._replicas)

    @property
    def ready(self) -> bool:
        """Whether it has the least replicas that were asked for."""
        return self.units >= self._config.min_units

    @property
    def _working(self) -> int:
        """How many replicas there are, or are about to be, that aren't leaving."""
        return sum(not replica.retired for replica in self._replicas) + self._starting

    async def detect(self, image: bytes) -> Answer:
        """What a replica finds.

        :raises ThrottlingException: when too many wait already, saying when to come back.
        :raises ValidationException: when the image can't be used.
        :raises ConflictException: when the model is stopped meanwhile.
        :raises InternalServerException: when replicas die of it, or none answers in time.
        """
        if self._closed:
            raise stopped(self._config.name)
        if len(self._waiting) >= self._config.queue_per_unit * self._config.max_units:
            seconds = math.ceil(len(self._waiting) * self._seconds_an_image / max(1, self.units))
            raise ThrottlingException(
                f"The model {self._config.name} has as many requests waiting as its inference units allow",
                quota_code="queue_per_unit",
                retry_after=max(1, min(seconds, 60)),
            )
        request = Request(image, asyncio.get_running_loop().create_future())
        self._waiting.append(request)
        self._dispatch()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                answer = await request.answer
        except TimeoutError:
            raise InternalServerException(
                f"The model {self._config.name} has not answered within {ANSWER_SECONDS:g} seconds",
                RetryAfterSeconds=1,
            ) from None
        finally:
            if request in self._waiting:  # whoever asked has gone
                self._waiting.remove(request)
        if "invalid" in answer.members:
            raise ValidationException(f"Body can't be used: {answer.members['invalid']}")
        if "error" in answer.members:
            log.error("a replica met an error", extra={"model": self._config.name, **answer.members})
            raise InternalServerException(
                f"The model {self._config.name} met an error with this image; the service's log tells which"
            )
        return answer

    def maintain(self) -> None:
        """What is to be done from time to time: end what hangs, take away what has nothing to do."""
        now = time.monotonic()
        for replica in self._replicas:
            if replica.requests and now - replica.requests[0].given_at > ANSWER_SECONDS:
                log.error("a replica hangs and is killed", extra={"model": self._config.name})
                replica.kill()
        working = [replica for replica in self._replicas if not replica.retired]
        if self._waiting or all(replica.requests for replica in working):
            self._busy_at = now
        elif now - self._busy_at > _IDLE_SECONDS and len(working) > self._config.min_units:
            self._busy_at = now
            idle = next(replica for replica in reversed(working) if not replica.requests)
            log.info("an inference unit is taken away", extra={"model": self._config.name})
            idle.retire()

    async def close(self) -> None:
        """End every replica; who still waits is told that the model has been stopped."""
        self._closed = True
        for request in self._waiting:
            _settle(request, stopped(self._config.name))
        self._waiting.clear()
        for replica in self._replicas:
            for request in replica.requests:
                _settle(request, stopped(self._config.name))
            replica.kill()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _dispatch(self) -> None:
        while self._waiting:
            free = [r for r in self._replicas if r.ready and not r.retired and len(r.requests) < DEPTH]
            if not free:
                break
            min(free, key=lambda replica: len(replica.requests)).give(self._waiting.popleft())
        # One after another: by the time that it is ready, the next may not be needed.
        settled = self.ready and not self._starting and all(replica.ready for replica in self._replicas)
        if self._waiting and settled and self._working < self._config.max_units:
            log.info("an inference unit is added", extra={"model": self._config.name})
            self._busy_at = time.monotonic()
            self._start()

    def _start(self) -> None:
        self._starting += 1
        pause = min(2.0**self.failed_starts - 1, _LONGEST_PAUSE_SECONDS)
        task = asyncio.get_running_loop().create_task(self._live(pause))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _live(self, pause: float) -> None:
        """A replica from its start to its end, and what follows from that."""
        replica = None
        try:
            try:
                await asyncio.sleep(pause)
                spawning = asyncio.ensure_future(self._spawn())
                try:
                    await asyncio.shield(spawning)
                finally:  # what has been born is to be ended, even if this is cancelled meanwhile
                    replica = _Replica(await spawning)
            finally:
                self._starting -= 1
            self._replicas.append(replica)
            replica.send(self._config.artifact)
            await self._listen(replica)
        except OSError as error:
            log.error("a replica can't be started", extra={"model": self._config.name, "reason": str(error)})
        except Exception:  # whatever it was, who waits for this replica must not wait for ever
            log.exception("a replica is given up", extra={"model": self._config.name})
        finally:
            if replica is not None:
                replica.kill()
                if replica in self._replicas:
                    self._replicas.remove(replica)
                await replica.process.wait()
        if not self._closed:
            self._bury(replica)

    async def _spawn(self) -> asyncio.subprocess.Process:
        command = [sys.executable, "-m", _MODULE, str(self._config.cache), str(self._config.threads)]
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, start_new_session=True)

    async def _listen(self, replica: _Replica) -> None:
        assert replica.process.stdout is not None  # noqa: S101 (a pipe was asked for)
        with suppress(asyncio.IncompleteReadError, TimeoutError):
            async with asyncio.timeout(_START_SECONDS):
                first = await frames.read_answer(replica.process.stdout)
            if fault := first.members.get("fault"):
                log.error("a replica can't be used", extra={"model": self._config.name, "reason": fault})
                if not self._was_ready:  # else it isn't the model's fault, and may pass
                    self.fault = str(fault)
                    self._changed()
                return
            replica.ready = self._was_ready = True
            self.failed_starts = 0
            log.info("an inference unit is ready", extra={"model": self._config.name, "units": self.units})
            self._changed()
            self._dispatch()
            while True:
                answer = await frames.read_answer(replica.process.stdout)
                request = replica.requests.popleft()
                taken = time.monotonic() - request.given_at
                self._seconds_an_image += 0.1 * (taken / DEPTH - self._seconds_an_image)
                if not request.answer.done():
                    request.answer.set_result(answer)
                self._dispatch()

    def _bury(self, replica: _Replica | None) -> None:
        """After a replica's end: pass on what it was doing, and put another in its place."""
        status = replica.process.returncode if replica else None
        lost = list(replica.requests) if replica else []
        for request in reversed(lost):
            if request.was_lost:
                fault = InternalServerException(
                    f"Two inference units of the model {self._config.name} ended while they looked at this "
                    "image; the service's log may tell why"
                )
                _settle(request, fault)
            elif not request.answer.done():
                request.was_lost = True
                self._waiting.appendleft(request)
        if replica is None or not replica.ready:
            self.failed_starts += 1
        if not (replica and replica.retired):
            log.error("an inference unit ended", extra={"model": self._config.name, "exit_status": status})
        if self._working < self._config.min_units:
            self._start()
        self._dispatch()


def stopped(name: str) -> ConflictException:
    """The refusal of an image for a model that has been stopped meanwhile."""
    return ConflictException(
        f"The model {name} has been stopped", resource_id=name, resource_type=ResourceType.MODEL
    )


def _settle(request: Request, error: Exception) -> None:
    if not request.answer.done():
        request.answer.set_exception(error)
