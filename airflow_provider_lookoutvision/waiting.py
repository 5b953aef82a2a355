"""Waiting for a state of the service: one rule for operators and triggers, with and without aiobotocore.

What is waited for stands in the API model's waiters: which operation to ask, and which of its answers is
success, failure, or a reason to ask again. Here is only the asking: how often, until when, what is logged,
and that a service which is restarted meanwhile doesn't end the wait.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_lookoutvision.asking import UNANSWERED, ask, asker, has_aiobotocore
from airflow_provider_lookoutvision.model import API_VERSION, MODEL_PATH, SERVICE_NAME

if TYPE_CHECKING:
    from airflow_provider_lookoutvision.hooks.lookoutvision import LookoutVisionHook

# What the service's StatusMessage begins with when the same request would fail again.
INVALID_INPUT = "Invalid input: "


class WaitFailed(Exception):
    """The wait ended without the state that was waited for.

    ``input`` is true when the service says that the input was at fault: then trying again is in vain.
    """

    def __init__(self, message: str, *, input: bool = False) -> None:  # noqa: A002 (as in "input or machine")
        super().__init__(message)
        self.input = input


@dataclass(frozen=True)
class Wait:
    """What to wait for, as data.

    :param waiter: a waiter of the API model, such as ``DatasetCreated``.
    :param arguments: the members of the operation that it asks.
    :param delay: seconds between two questions.
    :param max_attempts: the most questions, or as long as these take at that delay.
    """

    waiter: str
    arguments: Mapping[str, Any]
    delay: float
    max_attempts: int

    @property
    def ends_at(self) -> float:
        """When a wait that begins now ends at the latest, in seconds since the epoch."""
        return time.time() + self.delay * self.max_attempts

    def check(self, hook: LookoutVisionHook, log: Any) -> Mapping[str, Any] | None:
        """Ask once, in this thread: the answer if the state has come, None while it may still.

        :raises WaitFailed: when it can't come any more.
        """
        answer = ask(hook, _method(self.waiter), self.arguments)
        return answer if _Progress(self, log).see(answer) else None

    def run(self, hook: LookoutVisionHook, log: Any) -> None:
        """Wait in this thread.

        :raises WaitFailed: when the state can't come any more, or hasn't come in time.
        """
        progress = _Progress(self, log)
        while not progress.see(ask(hook, _method(self.waiter), self.arguments)):
            if progress.asked >= self.max_attempts:
                raise progress.too_late()
            time.sleep(self.delay)

    async def run_async(
        self, hook: LookoutVisionHook, log: Any, connection: Hashable, ends_at: float | None = None
    ) -> None:
        """Wait in an event loop, with aiobotocore where it is installed, and else asking from threads.

        The waits of one loop on one connection share a client, and the rate of their questions.

        :param connection: equal for the waits that share.
        :param ends_at: when to give up, in seconds since the epoch; by default as late as if it began now.
        :raises WaitFailed: as ``run`` does.
        """
        deadline = self.ends_at if ends_at is None else ends_at
        progress = _Progress(self, log)
        log.info("%s: asking %s", self.waiter, "with aiobotocore" if has_aiobotocore() else "from threads")
        async with asker(hook, connection) as shared:
            while not progress.see(await shared.ask(_method(self.waiter), self.arguments)):
                if time.time() >= deadline:
                    raise progress.too_late()
                await asyncio.sleep(min(self.delay, max(0.0, deadline - time.time())))


class _Progress:
    """Judges one answer after another."""

    def __init__(self, wait: Wait, log: Any) -> None:
        self._wait, self._log = wait, log
        self._began = time.monotonic()
        self._told = ""
        self.asked = 0

    def see(self, answer: Mapping[str, Any]) -> bool:
        """Whether the state has come; raises WaitFailed when it can't any more."""
        self.asked += 1
        state, told, message = _judge(self._wait.waiter, answer)
        name, seconds = self._wait.waiter, time.monotonic() - self._began
        if state == "success":
            self._log.info("%s: %s, after %.0f s", name, told, seconds)
            return True
        if state == "failure":
            reason = f"{told}: {message}" if message else told
            raise WaitFailed(reason, input=message.startswith(INVALID_INPUT))
        if told != self._told:
            self._told = told
            about = " ".join(map(str, self._wait.arguments.values()))
            self._log.info(
                "%s of %s: waiting for %.0f s, %s; asking every %g s",
                *(name, about, seconds, told, self._wait.delay),
            )
        return False

    def too_late(self) -> WaitFailed:
        """The failure of a state that hasn't come in time."""
        seconds = time.monotonic() - self._began
        return WaitFailed(
            f"{self._wait.waiter} has not come: asked {self.asked} times in {seconds:.0f} s; "
            f"last seen {self._told}. Raise waiter_max_attempts or waiter_delay to wait for longer"
        )


def _judge(waiter: str, answer: Mapping[str, Any]) -> tuple[str, str, str]:
    """The waiter's state for an answer, what was seen, and the service's message about it."""
    error = answer.get("Error")
    description = next(
        (value for value in answer.values() if isinstance(value, dict) and "Status" in value), {}
    )
    told = f"{error['Code']} ({error.get('Message')})" if error else str(description.get("Status"))
    message = str(description.get("StatusMessage", ""))
    if error and error["Code"] == UNANSWERED:
        return "retry", told, message
    for acceptor in _config(waiter).acceptors:
        if acceptor.matcher_func(answer):
            return acceptor.state, told, message
    return ("failure" if error else "retry"), told, message


@cache
def _config(waiter: str) -> Any:
    from botocore.waiter import WaiterModel

    path = Path(MODEL_PATH) / SERVICE_NAME / API_VERSION / "waiters-2.json"
    return WaiterModel(json.loads(path.read_text())).get_waiter(waiter)


def _method(waiter: str) -> str:
    from botocore import xform_name

    return str(xform_name(_config(waiter).operation))
