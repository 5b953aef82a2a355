"""The pool of one hosted model: its replicas, its queue of requests, and how many replicas there are.

Everything here runs in the thread of the event loop. A request goes to the replica with the fewest requests,
or waits; when the queue is full, it is refused. Replicas are added, up to the maximum, while requests wait,
and removed after a while with nothing to do. A replica that dies is replaced, and its requests are given to
another, once.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from airflow_provider_lookoutvision.server import logs, metrics
from airflow_provider_lookoutvision.server.hosting import frames
from airflow_provider_lookoutvision.server.hosting.errors import (
    ANSWER_SECONDS,
    checked,
    model_stopped,
    not_answered,
    queue_is_full,
)
from airflow_provider_lookoutvision.server.hosting.frames import DEPTH, Answer, Options
from airflow_provider_lookoutvision.server.hosting.replica_process import ReplicaProcess, Request, spawn
from airflow_provider_lookoutvision.server.protocol.errors import InternalServerException

_START_SECONDS = 120.0
IDLE_SECONDS = 60.0
_MAX_RESTART_DELAY_SECONDS = 30.0
_MAX_FAILED_STARTS = 3
AS_TRAINED = Options()

log = logging.getLogger("lookoutvision")


class Deployment(NamedTuple):
    """One start of one model."""

    model_id: int
    number: int


@dataclass(frozen=True)
class PoolConfig:
    """The configuration of a pool.

    :param name: of the model, for messages: project and version.
    :param threads: of each replica's network.
    :param queue_per_unit: the length of the queue, for each of ``max_units``.
    """

    name: str
    deployment: Deployment
    artifact: bytes
    cache: Path
    min_units: int
    max_units: int
    threads: int
    queue_per_unit: int


@dataclass(frozen=True)
class Load:
    """How many replicas are ready, how many images they have, and how many wait for one."""

    units: int
    busy: int
    waiting: int


class Pool:
    """The replicas of one hosted model.

    ``fault`` is the reason why the model can't be loaded, if it never was; ``failed_starts`` counts the
    replicas that ended before they were ready, since the last one that was.

    :param on_change: called when a replica is ready, or the model can't be loaded.
    """

    def __init__(self, config: PoolConfig, on_change: Callable[[], None]) -> None:
        self.fault: str | None = None
        self.failed_starts = 0
        self._config, self._on_change = config, on_change
        self._replicas: list[ReplicaProcess] = []
        self._waiting: deque[Request] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._starting = 0
        self._has_been_ready = False
        self._seconds_per_image = 0.1
        self._last_busy = time.monotonic()
        self._closed = False
        for _ in range(config.min_units):
            self._start()

    @property
    def start_fault(self) -> str | None:
        """Why no replica becomes ready: ``fault``, or so many in a row that ended before."""
        if self.fault or self.failed_starts < _MAX_FAILED_STARTS:
            return self.fault
        return f"an inference unit ended {self.failed_starts} times before it was ready"

    @property
    def units(self) -> int:
        """How many replicas are ready."""
        return sum(replica.ready and not replica.retired for replica in self._replicas)

    @property
    def load(self) -> Load:
        """What the replicas have to do right now."""
        busy = sum(len(replica.requests) for replica in self._replicas)
        return Load(self.units, busy, len(self._waiting))

    @property
    def ready(self) -> bool:
        """Whether ``min_units`` replicas are ready."""
        return self.units >= self._config.min_units

    @property
    def _active(self) -> int:
        """How many replicas run or start, without those that are retired."""
        return sum(not replica.retired for replica in self._replicas) + self._starting

    async def detect(self, image: bytes, options: Options = AS_TRAINED) -> Answer:
        """The answer of a replica.

        :raises ThrottlingException: when the queue is full, with the time to wait.
        :raises ValidationException: when the image can't be used.
        :raises ConflictException: when the model is stopped meanwhile.
        :raises InternalServerException: when two replicas die of it, or none answers in time.
        """
        return checked(self._config.name, await self.answer(image, options))

    async def answer(self, image: bytes, options: Options = AS_TRAINED) -> Answer:
        """The answer of a replica, also that an image can't be used; raises what else ``detect`` raises."""
        if self._closed:
            raise model_stopped(self._config.name)
        if len(self._waiting) >= self._config.queue_per_unit * self._config.max_units:
            seconds = math.ceil(len(self._waiting) * self._seconds_per_image / max(1, self.units))
            raise queue_is_full(self._config.name, seconds)
        request = Request(image, options, asyncio.get_running_loop().create_future())
        self._waiting.append(request)
        self._dispatch()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await request.answer
        except TimeoutError:
            raise not_answered(self._config.name) from None
        finally:
            if request in self._waiting:  # the client has gone
                self._waiting.remove(request)

    def maintain(self) -> None:
        """Kill replicas that hang, and retire an idle one; to be called from time to time."""
        now = time.monotonic()
        for replica in self._replicas:
            if replica.requests and now - replica.requests[0].assigned_at > ANSWER_SECONDS:
                log.error("a replica hangs and is killed", extra={"model": self._config.name})
                replica.kill()
        active = [replica for replica in self._replicas if not replica.retired]
        if self._waiting or all(replica.requests for replica in active):
            self._last_busy = now
        elif now - self._last_busy > IDLE_SECONDS and len(active) > self._config.min_units:
            self._last_busy = now
            idle = next(replica for replica in reversed(active) if not replica.requests)
            log.info("an inference unit is removed", extra={"model": self._config.name})
            idle.retire()

    async def release(self) -> None:
        """End the replicas with their process; the model stays hosted."""
        await self.close()

    async def close(self) -> None:
        """End every replica, and fail the waiting requests with the error that the model was stopped."""
        self._closed = True
        for request in self._waiting:
            request.fail(model_stopped(self._config.name))
        self._waiting.clear()
        for replica in self._replicas:
            for request in replica.requests:
                request.fail(model_stopped(self._config.name))
            replica.kill()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _dispatch(self) -> None:
        while self._waiting:
            free = [r for r in self._replicas if r.ready and not r.retired and len(r.requests) < DEPTH]
            if not free:
                break
            min(free, key=lambda replica: len(replica.requests)).assign(self._waiting.popleft())
        # One at a time: when it is ready, another may not be needed.
        stable = self.ready and not self._starting and all(replica.ready for replica in self._replicas)
        if self._waiting and stable and self._active < self._config.max_units:
            log.info("an inference unit is added", extra={"model": self._config.name})
            self._last_busy = time.monotonic()
            self._start()

    def _start(self) -> None:
        self._starting += 1
        delay = min(2.0**self.failed_starts - 1, _MAX_RESTART_DELAY_SECONDS)
        task = asyncio.get_running_loop().create_task(self._run_replica(delay))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run_replica(self, delay: float) -> None:
        """A replica from its start to its end."""
        replica, relay = None, None
        try:
            try:
                await asyncio.sleep(delay)
                spawning = asyncio.ensure_future(spawn(self._config.cache, self._config.threads))
                try:
                    await asyncio.shield(spawning)
                finally:  # a process that was started must be ended, even if this is cancelled meanwhile
                    replica = ReplicaProcess(await spawning)
                    relay = asyncio.create_task(self._relay_log(replica))
            finally:
                self._starting -= 1
            self._replicas.append(replica)
            replica.send(frames.artifact_prefix(self._config.artifact), self._config.artifact)
            await self._read_answers(replica)
        except OSError as error:
            log.error("a replica can't be started", extra={"model": self._config.name, "reason": str(error)})
        except Exception:  # whatever it was, the requests of this replica must not wait for ever
            log.exception("a replica failed", extra={"model": self._config.name})
        finally:
            if replica is not None:
                replica.kill()
                if replica in self._replicas:
                    self._replicas.remove(replica)
                await replica.process.wait()
            if relay is not None:
                await relay  # what it has said at its end, while its requests are known
        if not self._closed:
            self._handle_exit(replica)

    async def _relay_log(self, replica: ReplicaProcess) -> None:
        assert replica.process.stderr is not None  # noqa: S101 (a pipe was asked for)
        await logs.relay_async(replica.process.stderr, partial(self._about, replica))

    def _about(self, replica: ReplicaProcess) -> dict[str, Any]:
        requests = [request.request_id for request in replica.requests if request.request_id]
        return {"model": self._config.name, "pid": replica.process.pid, "requests": requests or None}

    async def _read_answers(self, replica: ReplicaProcess) -> None:
        assert replica.process.stdout is not None  # noqa: S101 (a pipe was asked for)
        with suppress(asyncio.IncompleteReadError, TimeoutError):
            async with asyncio.timeout(_START_SECONDS):
                first = await frames.read_answer(replica.process.stdout)
            if fault := first.members.get("fault"):
                log.error("a replica can't be used", extra={"model": self._config.name, "reason": fault})
                if not self._has_been_ready:  # otherwise the model isn't the cause, and the fault may pass
                    self.fault = str(fault)
                    self._on_change()
                return
            replica.ready = self._has_been_ready = True
            self.failed_starts = 0
            log.info("an inference unit is ready", extra={"model": self._config.name, "units": self.units})
            self._on_change()
            self._dispatch()
            while True:
                answer = await frames.read_answer(replica.process.stdout)
                request = replica.requests.popleft()
                seconds = time.monotonic() - request.assigned_at
                self._seconds_per_image += 0.1 * (seconds / DEPTH - self._seconds_per_image)
                if not request.answer.done():
                    request.answer.set_result(answer)
                self._dispatch()

    def _handle_exit(self, replica: ReplicaProcess | None) -> None:
        """After a replica's end: give its requests to others, and start another in its place."""
        status = replica.process.returncode if replica else None
        unanswered = list(replica.requests) if replica else []
        for request in reversed(unanswered):
            if request.retried:
                fault = InternalServerException(
                    f"Two inference units of the model {self._config.name} ended while they processed "
                    "this image; the service's log may say why"
                )
                request.fail(fault)
            elif not request.answer.done():
                request.retried = True
                self._waiting.appendleft(request)
        if replica is None or not replica.ready:
            self.failed_starts += 1
        if not (replica and replica.retired):
            requests = [request.request_id for request in unanswered if request.request_id]
            metrics.UNIT_ENDS.inc()
            log.error(
                "an inference unit ended",
                extra={
                    "model": self._config.name,
                    "exit_status": status,
                    "pid": replica.process.pid if replica else None,
                    "requests": requests or None,
                },
            )
        if self._active < self._config.min_units:
            self._start()
        self._dispatch()
