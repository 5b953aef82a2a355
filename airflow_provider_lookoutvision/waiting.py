"""Waiting for a state of the service: one rule for operators and triggers, with and without aiobotocore.

What is waited for stands in the API model's waiters: which operation to ask, and which of its answers is
success, failure, or a reason to ask again. Here is only the asking: how often, what is logged, and that a
service which is restarted meanwhile doesn't end the wait.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    :param max_attempts: the most questions.
    """

    waiter: str
    arguments: Mapping[str, Any]
    delay: float
    max_attempts: int

    def run(self, hook: LookoutVisionHook, log: Any) -> None:
        """Wait in this thread.

        :raises WaitFailed: when the state can't come any more, or hasn't come in time.
        """
        progress = _Progress(self, log)
        while not progress.see(_ask(hook, self)):
            time.sleep(self.delay)

    async def run_async(self, hook: LookoutVisionHook, log: Any) -> None:
        """Wait in an event loop, with aiobotocore where it is installed, and else asking from threads.

        :raises WaitFailed: as ``run`` does.
        """
        progress = _Progress(self, log)
        log.info("%s: asking %s", self.waiter, "with aiobotocore" if _has_aiobotocore() else "from threads")
        async with _asking(hook, self) as ask:
            while not progress.see(await ask()):  # noqa: ASYNC110 (nothing here could set an event)
                await asyncio.sleep(self.delay)


class _Progress:
    """Judges one answer after another."""

    def __init__(self, wait: Wait, log: Any) -> None:
        self._wait, self._log = wait, log
        self._asked = 0
        self._told = ""

    def see(self, answer: Mapping[str, Any]) -> bool:
        """Whether the state has come; raises WaitFailed when it can't any more."""
        self._asked += 1
        state, told, message = _judge(self._wait.waiter, answer)
        if state == "success":
            self._log.info("%s: %s", self._wait.waiter, told)
            return True
        if state == "failure":
            reason = f"{told}: {message}" if message else told
            raise WaitFailed(reason, input=message.startswith(INVALID_INPUT))
        if self._asked >= self._wait.max_attempts:
            raise WaitFailed(
                f"{self._wait.waiter} has not come: asked {self._asked} times, {self._wait.delay:g} s apart; "
                f"last seen {told}. Raise waiter_max_attempts or waiter_delay to wait for longer"
            )
        if told != self._told:
            self._told = told
            self._log.info("%s: waiting, %s; asking every %g s", self._wait.waiter, told, self._wait.delay)
        return False


def _judge(waiter: str, answer: Mapping[str, Any]) -> tuple[str, str, str]:
    """The waiter's state for an answer, what was seen, and the service's message about it."""
    error = answer.get("Error")
    description = next(
        (value for value in answer.values() if isinstance(value, dict) and "Status" in value), {}
    )
    told = f"{error['Code']} ({error.get('Message')})" if error else str(description.get("Status"))
    message = str(description.get("StatusMessage", ""))
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


def _has_aiobotocore() -> bool:
    return find_spec("aiobotocore") is not None


def _unanswered(error: Exception) -> dict[str, Any]:
    # A service that is being restarted says nothing for a moment: that is a reason to ask again.
    return {"Error": {"Code": "ThrottlingException", "Message": str(error)}}


def _ask(hook: LookoutVisionHook, wait: Wait) -> Mapping[str, Any]:
    from botocore import exceptions

    try:
        answer: dict[str, Any] = getattr(hook.conn, _method(wait.waiter))(**wait.arguments)
    except exceptions.ClientError as error:
        refusal: dict[str, Any] = error.response
        return refusal
    except (exceptions.ConnectionError, exceptions.HTTPClientError) as error:
        return _unanswered(error)
    return answer


@asynccontextmanager
async def _asking(
    hook: LookoutVisionHook, wait: Wait
) -> AsyncIterator[Callable[[], Awaitable[Mapping[str, Any]]]]:
    from botocore import exceptions

    if not _has_aiobotocore():
        yield lambda: asyncio.to_thread(_ask, hook, wait)
        return
    async with await hook.get_async_conn() as client:  # type: ignore[no-untyped-call]

        async def ask() -> Mapping[str, Any]:
            try:
                answer: dict[str, Any] = await getattr(client, _method(wait.waiter))(**wait.arguments)
            except exceptions.ClientError as error:
                refusal: dict[str, Any] = error.response
                return refusal
            except (exceptions.ConnectionError, exceptions.HTTPClientError) as error:
                return _unanswered(error)
            return answer

        yield ask
