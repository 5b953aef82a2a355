"""One wait for a state of the service: the same rule for operators, sensors and triggers.

The API model's waiters say which operation is polled, and which of its responses are success, failure, or a
reason to poll again. This module adds how often and until when to poll, what is logged, and that a service
which restarts meanwhile doesn't end the wait.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_lookoutvision.model import API_VERSION, MODEL_PATH, SERVICE_NAME
from airflow_provider_lookoutvision.waiters.polling import has_aiobotocore, poll, shared_polling_client
from airflow_provider_lookoutvision.waiters.transient import error_code, is_retryable, is_transient

if TYPE_CHECKING:
    from airflow_provider_lookoutvision.hooks.lookoutvision import LookoutVisionHook

# A StatusMessage begins like this when the same request would fail again.
INVALID_INPUT = "Invalid input: "

_LOG_EVERY_SECONDS = 300.0
_BRIEF_DELAY_SECONDS = 1.0
# For the last request of a wait whose time is up: a late response is better than none.
_LAST_REQUEST_SECONDS = 10.0


class WaiterFailed(Exception):
    """A wait ended without the state that it waited for.

    :param status: ``timeout`` when the state didn't come in time, ``error`` when it can't come.
    :param retryable: whether a retry of the task may succeed.
    """

    def __init__(self, message: str, status: Literal["timeout", "error"], *, retryable: bool) -> None:
        super().__init__(message)
        self.status, self.retryable = status, retryable


@dataclass(frozen=True)
class WaiterSpec:
    """What to wait for, as data.

    :param waiter_name: a waiter of the API model, such as ``DatasetCreated``.
    :param waiter_args: the input of the operation that it polls.
    :param delay: seconds between two requests.
    :param max_attempts: the most requests, or the time that so many take at that delay.
    :param tolerated_states: states that end by themselves here, though the waiter takes them for failures.
    """

    waiter_name: str
    waiter_args: Mapping[str, Any]
    delay: float
    max_attempts: int
    tolerated_states: Sequence[str] = ()

    @property
    def operation(self) -> str:
        """The operation that the waiter polls."""
        return str(_config(self.waiter_name).operation)

    @property
    def end_time(self) -> float:
        """When a wait that begins now ends at the latest, in seconds since the epoch."""
        return time.time() + self.delay * self.max_attempts

    def run(self, hook: LookoutVisionHook, log: Any, is_killed: Callable[[], bool] = lambda: False) -> None:
        """Wait in this thread.

        :param is_killed: whether the task has been killed, and so may have cancelled the work.
        :raises WaiterFailed: when the state can't come any more, hasn't come in time, or the task is killed.
        """
        run = WaiterRun(self, log)
        while not run.check(hook, is_killed):
            if run.attempts >= self.max_attempts:
                raise run.timeout_error()
            run.pause(self.delay, is_killed)

    async def run_async(
        self,
        make_hook: Callable[[], LookoutVisionHook],
        log: Any,
        connection: Hashable,
        start_time: float | None = None,
        end_time: float | None = None,
    ) -> None:
        """Wait in an event loop, with aiobotocore where it is installed, else with boto3 in threads.

        The waits of one loop on one connection share a client and a rate limit.

        :param make_hook: makes a hook for the connection.
        :param connection: equal for the waits that share.
        :param start_time: when the wait began, in seconds since the epoch; by default now.
        :param end_time: when to give up, in seconds since the epoch; by default that of a wait that begins
            now.
        :raises WaiterFailed: as ``run`` does.
        """
        end_time = self.end_time if end_time is None else end_time
        run = WaiterRun(self, log, end_time, start_time)
        log.info("%s: polling with %s", self.waiter_name, "aiobotocore" if has_aiobotocore() else "threads")
        async with shared_polling_client(make_hook, connection) as client:
            while True:
                try:
                    async with asyncio.timeout(max(end_time - time.time(), _LAST_REQUEST_SECONDS)):
                        response = await client.poll(_method(self.waiter_name), self.waiter_args)
                except TimeoutError as error:
                    raise run.timeout_error() from error
                if run.evaluate(response):
                    return
                if time.time() >= end_time:
                    raise run.timeout_error()
                await asyncio.sleep(min(self.delay, max(0.0, end_time - time.time())))


class WaiterRun:
    """A wait that has begun: evaluates one response after another, and logs what it sees.

    It logs the first status, each change, and a line every five minutes: what is waited for, its status, and
    for how long already. A service that is away, throttles or is at fault is a warning.

    :param end_time: when it is to end, in seconds since the epoch; by default that of a wait that begins now.
    :param start_time: when it began, perhaps in another process, in seconds since the epoch; by default now.
    """

    def __init__(
        self, spec: WaiterSpec, log: Any, end_time: float | None = None, start_time: float | None = None
    ) -> None:
        self.spec, self._log = spec, log
        self._longest = (spec.end_time if end_time is None else end_time) - time.time()
        self._logged_at = time.monotonic()
        age = 0.0 if start_time is None else max(0.0, time.time() - start_time)
        self._began = self._logged_at - age
        self._is_continued = age >= 1  # a process before this one has waited
        self._name = f"{spec.waiter_name} of {'/'.join(map(str, spec.waiter_args.values()))}"
        self.last_status = ""
        self._is_outage = False
        self.attempts = 0

    def check(
        self, hook: LookoutVisionHook, is_killed: Callable[[], bool] = lambda: False
    ) -> Mapping[str, Any] | None:
        """Poll once, from this thread: the response if the state has come, None if it may still come."""
        response = poll(hook, _method(self.spec.waiter_name), self.spec.waiter_args)
        try:
            return response if self.evaluate(response) else None
        except WaiterFailed as failure:
            if is_killed():  # and has cancelled the work itself, so that a retry is not in vain
                raise self.killed_error() from failure
            raise

    def wait_briefly(
        self, seconds: float, hook: LookoutVisionHook, is_killed: Callable[[], bool] = lambda: False
    ) -> Mapping[str, Any] | None:
        """Wait for so long in this thread: the response if the state has come, None if it may still come.

        It polls at once, and then every second. When the service is away, it leaves the rest of the wait to
        where others wait for it too.
        """
        until = time.monotonic() + seconds
        while not (response := self.check(hook, is_killed)):
            left = until - time.monotonic()
            if left <= 0 or self._is_outage:
                return None
            self.pause(min(self.spec.delay, _BRIEF_DELAY_SECONDS, left), is_killed)
        return response

    def pause(self, seconds: float, is_killed: Callable[[], bool]) -> None:
        """Sleep between two polls.

        :raises WaiterFailed: when the task is killed.
        """
        until = time.monotonic() + seconds
        while not is_killed() and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 1.0))
        if is_killed():
            raise self.killed_error()

    def evaluate(self, response: Mapping[str, Any]) -> bool:
        """Whether the state has come.

        :raises WaiterFailed: when it can't come any more.
        """
        self.attempts += 1
        outcome, status, message = _outcome(self.spec, response)
        if outcome == "success":
            waited = f", after {_time(self._seconds)}" if self.attempts > 1 or self._is_continued else ""
            self._log.info("%s: %s%s", self._name, status, waited)
            return True
        if outcome == "failure":
            retryable = is_retryable(response) and not message.startswith(INVALID_INPUT)
            reason = f"{status}: {message}" if message else status
            raise WaiterFailed(f"{self._name}: {reason}", "error", retryable=retryable)
        shown = f"{status} ({message})" if message else status
        self._is_outage = is_transient(response)
        log = self._log.warning if self._is_outage else self._log.info
        so_far = f", for {_time(self._seconds)} so far" if self.last_status or self._is_continued else ""
        if not self.last_status:
            log(
                "Waiting for %s: %s%s; polling every %g s, for %s at most",
                *(self._name, shown, so_far, self.spec.delay, _time(self._longest)),
            )
        elif status != self.last_status or time.monotonic() - self._logged_at >= _LOG_EVERY_SECONDS:
            log("Waiting for %s: %s%s", self._name, shown, so_far)
        else:
            return False
        self.last_status, self._logged_at = status, time.monotonic()
        return False

    def timeout_error(self) -> WaiterFailed:
        """The state hasn't come in time."""
        return WaiterFailed(self._ended("timed out"), "timeout", retryable=True)

    def killed_error(self) -> WaiterFailed:
        """The task was killed before the state came."""
        how = "is not waited for any more: the task is killed"
        return WaiterFailed(self._ended(how), "error", retryable=True)

    def _ended(self, how: str) -> str:
        polled = f"polled {self.attempts} times, last status {self.last_status or 'unknown'}"
        return f"{self._name} {how}, after {_time(self._seconds)}; {polled}"

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._began


def cancel(
    hook: LookoutVisionHook,
    log: Any,
    operation: str,
    arguments: Mapping[str, Any],
    called: Callable[[], Any] = lambda: None,
) -> None:
    """Stop the work of a killed task by calling an operation; a failure is only logged.

    :param called: called when the service has answered, before that is logged.
    """
    from botocore import xform_name

    name = "/".join(value for member, value in arguments.items() if member != "ClientToken")
    try:
        try:
            getattr(hook.conn, xform_name(operation))(**arguments)
        finally:
            called()
    except Exception as error:
        log.warning("The task is killed, and %s of %s failed: %s", operation, name, error)
    else:
        log.info("The task is killed: called %s for %s", operation, name)


def _outcome(spec: WaiterSpec, response: Mapping[str, Any]) -> tuple[str, str, str]:
    """``success``, ``failure`` or ``retry``; the status, for the log; and the service's message about it."""
    error = response.get("Error")
    description = next(
        (value for value in response.values() if isinstance(value, dict) and "Status" in value), {}
    )
    status = f"{error_code(response)} ({error.get('Message')})" if error else str(description.get("Status"))
    message = str(description.get("StatusMessage", ""))
    if is_transient(response) or description.get("Status") in spec.tolerated_states:
        return "retry", status, message
    for acceptor in _config(spec.waiter_name).acceptors:
        if acceptor.matcher_func(response):
            # Of what is waited for to be deleted, this error is the end.
            gone = acceptor.state == "success" and error_code(response) == "ResourceNotFoundException"
            return acceptor.state, "gone" if gone else status, message
    return ("failure" if error else "retry"), status, message


def _time(seconds: float) -> str:
    return str(timedelta(seconds=max(0, round(seconds))))


@cache
def _config(waiter_name: str) -> Any:
    from botocore.waiter import WaiterModel

    from airflow_provider_lookoutvision.model.loader import SharedLoader

    waiters = SharedLoader([MODEL_PATH]).load_service_model(SERVICE_NAME, "waiters-2", API_VERSION)
    return WaiterModel(waiters).get_waiter(waiter_name)


def _method(waiter_name: str) -> str:
    from botocore import xform_name

    return str(xform_name(_config(waiter_name).operation))
