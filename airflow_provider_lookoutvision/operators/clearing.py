"""Waits that only clear the way: for the work of others that must end before a task's own can begin.

They are in the task, even where its own wait is deferred, and as patient as that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from airflow_provider_lookoutvision.operators.base import is_busy
from airflow_provider_lookoutvision.operators.waiting import failures_of_waits
from airflow_provider_lookoutvision.waiting import Wait

if TYPE_CHECKING:
    from airflow_provider_lookoutvision.hooks.lookoutvision import LookoutVisionHook

Answer = TypeVar("Answer")


class Waiter(Protocol):
    """An operator that waits, and can be killed while it does."""

    waiter_delay: float
    waiter_max_attempts: int
    _killed: bool

    @property
    def hook(self) -> LookoutVisionHook:
        """The hook."""

    @property
    def log(self) -> Any:
        """The task's log."""


def wait_in_task(operator: Waiter, waiter: str, arguments: Mapping[str, Any]) -> None:
    """Wait with an operator's patience, until it is killed.

    :raises AirflowFailException: when the state can't come, for a fault of the input.
    :raises AirflowException: when the state doesn't come.
    """
    wait = Wait(waiter, arguments, operator.waiter_delay, operator.waiter_max_attempts)
    with failures_of_waits():
        wait.run(operator.hook, operator.log, lambda: operator._killed)


def when_datasets_are_free(operator: Waiter, call: Callable[[], Answer]) -> Answer:
    """Call, and again when the dataset that is in the way is neither being made nor changed any more.

    Another task may be quicker then: so it goes on until the call is taken, or refused for another reason.

    :param call: is refused as long as a dataset is busy, and nothing else.
    """
    while True:
        try:
            return call()
        except operator.hook.conn.exceptions.ConflictException as conflict:
            if not is_busy(conflict):
                raise
            operator.log.info("The service refuses: %s", conflict.response["Error"]["Message"])
            project_name, _, dataset_type = conflict.response["ResourceId"].partition("/")
        wait_in_task(operator, "DatasetCreated", {"ProjectName": project_name, "DatasetType": dataset_type})
