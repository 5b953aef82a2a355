"""Operators of asynchronous operations: they wait in the task or in the triggerer, with the same outcome."""

from __future__ import annotations

import threading
import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, conf

from airflow_provider_lookoutvision.operators.base import (
    LookoutVisionBaseOperator,
    fail_fast_on_client_errors,
)
from airflow_provider_lookoutvision.waiters.waiter import WaiterFailed, WaiterRun, WaiterSpec, cancel

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_lookoutvision.triggers.lookoutvision import LookoutVisionWaiterTrigger


DEFER_AFTER_SECONDS = 10.0

# Airflow 2 ends the process when on_kill returns. A slow service gets so long, a log so long.
_CANCEL_SECONDS = 30.0
_LOG_SECONDS = 1.0


class PollingMixin(LookoutVisionBaseOperator):
    """What an operator adds that waits in its task, until the task is killed.

    :param waiter_delay: seconds between two requests.
    :param waiter_max_attempts: the most requests.
    """

    _killed = False

    def __init__(self, *, waiter_delay: float, waiter_max_attempts: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.waiter_delay = waiter_delay
        self.waiter_max_attempts = waiter_max_attempts

    def waiter_spec(self, waiter_name: str, waiter_args: Mapping[str, Any]) -> WaiterSpec:
        """A wait with this operator's delay and number of attempts."""
        return WaiterSpec(waiter_name, waiter_args, self.waiter_delay, self.waiter_max_attempts)

    def wait_in_task(self, waiter_name: str, waiter_args: Mapping[str, Any]) -> None:
        """Wait in the task, even if the operator's own wait is deferred.

        :raises AirflowFailException: when the state can't come, and a retry wouldn't help.
        :raises AirflowException: when the state doesn't come.
        """
        with waiter_failures_as_airflow_exceptions():
            self.waiter_spec(waiter_name, waiter_args).run(self.hook, self.log, self._is_killed)

    def _is_killed(self) -> bool:
        return self._killed

    def on_kill(self) -> None:
        """End the wait. (Airflow 3 goes on with a task whose process gets a SIGTERM.)

        Airflow calls this in a signal handler, at any moment of the task. What takes a lock there, such as a
        line in the log, would wait for ever if the task itself holds it: all that is left to a thread.
        """
        self._killed = True


class AsyncOperationMixin(PollingMixin):
    """What an operator of an asynchronous operation adds.

    :param wait_for_completion: whether to wait until the work has ended.
    :param deferrable: wait in the triggerer, without a worker's slot.
    :param defer_after: for so many seconds a deferrable task waits itself, since a deferral takes longer than
        short work does; 0 polls once.
    """

    waiter_name: ClassVar[str]

    def __init__(
        self,
        *,
        wait_for_completion: bool = True,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        defer_after: float = DEFER_AFTER_SECONDS,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable
        self.defer_after = defer_after

    @abstractmethod
    def waiter_args(self) -> dict[str, Any]:
        """The input of the operation that the waiter polls."""

    @abstractmethod
    def result(self, context: Context, **state: Any) -> dict[str, Any]:
        """What the task returns when the wait has succeeded."""

    def wait_or_defer(
        self, context: Context, unfinished: dict[str, Any], *, must_wait: bool = False, **state: Any
    ) -> dict[str, Any]:
        """Wait in the task or in the triggerer, and return ``result``.

        :param unfinished: what to return instead, without ``wait_for_completion``.
        :param must_wait: wait even without ``wait_for_completion``.
        :param state: what ``result`` needs; a deferred task gets it back from the trigger.
        """
        if not (self.wait_for_completion or must_wait):
            self.clear_cancellation()
            return unfinished
        spec = self.waiter_spec(self.waiter_name, self.waiter_args())
        if not self.deferrable:
            self.wait_in_task(spec.waiter_name, spec.waiter_args)
        else:
            start_time, end_time = time.time(), spec.end_time
            with waiter_failures_as_airflow_exceptions():
                run = WaiterRun(spec, self.log, end_time)
                done = run.wait_briefly(self.defer_after, self.hook, self._is_killed)
            if not done:
                self.defer(
                    trigger=waiter_trigger(
                        self,
                        spec,
                        return_value=state,
                        cancellation=self.cancellation(),
                        start_time=start_time,
                        end_time=end_time,
                    ),
                    method_name="execute_complete",
                    timeout=self.execution_timeout,  # Airflow 3 doesn't apply it to a deferred task
                )
        self.clear_cancellation()
        return self.result(context, **state)

    def execute_complete(self, context: Context, event: Mapping[str, Any] | None = None) -> Any:
        """Go on when the trigger has fired."""
        self.check_parameters()
        state = validate_execute_complete_event(event)
        with fail_fast_on_client_errors():
            return self.result(context, **state)

    def cancellation(self) -> tuple[str, dict[str, Any]] | None:
        """The operation to call when the task is killed, and its input; None lets the work go on."""
        return None

    def clear_cancellation(self) -> None:
        """Cancel nothing from now on: the work has ended, or is to go on without the task."""


class CancelOnKillMixin(AsyncOperationMixin):
    """What an operator adds whose work can be stopped.

    :param cancel_on_kill: whether the work is stopped when the task is killed. By default it goes on, and a
        retry finds it.
    """

    _cancellation: tuple[str, dict[str, Any]] | None = None
    _kill_thread: threading.Thread | None = None

    def __init__(self, *, cancel_on_kill: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cancel_on_kill = cancel_on_kill

    def set_cancellation(self, operation: str, **arguments: Any) -> None:
        """Set the operation that stops the work which has begun, and its input."""
        self._cancellation = (operation, arguments)
        if self._killed:  # while the service began the work
            self.on_kill()

    def cancellation(self) -> tuple[str, dict[str, Any]] | None:
        """The operation that stops the work, if the work has begun and ``cancel_on_kill`` is set."""
        return self._cancellation if self.cancel_on_kill else None

    def clear_cancellation(self) -> None:
        """Cancel nothing from now on."""
        self._cancellation = None

    def on_kill(self) -> None:
        """End the wait, and stop the work that has begun, if ``cancel_on_kill`` is set."""
        super().on_kill()
        if self._kill_thread or not self._cancellation:
            return
        called = threading.Event()
        self._kill_thread = threading.Thread(target=self._handle_kill, args=[called], daemon=True)
        self._kill_thread.start()
        called.wait(_CANCEL_SECONDS)
        self._kill_thread.join(_LOG_SECONDS)

    def _handle_kill(self, called: threading.Event) -> None:
        if cancellation := self.cancellation():
            cancel(self.hook, self.log, *cancellation, called=called.set)
        else:
            called.set()
            self.log.info("The task is killed; the work goes on, since cancel_on_kill isn't set")

    def _is_killed(self) -> bool:
        if self._kill_thread:
            self._kill_thread.join()
        return super()._is_killed()


def waiter_trigger(
    operator: LookoutVisionBaseOperator, spec: WaiterSpec, **parameters: Any
) -> LookoutVisionWaiterTrigger:
    """The trigger that waits for an operator, on its connection.

    :param parameters: further parameters of the trigger.
    """
    from airflow_provider_lookoutvision.triggers.lookoutvision import LookoutVisionWaiterTrigger

    return LookoutVisionWaiterTrigger(
        waiter_name=spec.waiter_name,
        waiter_args=dict(spec.waiter_args),
        waiter_delay=spec.delay,
        waiter_max_attempts=spec.max_attempts,
        tolerated_states=spec.tolerated_states,
        aws_conn_id=operator.aws_conn_id,
        region_name=operator.region_name,
        verify=operator.verify,
        botocore_config=operator.botocore_config,
        **parameters,
    )


def validate_execute_complete_event(event: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the ``return_value`` of a trigger's event.

    :raises AirflowFailException: when the event says that a retry wouldn't help.
    :raises AirflowException: when it reports another failure, or there is none.
    """
    event = event or {"status": "error", "message": "the trigger fired without an event"}
    if event["status"] != "success":
        message = str(event.get("message"))
        raise _airflow_exception(message, event["status"], retryable=event.get("retryable", True))
    return dict(event.get("return_value") or {})


@contextmanager
def waiter_failures_as_airflow_exceptions() -> Iterator[None]:
    """Turn the failure of a wait into an exception of Airflow.

    :raises AirflowFailException: when a retry wouldn't help.
    :raises AirflowException: when it may.
    """
    try:
        yield
    except WaiterFailed as failure:
        raise _airflow_exception(str(failure), failure.status, retryable=failure.retryable) from failure


def _airflow_exception(message: str, status: str, *, retryable: bool) -> Exception:
    if status == "timeout":
        message += ". Raise waiter_max_attempts or waiter_delay to wait for longer"
    return AirflowException(message) if retryable else AirflowFailException(message)
