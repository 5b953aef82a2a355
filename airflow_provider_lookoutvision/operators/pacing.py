"""Asking much of a service that may be busy: as fast as it takes it, and no faster.

Threads share one :class:`Pace`. When the service refuses a request for want of capacity, or can't be reached,
all of them wait for as long as it says (``Retry-After``), or for a second, two, four and so on, a random part
longer so that they don't come back as one; and half as many go on. Every hundred successes then let one more
in, up to all. (Additive increase, multiplicative decrease: Chiu and Jain, 1989.)
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from airflow.providers.common.compat.sdk import AirflowException

from airflow_provider_lookoutvision.waiters.transient import is_trouble, refusal, retry_after, status

Answer = TypeVar("Answer")

LONGEST_PAUSE_SECONDS = 30.0
PATIENCE_SECONDS = 300.0
MOST_FAULTS = 5
SUCCESSES_FOR_ONE_MORE = 100

log = logging.getLogger(__name__)


class Stopped(AirflowException):
    """The task was told to end."""


class Pace:
    """How many requests may be under way, and from when on.

    :param most: how many at most.
    """

    def __init__(self, most: int) -> None:
        # Not a lock, and no event: a signal handler sets it, in whatever the main thread is doing.
        self.stopped = False
        self._most = self._limit = most
        self._under_way = self._taken = self._refusals = 0
        self._resume_at = 0.0
        self._refused_since: float | None = None
        self._turns = threading.Condition()

    def ask(self, request: Callable[[], Answer], what: str) -> Answer:
        """Ask until the service answers.

        :param request: makes one request, without repetitions of its own.
        :param what: names it in errors.
        :raises botocore.exceptions.ClientError: when the service refuses it for another reason.
        :raises AirflowException: when it fails on this request again and again, or has taken none at all for
            five minutes.
        """
        faults = 0
        while True:
            with self._turn():
                try:
                    answer = request()
                except Exception as error:
                    response = refusal(error)
                    if not is_trouble(response):
                        raise
                    faults += status(response) >= 500
                    if faults == MOST_FAULTS:
                        raise AirflowException(
                            f"The service failed {faults} times on {what}: {error}"
                        ) from error
                    self._pause(retry_after(response), error)
                else:
                    self._go_on()
                    return answer

    @contextmanager
    def _turn(self) -> Iterator[None]:
        with self._turns:
            while (wait := self._wait_seconds()) > 0:
                self._turns.wait(min(wait, 1.0))
            self._under_way += 1
        try:
            yield
        finally:
            with self._turns:
                self._under_way -= 1
                self._turns.notify_all()

    def _wait_seconds(self) -> float:
        if self.stopped:
            raise Stopped("The task was told to end")
        if self._under_way >= self._limit:
            return 1.0
        return self._resume_at - time.monotonic()

    def _pause(self, asked: float, error: Exception) -> None:
        with self._turns:
            now = time.monotonic()
            if self._refused_since is None:
                self._refused_since = now
            if now - self._refused_since > PATIENCE_SECONDS:
                raise AirflowException(
                    f"The service has taken no request for {PATIENCE_SECONDS:g} s: {error}"
                ) from error
            if now < self._resume_at:
                return  # the others that were under way meet what the first one met
            self._refusals += 1
            self._taken = 0
            self._limit = max(1, self._limit // 2)
            usual = min(2.0 ** (self._refusals - 1), LONGEST_PAUSE_SECONDS)
            pause = max(asked, usual) * random.uniform(1.0, 1.5)  # noqa: S311 (nothing to guess)
            self._resume_at = now + pause
            log.info(
                "The service is busy or away (%s): going on in %.1f s, with %d at a time",
                error,
                pause,
                self._limit,
            )

    def _go_on(self) -> None:
        with self._turns:
            self._refused_since = None
            self._refusals = 0
            self._taken += 1
            if self._taken >= SUCCESSES_FOR_ONE_MORE:
                self._taken = 0
                self._limit = min(self._limit + 1, self._most)
