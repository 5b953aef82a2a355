"""Waiting in an operator: in the task, or deferred to the triggerer, with one outcome."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, conf

from airflow_provider_lookoutvision.operators.base import (
    LookoutVisionBaseOperator,
    no_retry_for_faults_of_the_input,
)
from airflow_provider_lookoutvision.waiters.waiter import Wait, WaitFailed, cancel

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_lookoutvision.triggers.lookoutvision import LookoutVisionWaiterTrigger


class PatientMixin(LookoutVisionBaseOperator):
    """What an operator adds that waits in its task, until that is killed.

    :param waiter_delay: seconds between two questions.
    :param waiter_max_attempts: the most questions.
    """

    _killed = False

    def __init__(self, *, waiter_delay: float, waiter_max_attempts: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.waiter_delay = waiter_delay
        self.waiter_max_attempts = waiter_max_attempts

    def wait_of(self, waiter: str, arguments: Mapping[str, Any]) -> Wait:
        """A wait as patient as this operator."""
        return Wait(waiter, arguments, self.waiter_delay, self.waiter_max_attempts)

    def wait_in_task(self, waiter: str, arguments: Mapping[str, Any]) -> None:
        """Wait, even where the operator's own wait is deferred.

        :raises AirflowFailException: when the state can't come, for a fault of the input.
        :raises AirflowException: when the state doesn't come.
        """
        with failures_of_waits():
            self.wait_of(waiter, arguments).run(self.hook, self.log, lambda: self._killed)

    def on_kill(self) -> None:
        """End the wait. Airflow 3 goes on with a task whose process is told to end."""
        self._killed = True


class WaitingMixin(PatientMixin):
    """What an operator of an asynchronous operation adds.

    :param wait_for_completion: whether to wait until the work has ended.
    :param deferrable: wait in the triggerer, without a worker's slot.
    """

    waiter: ClassVar[str]
    # A trigger that fires at once can overtake what Airflow's scheduler hears of its task's deferral, and
    # that fails the task: what may be there already is better asked for before.
    asks_before_deferring: ClassVar[bool] = False

    def __init__(
        self,
        *,
        wait_for_completion: bool = True,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable

    @abstractmethod
    def waiter_arguments(self) -> dict[str, Any]:
        """The members of the operation that the waiter asks."""

    @abstractmethod
    def result(self, context: Context, **state: Any) -> dict[str, Any]:
        """What the task returns when the wait has succeeded."""

    def wait_then(
        self, context: Context, unwaited: dict[str, Any], *, always: bool = False, **state: Any
    ) -> dict[str, Any]:
        """Wait, and return ``result``; or don't, and return ``unwaited``.

        :param always: wait even without ``wait_for_completion``.
        :param state: what ``result`` needs to know; it goes with the task into its deferral.
        """
        if not (self.wait_for_completion or always):
            self.ended()
            return unwaited
        wait = self.wait_of(self.waiter, self.waiter_arguments())
        if not self.deferrable:
            self.wait_in_task(wait.waiter, wait.arguments)
        else:
            with failures_of_waits():
                there = self.asks_before_deferring and wait.check(self.hook, self.log)
            if not there:
                self.defer(
                    trigger=trigger(self, wait, return_value=state, cancellation=self.cancellation()),
                    method_name="execute_complete",
                    timeout=self.execution_timeout,  # which Airflow 3 forgets of a deferred task
                )
        self.ended()
        return self.result(context, **state)

    def execute_complete(self, context: Context, event: Mapping[str, Any] | None = None) -> Any:
        """Go on when the trigger has fired."""
        state = check_event(event)
        with no_retry_for_faults_of_the_input():
            return self.result(context, **state)

    def cancellation(self) -> tuple[str, dict[str, Any]] | None:
        """What to call when the task is killed, and with which members; None to let the work go on."""
        return None

    def ended(self) -> None:
        """Tell that the wait has ended: what was waited for is there to stay, even if the task is killed."""


class CancelOnKillMixin(WaitingMixin):
    """What an operator adds whose work can be stopped.

    :param cancel_on_kill: whether the work is stopped when the task is killed. By default it goes on, and a
        retry finds it.
    """

    _cancellation: tuple[str, dict[str, Any]] | None = None

    def __init__(self, *, cancel_on_kill: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cancel_on_kill = cancel_on_kill

    def begun(self, operation: str, **arguments: Any) -> None:
        """Tell what stops the work that has begun: an operation, and the members of its input."""
        self._cancellation = (operation, arguments)

    def cancellation(self) -> tuple[str, dict[str, Any]] | None:
        """What stops the work, if it has begun and that is wanted."""
        return self._cancellation if self.cancel_on_kill else None

    def ended(self) -> None:
        """Tell that there is nothing to stop any more."""
        self._cancellation = None

    def on_kill(self) -> None:
        """End the wait, and stop the work that has begun, if that is wanted."""
        super().on_kill()
        if cancellation := self.cancellation():
            cancel(self.hook, self.log, *cancellation)
        elif self._cancellation:
            self.log.info("The task is killed; the work goes on, since cancel_on_kill isn't set")


def trigger(operator: LookoutVisionBaseOperator, wait: Wait, **more: Any) -> LookoutVisionWaiterTrigger:
    """The trigger that waits for an operator, on its connection.

    :param more: parameters of the trigger.
    """
    from airflow_provider_lookoutvision.triggers.lookoutvision import LookoutVisionWaiterTrigger

    return LookoutVisionWaiterTrigger(
        waiter=wait.waiter,
        arguments=dict(wait.arguments),
        waiter_delay=wait.delay,
        waiter_max_attempts=wait.max_attempts,
        passing=wait.passing,
        aws_conn_id=operator.aws_conn_id,
        region_name=operator.region_name,
        verify=operator.verify,
        botocore_config=operator.botocore_config,
        **more,
    )


def check_event(event: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what a trigger hands back; raise Airflow's exception unless it tells of success."""
    event = event or {"status": "error", "message": "the trigger fired without an event"}
    if event["status"] != "success":
        raise _to_airflow(str(event.get("message")), event["status"])
    return dict(event.get("return_value") or {})


@contextmanager
def failures_of_waits() -> Iterator[None]:
    """Turn the failure of a wait into Airflow's.

    :raises AirflowFailException: when the input is at fault.
    :raises AirflowException: when the wait fails otherwise, so that a retry may help.
    """
    try:
        yield
    except WaitFailed as failure:
        raise _to_airflow(str(failure), failure.status) from failure


def _to_airflow(message: str, status: str) -> Exception:
    if status == "timeout":
        message += ". Raise waiter_max_attempts or waiter_delay to wait for longer"
    return AirflowFailException(message) if status == "input" else AirflowException(message)
