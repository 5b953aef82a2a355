"""The trigger: a wait as data, run by the triggerer."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_lookoutvision.waiters.waiter import Wait, WaitFailed, cancel

if TYPE_CHECKING:
    from airflow_provider_lookoutvision.hooks.lookoutvision import LookoutVisionHook

log = logging.getLogger(__name__)

# A trigger that fires at once can overtake what Airflow's executor tells of the end of the process that
# deferred, and that fails the try. (Airflow: "the task instance's state attribute is queued".)
_FIRST_SECONDS = 5.0


class LookoutVisionWaiterTrigger(BaseTrigger):
    """Wait until a waiter of the API model is satisfied.

    The event's payload has a ``status``: ``success``, with ``return_value``; or with a ``message`` ``input``
    when the service found the input at fault, ``timeout``, or ``error``.

    :param waiter: the waiter's name, such as ``DatasetCreated``.
    :param arguments: the members of the operation that it asks.
    :param waiter_delay: seconds between two questions.
    :param waiter_max_attempts: the most questions, or as long as these take at that delay.
    :param passing: states that pass, though the waiter takes them for failures.
    :param return_value: what the event hands back. (``airflow dags test`` loses what an operator keeps for
        its next method.)
    :param cancellation: what to call when a user acts on the deferred task: an operation's name, and the
        members of its input. Airflow tells of that from 3.3 on.
    :param ends_at: when to give up, in seconds since the epoch; by default that long after it was made. A
        triggerer that is restarted makes the trigger again, and it ends when it would have ended.
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
        passing: Sequence[str] = (),
        return_value: dict[str, Any] | None = None,
        cancellation: tuple[str, dict[str, Any]] | None = None,
        ends_at: float | None = None,
        aws_conn_id: str | None = "aws_default",
        region_name: str | None = None,
        verify: bool | str | None = None,
        botocore_config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._wait = Wait(waiter, arguments, waiter_delay, waiter_max_attempts, passing)
        self._fields: dict[str, Any] = {
            "waiter": waiter,
            "arguments": arguments,
            "waiter_delay": waiter_delay,
            "waiter_max_attempts": waiter_max_attempts,
            "passing": list(passing),
            "return_value": return_value or {},
            "cancellation": cancellation and list(cancellation),
            "ends_at": self._wait.ends_at if ends_at is None else ends_at,
            "aws_conn_id": aws_conn_id,
            "region_name": region_name,
            "verify": verify,
            "botocore_config": botocore_config,
        }

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class's path and the arguments that make this trigger again."""
        return f"{type(self).__module__}.{type(self).__qualname__}", self._fields

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and yield one event."""
        connection = json.dumps(self._connection)
        try:
            await asyncio.sleep(_FIRST_SECONDS)
            await self._wait.run_async(self._hook, log, connection, self._fields["ends_at"])
        except WaitFailed as failure:
            yield TriggerEvent({"status": failure.status, "message": str(failure)})
        except AirflowFailException as error:
            yield TriggerEvent({"status": "input", "message": str(error)})
        except Exception as error:
            yield TriggerEvent({"status": "error", "message": f"{type(error).__name__}: {error}"})
        else:
            yield TriggerEvent({"status": "success", "return_value": self._fields["return_value"]})

    async def on_kill(self) -> None:
        """Cancel what is waited for, if that is wanted. Airflow calls this when a user acts on the task."""
        from asgiref.sync import sync_to_async

        if self._fields["cancellation"]:
            hook = self._hook()
            # The triggerer has one thread to read connections in, and that mustn't wait for the service.
            with suppress(Exception):  # nobody is there to hear of it; the call tells
                await sync_to_async(lambda: hook.conn)()
            await asyncio.to_thread(cancel, hook, log, *self._fields["cancellation"])

    @property
    def _connection(self) -> dict[str, Any]:
        names = ("aws_conn_id", "region_name", "verify")
        return {name: self._fields[name] for name in names} | {"config": self._fields["botocore_config"]}

    def _hook(self) -> LookoutVisionHook:
        from airflow_provider_lookoutvision.hooks.lookoutvision import LookoutVisionHook

        return LookoutVisionHook(**self._connection)
