"""The trigger: a wait as data, run by the triggerer."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_lookoutvision.operators.values import text
from airflow_provider_lookoutvision.waiters.waiter import WaiterFailed, WaiterSpec, cancel

if TYPE_CHECKING:
    from airflow_provider_lookoutvision.hooks.lookoutvision import LookoutVisionHook

log = logging.getLogger(__name__)

# A trigger that fires at once can overtake the executor's report that the process which deferred has ended.
# Airflow then fails the try. (Its message: "the task instance's state attribute is queued".)
_FIRST_SECONDS = 5.0

_cancelling: set[asyncio.Task[None]] = set()  # an event loop keeps weak references to its tasks only


class LookoutVisionWaiterTrigger(BaseTrigger):
    """Wait until a waiter of the API model is satisfied.

    The event's payload has a ``status``:

    - ``success``, with ``return_value``;
    - ``timeout``, with ``message``;
    - ``error``, with ``message`` and ``retryable``: whether a retry of the task may succeed.

    :param waiter_name: a waiter of the API model, such as ``DatasetCreated``.
    :param waiter_args: the input of the operation that it polls.
    :param waiter_delay: seconds between two requests.
    :param waiter_max_attempts: the most requests, or the time that so many take at that delay.
    :param tolerated_states: states that end by themselves here, though the waiter takes them for failures.
    :param return_value: what the event returns. (``airflow dags test`` loses what an operator keeps for its
        next method.)
    :param cancellation: the operation to call when a user acts on the deferred task, and its input. Airflow
        reports that from 3.3 on.
    :param start_time: when the wait began, in seconds since the epoch; by default when the trigger was made.
        A restarted triggerer makes the trigger again, with the same times: it goes on with the same wait.
    :param end_time: when to give up, in seconds since the epoch; by default that of a wait that begins now.
    :param aws_conn_id: the Airflow connection, of type ``lookoutvision`` or ``aws``.
    :param region_name: the AWS region; by default the connection's.
    :param verify: whether, or with which bundle, TLS certificates are verified.
    :param botocore_config: arguments of ``botocore.config.Config``.
    """

    def __init__(
        self,
        *,
        waiter_name: str,
        waiter_args: dict[str, Any],
        waiter_delay: float,
        waiter_max_attempts: int,
        tolerated_states: Sequence[str] = (),
        return_value: dict[str, Any] | None = None,
        cancellation: tuple[str, dict[str, Any]] | None = None,
        start_time: float | None = None,
        end_time: float | None = None,
        aws_conn_id: str | None = "aws_default",
        region_name: str | None = None,
        verify: bool | str | None = None,
        botocore_config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        waiter_args = {name: text(name, value) for name, value in waiter_args.items()}
        self._spec = WaiterSpec(waiter_name, waiter_args, waiter_delay, waiter_max_attempts, tolerated_states)
        self._fields: dict[str, Any] = {
            "waiter_name": waiter_name,
            "waiter_args": waiter_args,
            "waiter_delay": waiter_delay,
            "waiter_max_attempts": waiter_max_attempts,
            "tolerated_states": list(tolerated_states),
            "return_value": return_value or {},
            "cancellation": cancellation and list(cancellation),
            "start_time": time.time() if start_time is None else start_time,
            "end_time": self._spec.end_time if end_time is None else end_time,
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
            times = self._fields["start_time"], self._fields["end_time"]
            await self._spec.run_async(self._hook, log, connection, *times)
        except WaiterFailed as failure:
            yield _failure(str(failure), failure.status, retryable=failure.retryable)
        except AirflowFailException as error:
            yield _failure(str(error), retryable=False)
        except Exception as error:
            yield _failure(f"{type(error).__name__}: {error}", retryable=True)
        else:
            yield TriggerEvent({"status": "success", "return_value": self._fields["return_value"]})

    async def on_kill(self) -> None:
        """Cancel the work, if that is wanted. Airflow calls this when a user acts on the task."""
        if self._fields["cancellation"]:
            # A busy triggerer may cancel the trigger, and so this method, once more while it runs: the work
            # must be cancelled all the same.
            cancelling = asyncio.create_task(self._cancel())
            _cancelling.add(cancelling)
            cancelling.add_done_callback(_cancelling.discard)
            await asyncio.shield(cancelling)

    async def _cancel(self) -> None:
        from asgiref.sync import sync_to_async

        hook = self._hook()
        # The triggerer reads connections in one thread, which mustn't wait for the service.
        with suppress(Exception):  # the call below logs it
            await sync_to_async(lambda: hook.conn)()
        await asyncio.to_thread(cancel, hook, log, *self._fields["cancellation"])

    @property
    def _connection(self) -> dict[str, Any]:
        names = ("aws_conn_id", "region_name", "verify")
        return {name: self._fields[name] for name in names} | {"config": self._fields["botocore_config"]}

    def _hook(self) -> LookoutVisionHook:
        from airflow_provider_lookoutvision.hooks.lookoutvision import LookoutVisionHook

        return LookoutVisionHook(**self._connection)


def _failure(message: str, status: str = "error", *, retryable: bool) -> TriggerEvent:
    return TriggerEvent({"status": status, "message": message, "retryable": retryable})
