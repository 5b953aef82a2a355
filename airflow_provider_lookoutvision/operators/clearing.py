"""Clearing the way: calls that wait for the work of others, which must end before a task's own can begin."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from airflow_provider_lookoutvision.operators.base import is_busy
from airflow_provider_lookoutvision.operators.waiting import PatientMixin

Answer = TypeVar("Answer")


def when_datasets_are_free(operator: PatientMixin, call: Callable[[], Answer]) -> Answer:
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
        operator.wait_in_task("DatasetCreated", {"ProjectName": project_name, "DatasetType": dataset_type})
