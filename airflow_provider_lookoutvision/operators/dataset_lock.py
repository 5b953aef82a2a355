"""Calls that the service refuses while it imports or changes a dataset: they wait until it has finished."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from airflow_provider_lookoutvision.operators.async_operation import PollingMixin
from airflow_provider_lookoutvision.waiters.transient import is_busy

Answer = TypeVar("Answer")


def retry_while_dataset_is_busy(operator: PollingMixin, call: Callable[[], Answer]) -> Answer:
    """Call, and call again each time when the dataset in question is no longer being imported or changed.

    Another task may be quicker, and change the dataset first; so this repeats until the service accepts the
    call or refuses it for another reason.

    :param call: changes nothing when the service refuses it.
    """
    while True:
        try:
            return call()
        except operator.hook.conn.exceptions.ConflictException as conflict:
            if not is_busy(conflict.response):
                raise
            operator.log.info("The service refuses: %s", conflict.response["Error"]["Message"])
            project_name, _, dataset_type = conflict.response["ResourceId"].partition("/")
        operator.wait_in_task("DatasetCreated", {"ProjectName": project_name, "DatasetType": dataset_type})
