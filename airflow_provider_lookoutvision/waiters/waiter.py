"""Waiting for a state of the service: one rule for operators and triggers, with and without aiobotocore.

What is waited for stands in the API model's waiters: which operation to ask, and which of its answers is
success, failure, or a reason to ask again. Here is only the asking: how often, until when, what is logged,
and that a service which is restarted meanwhile doesn't end the wait.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_lookoutvision.model import API_VERSION, MODEL_PATH, SERVICE_NAME
from airflow_provider_lookoutvision.waiters.polling import ask, asker, has_aiobotocore
from airflow_provider_lookoutvision.waiters.transient import is_trouble

if TYPE_CHECKING:
    from airflow_provider_lookoutvision.hooks.lookoutvision import LookoutVisionHook

# What the service's StatusMessage begins with when the same request would fail again.
INVALID_INPUT = "Invalid input: "

# What asking again meets again.
_HOPELESS = frozenset({"AccessDeniedException", "NotImplementedException", "ValidationException"})
_REMIND_SECONDS = 300.0
# For the last question, which is asked when the time is up: one that is asked too late is better than none.
_LAST_SECONDS = 10.0


class WaitFailed(Exception):
    """The wait ended without the state that was waited for.

    ``status`` says why: ``input`` when the service finds the input at fault, so that trying again is in vain;
    ``timeout``; or ``error``.
    """

    def __init__(self, message: str, status: Literal["input", "timeout", "error"]) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Wait:
    """What to wait for, as data.

    :param waiter: a waiter of the API model, such as ``DatasetCreated``.
    :param arguments: the members of the operation that it asks.
    :param delay: seconds between two questions.
    :param max_attempts: the most questions, or as long as these take at that delay.
    :param passing: states that pass, though the waiter takes them for failures.
    """

    waiter: str
    arguments: Mapping[str, Any]
    delay: float
    max_attempts: int
    passing: Sequence[str] = ()

    @property
    def ends_at(self) -> float:
        """When a wait that begins now ends at the latest, in seconds since the epoch."""
        return time.time() + self.delay * self.max_attempts

    def check(self, hook: LookoutVisionHook, log: Any) -> Mapping[str, Any] | None:
        """Ask once, in this thread: the answer if the state has come, None while it may still.

        :raises WaitFailed: when it can't come any more.
        """
        return Progress(self, log).check(hook)

    def run(self, hook: LookoutVisionHook, log: Any, killed: Callable[[], bool] = lambda: False) -> None:
        """Wait in this thread.

        :param killed: whether nobody wants the state any more; asked once a second.
        :raises WaitFailed: when the state can't come any more, hasn't come in time, or isn't wanted.
        """
        progress = Progress(self, log)
        while not progress.check(hook):
            if progress.asked >= self.max_attempts:
                raise progress.too_late()
            next_at = time.monotonic() + self.delay
            while not killed() and (left := next_at - time.monotonic()) > 0:
                time.sleep(min(left, 1.0))
            if killed():
                raise progress.ended("is not waited for any more, since the task is killed", "error")

    async def run_async(
        self,
        make_hook: Callable[[], LookoutVisionHook],
        log: Any,
        connection: Hashable,
        ends_at: float | None = None,
    ) -> None:
        """Wait in an event loop, with aiobotocore where it is installed, and else asking from threads.

        The waits of one loop on one connection share a client, and the rate of their questions.

        :param make_hook: makes a hook for the connection.
        :param connection: equal for the waits that share.
        :param ends_at: when to give up, in seconds since the epoch; by default as late as if it began now.
        :raises WaitFailed: as ``run`` does.
        """
        deadline = self.ends_at if ends_at is None else ends_at
        progress = Progress(self, log, deadline)
        log.info("%s: asking %s", self.waiter, "with aiobotocore" if has_aiobotocore() else "from threads")
        async with asker(make_hook, connection) as shared:
            while True:
                most = max(deadline - time.time(), _LAST_SECONDS)
                try:
                    async with asyncio.timeout(most):
                        answer = await shared.ask(_method(self.waiter), self.arguments)
                except TimeoutError as error:
                    raise progress.too_late() from error
                if progress.see(answer):
                    return
                if time.time() >= deadline:
                    raise progress.too_late()
                await asyncio.sleep(min(self.delay, max(0.0, deadline - time.time())))


class Progress:
    """A wait that has begun: judges one answer after another, and tells of it.

    It is told at the first, whenever what is seen has changed, and every five minutes: who reads the log in
    the night sees what is waited for, its state and how far it is, for how long already, and that the wait is
    alive.

    :param ends_at: when it is to end, in seconds since the epoch; by default as late as if it began now.
    """

    def __init__(self, wait: Wait, log: Any, ends_at: float | None = None) -> None:
        self._wait, self._log = wait, log
        self._most = (wait.ends_at if ends_at is None else ends_at) - time.time()
        self._began = self._told_at = time.monotonic()
        self._told = ""
        self._name = f"{wait.waiter} of {'/'.join(map(str, wait.arguments.values()))}"
        self.asked = 0

    def check(self, hook: LookoutVisionHook) -> Mapping[str, Any] | None:
        """Ask once, in this thread: the answer if the state has come, None while it may still."""
        answer = ask(hook, _method(self._wait.waiter), self._wait.arguments)
        return answer if self.see(answer) else None

    def see(self, answer: Mapping[str, Any]) -> bool:
        """Whether the state has come; raises WaitFailed when it can't any more."""
        self.asked += 1
        state, told, message = _judge(self._wait, answer)
        if state == "success":
            waited = f", after {_time(self._seconds)}" if self.asked > 1 else ""
            self._log.info("%s: %s%s", self._name, told, waited)
            return True
        if state == "failure":
            code = answer.get("Error", {}).get("Code")
            hopeless = code in _HOPELESS or message.startswith(INVALID_INPUT)
            reason = f"{told}: {message}" if message else told
            raise WaitFailed(f"{self._name}: {reason}", "input" if hopeless else "error")
        seen = f"{told} ({message})" if message else told
        if not self._told:
            self._log.info(
                "Waiting for %s: %s; asking every %g s, for %s at most",
                *(self._name, seen, self._wait.delay, _time(self._most)),
            )
        elif told != self._told or time.monotonic() - self._told_at >= _REMIND_SECONDS:
            self._log.info("Waiting for %s: %s, for %s so far", self._name, seen, _time(self._seconds))
        else:
            return False
        self._told, self._told_at = told, time.monotonic()
        return False

    def too_late(self) -> WaitFailed:
        """The failure of a state that hasn't come in time."""
        return self.ended("has not come", "timeout")

    def ended(self, what: str, status: Literal["timeout", "error"]) -> WaitFailed:
        """The failure of a wait that ended before its time, or at it."""
        return WaitFailed(
            f"{self._name} {what}: asked {self.asked} times in {_time(self._seconds)}; last seen "
            f"{self._told or 'nothing'}",
            status,
        )

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._began


def _time(seconds: float) -> str:
    return str(timedelta(seconds=max(0, round(seconds))))


def cancel(hook: LookoutVisionHook, log: Any, operation: str, arguments: Mapping[str, Any]) -> None:
    """Stop what was waited for, by an operation; a failure is logged, since nobody is there to hear of it."""
    from botocore import xform_name

    name = "/".join(value for member, value in arguments.items() if member != "ClientToken")
    log.info("The task is killed: calling %s for %s", operation, name)
    try:
        getattr(hook.conn, xform_name(operation))(**arguments)
    except Exception as error:
        log.warning("%s of %s failed: %s", operation, name, error)


def _judge(wait: Wait, answer: Mapping[str, Any]) -> tuple[str, str, str]:
    """The state of the wait after an answer, what was seen, and the service's message about it."""
    error = answer.get("Error")
    description = next(
        (value for value in answer.values() if isinstance(value, dict) and "Status" in value), {}
    )
    told = f"{error['Code']} ({error.get('Message')})" if error else str(description.get("Status"))
    message = str(description.get("StatusMessage", ""))
    if is_trouble(answer) or description.get("Status") in wait.passing:
        return "retry", told, message
    for acceptor in _config(wait.waiter).acceptors:
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
