"""The inference units of one hosted model: queue, scaling, deaths; with scripted replicas."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop
from service_processes import is_alive, processes

from airflow_provider_lookoutvision.server.hosting import pool as pool_module
from airflow_provider_lookoutvision.server.hosting import replica_process
from airflow_provider_lookoutvision.server.hosting.pool import Pool, PoolConfig
from airflow_provider_lookoutvision.server.protocol.errors import (
    ConflictException,
    InternalServerException,
    ThrottlingException,
    ValidationException,
)


@pytest.fixture(autouse=True)
def _scripted_replica(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica_process, "_MODULE", "scripted_replica")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))


def run(scenario: Coroutine[Any, Any, None]) -> None:
    """In an event loop as the service has it."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario)


class Gate:
    """What requests wait for, until it is opened."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "gate")

    def open(self) -> None:
        Path(self.path).touch()


def image(**instructions: Any) -> bytes:
    """What a scripted replica is to do."""
    return json.dumps(instructions).encode()


@asynccontextmanager
async def running(
    tmp_path: Path, units: int = 1, most: int = 0, queue: int = 4, artifact: bytes = b"{}", ready: bool = True
) -> AsyncIterator[Pool]:
    config = PoolConfig("p/1", (1, 1), artifact, tmp_path, units, max(units, most), 1, queue)
    pool = Pool(config, lambda: None)
    try:
        if ready:
            await wait_until(lambda: pool.ready)
        yield pool
    finally:
        pids = pids_of(pool)
        await pool.close()
        assert [pid for pid in pids if is_alive(pid)] == []


def pids_of(pool: Pool) -> list[int]:
    return [replica.process.pid for replica in pool._replicas]


async def wait_until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(150):
        while not condition():  # noqa: ASYNC110 (what is waited for is another process)
            await asyncio.sleep(0.01)


async def pid_answering(pool: Pool, **instructions: Any) -> int:
    """The process ID of the unit that answered."""
    return int((await pool.detect(image(**instructions))).members["by"])


def test_the_units_share_the_work(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, units=3) as pool:
            assert pool.units == 3
            gate = Gate(tmp_path)
            answers = [asyncio.create_task(pid_answering(pool, gate=gate.path)) for _ in range(6)]
            await wait_until(lambda: all(len(replica.requests) == 2 for replica in pool._replicas))
            gate.open()
            assert sorted(await asyncio.gather(*answers)) == sorted(pids_of(pool) * 2)

    run(scenario())


def test_a_unit_knows_no_secret_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOOKOUTVISION_SECRET_KEY", "LOOKOUTVISION_DATABASE_URL", "AWS_SECRET_ACCESS_KEY", "ANY"):
        monkeypatch.setenv(name, "s3cret")

    async def scenario() -> None:
        async with running(tmp_path) as pool:
            environs.append(await asyncio.to_thread(Path(f"/proc/{pids_of(pool)[0]}/environ").read_bytes))

    environs: list[bytes] = []
    run(scenario())
    assert b"PATH=" in environs[0]
    assert b"s3cret" not in environs[0]


def test_a_full_queue_refuses_and_says_when_to_retry(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, queue=3) as pool:
            gate = Gate(tmp_path)
            # Two are with the unit, three wait.
            answers = [asyncio.create_task(pid_answering(pool, gate=gate.path)) for _ in range(5)]
            await wait_until(lambda: len(pool._waiting) == 3)
            for _ in range(3):
                with pytest.raises(ThrottlingException) as caught:
                    await pool.detect(image())
                assert caught.value.members["QuotaCode"] == "queue_per_unit"
                assert 1 <= int(caught.value.members["RetryAfterSeconds"]) <= 60
            gate.open()
            assert len(await asyncio.gather(*answers)) == 5
            assert await pid_answering(pool)

    run(scenario())


def test_who_gives_up_leaves_the_queue(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, queue=1) as pool:
            gate = Gate(tmp_path)
            answers = [asyncio.create_task(pid_answering(pool, gate=gate.path)) for _ in range(3)]
            await wait_until(lambda: pool._waiting)
            for answer in answers:
                answer.cancel()
            await asyncio.gather(*answers, return_exceptions=True)
            assert not pool._waiting
            gate.open()
            # What was asked first is answered to nobody, and this to who asked it.
            assert (await pool.detect(image(answer={"mine": 1}))).members == {"mine": 1}

    run(scenario())


def test_units_are_added_while_requests_wait_and_taken_away_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "IDLE_SECONDS", 0.0)

    async def scenario() -> None:
        async with running(tmp_path, units=1, most=3) as pool:
            gate = Gate(tmp_path)
            answers = [asyncio.create_task(pid_answering(pool, gate=gate.path)) for _ in range(12)]
            await wait_until(lambda: pool.units == 3)
            # No more than the most, however many wait.
            assert (len(pool._replicas), pool._starting, bool(pool._waiting)) == (3, 0, True)
            gate.open()
            assert set(await asyncio.gather(*answers)) == set(pids_of(pool))
            while len(pool._replicas) > 1:
                pool.maintain()
                await asyncio.sleep(0.01)
            for _ in range(3):
                pool.maintain()
            # The least stay.
            assert (pool.units, await pid_answering(pool)) == (1, pids_of(pool)[0])

    run(scenario())


def test_a_unit_that_dies_is_replaced_and_its_request_done_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, units=2) as pool:
            before = set(pids_of(pool))
            once = str(tmp_path / "once")
            other = asyncio.create_task(pid_answering(pool, sleep=0.2))
            assert await pid_answering(pool, die=1, once=once)
            assert await other
            await wait_until(lambda: pool.units == 2)
            assert len(before & set(pids_of(pool))) == 1
            # Killed from outside, it is no different.
            killed = set(pids_of(pool))
            for pid in killed:
                os.killpg(pid, signal.SIGKILL)
            await wait_until(lambda: not killed & set(pids_of(pool)))
            assert await pid_answering(pool)
            await wait_until(lambda: pool.units == 2)

    run(scenario())


def test_an_image_that_kills_two_units_kills_no_third(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, units=2) as pool:
            with pytest.raises(InternalServerException, match="Two inference units of the model p/1 ended"):
                await pool.detect(image(die=1))
            await wait_until(lambda: pool.units == 2)
            assert await pid_answering(pool)

    run(scenario())


def test_a_unit_that_talks_nonsense_is_replaced(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as pool:
            [before] = pids_of(pool)
            assert await pid_answering(pool, garbage=1, once=str(tmp_path / "once")) != before
            assert not is_alive(before)

    run(scenario())


def test_a_unit_that_hangs_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "ANSWER_SECONDS", 0.3)

    async def scenario() -> None:
        async with running(tmp_path) as pool:
            [before] = pids_of(pool)
            with pytest.raises(InternalServerException, match="has not answered within"):
                await pool.detect(image(gate="/nothing"))

            def replaced() -> bool:
                pool.maintain()  # as the fleet does every second: the unit may hang a little less long
                return pool.ready and pids_of(pool) != [before]

            await wait_until(replaced)
            assert not is_alive(before)
            monkeypatch.setattr(pool_module, "ANSWER_SECONDS", 30.0)
            assert await pid_answering(pool)

    run(scenario())


def test_what_the_units_find_at_fault(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as pool:
            with pytest.raises(ValidationException, match="Body can't be used: it is no image"):
                await pool.detect(image(answer={"invalid": "it is no image"}))
            with pytest.raises(InternalServerException, match="failed on this image"):
                await pool.detect(image(answer={"error": "ZeroDivisionError"}))
            assert await pid_answering(pool)

    run(scenario())


def test_a_model_that_can_not_be_loaded(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, artifact=image(fault="it is damaged"), ready=False) as pool:
            await wait_until(lambda: pool.fault)
            assert (pool.fault, pool.ready) == ("it is damaged", False)

    run(scenario())


def test_units_that_die_before_they_are_ready_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "_MAX_RESTART_DELAY_SECONDS", 0.01)

    async def scenario() -> None:
        async with running(tmp_path, artifact=image(die=1), ready=False) as pool:
            await wait_until(lambda: pool.failed_starts >= 3)
            assert pool.fault is None

    run(scenario())


def test_a_fault_after_the_model_was_loaded_is_not_the_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "_MAX_RESTART_DELAY_SECONDS", 0.01)

    async def scenario() -> None:
        async with running(tmp_path) as pool:
            # The disk is full for a while, say: units can't start, and later can again.
            object.__setattr__(pool._config, "artifact", image(fault="No space left on device"))
            for pid in pids_of(pool):
                os.killpg(pid, signal.SIGKILL)
            await wait_until(lambda: pool.failed_starts >= 2)
            assert pool.fault is None
            object.__setattr__(pool._config, "artifact", b"{}")
            assert await pid_answering(pool)
            assert pool.failed_starts == 0

    run(scenario())


def test_requests_that_wait_when_the_model_is_stopped_fail(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as pool:
            answers = [asyncio.create_task(pool.detect(image(gate="/nothing"))) for _ in range(4)]
            await wait_until(lambda: len(pool._waiting) == 2)
            await pool.close()
            for answer in answers:
                with pytest.raises(ConflictException, match="has been stopped"):
                    await answer
            with pytest.raises(ConflictException, match="has been stopped"):
                await pool.detect(image())

    run(scenario())


@pytest.mark.parametrize("steps", [0, 1, 2, 5, 20])
def test_a_pool_that_is_closed_while_it_starts_leaves_nothing(steps: int, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, units=2, ready=False):
            for _ in range(steps):
                await asyncio.sleep(0.002)

    run(scenario())
    assert processes("scripted_replica", str(tmp_path)) == []
