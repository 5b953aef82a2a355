"""The trigger: a wait as data, run by the triggerer."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_lookoutvision.waiting import Wait, WaitFailed


class LookoutVisionWaiterTrigger(BaseTrigger):
    """Wait until a waiter of the API model is satisfied.

    The event's payload has a ``status``: ``success``, ``input`` when the service found the input at fault, or
    ``error``; and for the last two a ``message``.

    :param waiter: the waiter's name, such as ``DatasetCreated``.
    :param arguments: the members of the operation that it asks.
    :param waiter_delay: seconds between two questions.
    :param waiter_max_attempts: the most questions.
    :param aws_conn_id: the Airflow connection, of type ``aws``.
    :param region_name: the AWS region; by default the connection's.
    :param verify: whether, or with which bundle, TLS certificates are verified.
    :param botocore_config: arguments of ``botocore.config.Config``.
    """

    def __init__(
        self,
        *,
        waiter: str,
        arguments: dict[str, Any],
        waiter_delay: float,
        waiter_max_attempts: int,
        aws_conn_id: str | None = "aws_default",
        region_name: str | None = None,
        verify: bool | str | None = None,
        botocore_config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._fields: dict[str, Any] = {
            "waiter": waiter,
            "arguments": arguments,
            "waiter_delay": waiter_delay,
            "waiter_max_attempts": waiter_max_attempts,
            "aws_conn_id": aws_conn_id,
            "region_name": region_name,
            "verify": verify,
            "botocore_config": botocore_config,
        }
        self._wait = Wait(waiter, arguments, waiter_delay, waiter_max_attempts)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class's path and the arguments that make this trigger again."""
        return f"{type(self).__module__}.{type(self).__qualname__}", self._fields

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and yield one event."""
        from airflow_provider_lookoutvision.hooks.lookoutvision import LookoutVisionHook

        hook = LookoutVisionHook(
            aws_conn_id=self._fields["aws_conn_id"],
            region_name=self._fields["region_name"],
            verify=self._fields["verify"],
            config=self._fields["botocore_config"],
        )
        try:
            await self._wait.run_async(hook, logging.getLogger(__name__))
        except WaitFailed as failure:
            yield TriggerEvent({"status": "input" if failure.input else "error", "message": str(failure)})
        except Exception as error:
            yield TriggerEvent({"status": "error", "message": f"{type(error).__name__}: {error}"})
        else:
            yield TriggerEvent({"status": "success"})
