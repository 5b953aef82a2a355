"""As many requests at a time as a busy service takes, and no more.

Threads share one :class:`AdaptiveConcurrency`. After a transient error all of them pause, and half as many go
on. Every hundred successes let one more in, up to all. (Additive increase, multiplicative decrease: Chiu and
Jain, 1989.)
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from airflow.providers.common.compat.sdk import AirflowException

from airflow_provider_lookoutvision.waiters.transient import (
    Backoff,
    error_response,
    http_status,
    is_transient,
)

Answer = TypeVar("Answer")

LONGEST_PAUSE_SECONDS = 30.0
GIVE_UP_SECONDS = 300.0
MAX_SERVER_ERRORS = 5
SUCCESSES_TO_INCREASE = 100

log = logging.getLogger(__name__)


class TaskStopped(AirflowException):
    """The task was asked to stop."""


class AdaptiveConcurrency:
    """How many requests may be under way, and when the next may be sent.

    :param most: the most requests at a time.
    """

    def __init__(self, most: int) -> None:
        # Neither a lock nor an event: a signal handler sets it, whatever the main thread is doing.
        self.stopped = False
        self._most = self._limit = most
        self._under_way = self._successes = 0
        self._backoff = Backoff(LONGEST_PAUSE_SECONDS)
        self._failing_since: float | None = None
        self._slots = threading.Condition()

    def call(self, request: Callable[[], Answer], name: str) -> Answer:
        """Send a request, again and again after transient errors, and return its response.

        :param request: sends it once, without retries of its own.
        :param name: names it in errors.
        :raises botocore.exceptions.ClientError: when the service refuses it, and would refuse it again.
        :raises AirflowException: when the service fails five times on this request, or has accepted none at
            all for five minutes.
        """
        server_errors = 0
        while True:
            with self._slot():
                try:
                    answer = request()
                except Exception as error:
                    response = error_response(error)
                    if not is_transient(response):
                        raise
                    server_errors += http_status(response) >= 500
                    if server_errors == MAX_SERVER_ERRORS:
                        raise AirflowException(
                            f"The service failed {server_errors} times on {name}: {error}"
                        ) from error
                    self._decrease(response, error)
                else:
                    self._increase()
                    return answer

    @contextmanager
    def _slot(self) -> Iterator[None]:
        with self._slots:
            while (wait := self._wait_seconds()) > 0:
                self._slots.wait(min(wait, 1.0))
            self._under_way += 1
        try:
            yield
        finally:
            with self._slots:
                self._under_way -= 1
                self._slots.notify_all()

    def _wait_seconds(self) -> float:
        if self.stopped:
            raise TaskStopped("The task was asked to stop")
        if self._under_way >= self._limit:
            return 1.0
        return self._backoff.resume_at - time.monotonic()

    def _decrease(self, response: Mapping[str, Any], error: Exception) -> None:
        with self._slots:
            now = time.monotonic()
            if self._failing_since is None:
                self._failing_since = now
            if now - self._failing_since > GIVE_UP_SECONDS:
                raise AirflowException(
                    f"The service has accepted no request for {GIVE_UP_SECONDS:g} s: {error}"
                ) from error
            if not self._backoff.fail(response, now):
                return
            self._successes = 0
            self._limit = max(1, self._limit // 2)
            log.warning(
                "The service is busy or away (%s): going on in %.1f s, with %d at a time",
                error,
                self._backoff.resume_at - now,
                self._limit,
            )

    def _increase(self) -> None:
        with self._slots:
            self._failing_since = None
            self._backoff.succeed()
            self._successes += 1
            if self._successes >= SUCCESSES_TO_INCREASE:
                self._successes = 0
                self._limit = min(self._limit + 1, self._most)
