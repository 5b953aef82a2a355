"""Calls of operations by keys that have proven themselves, whoever received them: the API or the console.

``perform`` takes a call through its steps: what the key may do, whether there were too many calls, the
constraints of the model, the client token, and the operation itself in one transaction.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, TypeVar

import anyio
import anyio.to_thread

from airflow_provider_lookoutvision.server import cluster, projects, tags
from airflow_provider_lookoutvision.server.calls import access, idempotency
from airflow_provider_lookoutvision.server.calls.call import Call, Inference, OperationHandler
from airflow_provider_lookoutvision.server.calls.throttling import Throttle
from airflow_provider_lookoutvision.server.calls.token_clock import TokenClock
from airflow_provider_lookoutvision.server.datasets import operations as datasets
from airflow_provider_lookoutvision.server.hosting import operations as hosting
from airflow_provider_lookoutvision.server.hosting.fleet import Fleet
from airflow_provider_lookoutvision.server.hosting.pool import Pool
from airflow_provider_lookoutvision.server.models import operations as models
from airflow_provider_lookoutvision.server.packaging import operations as packaging
from airflow_provider_lookoutvision.server.protocol import rest_json
from airflow_provider_lookoutvision.server.protocol.errors import (
    NotImplementedException,
    ServiceUnavailableException,
)
from airflow_provider_lookoutvision.server.settings import Settings
from airflow_provider_lookoutvision.server.storage.database import Database
from airflow_provider_lookoutvision.server.storage.encryption import Cipher

# One room for each resource: an operation is the function of its name in one of them.
ROOMS: tuple[ModuleType, ...] = (projects, datasets, models, hosting, packaging, tags)

_SQLITE_READERS = 2
_MOST_WAITING_WRITERS = 64

log = logging.getLogger("lookoutvision")

Found = TypeVar("Found")


def handler(operation: rest_json.Operation) -> OperationHandler | None:
    """The function that does an operation, or None while there is none."""
    for room in ROOMS:
        if function := getattr(room, operation.function_name, None):
            return function  # type: ignore[no-any-return]
    return None


class Dispatcher:
    """The way to the operations, for all callers of one process.

    ``protocol`` has the operations, ``keys`` the access keys, ``fleet`` the hosted models,
    ``token_clock`` says for how long tokens speak. ``readers`` and
    ``writers`` bound the threads in which calls run.

    :param wake_worker: called when work has been queued.
    """

    def __init__(
        self, settings: Settings, database: Database, cipher: Cipher, wake_worker: Callable[[], None]
    ) -> None:
        self._settings = settings
        self._database = database
        self._cipher = cipher
        self._wake_worker = wake_worker
        self._throttle = Throttle(settings.requests_per_second)
        self.protocol = rest_json.load()
        self.keys = access.KeyCache(database, cipher)
        self.fleet = Fleet(settings, database, cluster.open_pool(settings) if settings.cluster else Pool)
        self.token_clock = TokenClock(database)
        # Writers wait for each other, and must not keep reads from running. On SQLite reads have threads of
        # their own: few, since they get in each other's way, and wait for nothing.
        readers, writers = settings.threads, max(1, settings.threads * 3 // 4)
        if database.is_sqlite:
            readers, writers = _SQLITE_READERS, settings.threads
        self.readers = anyio.CapacityLimiter(readers)
        self.writers = anyio.CapacityLimiter(writers)

    def admit(self, caller: access.Caller, operation: rest_json.Operation) -> None:
        """Count a call against the rate.

        :raises ThrottlingException: when there have been too many.
        """
        self._throttle.admit(caller, operation.name)

    def perform(
        self,
        caller: access.Caller,
        operation: rest_json.Operation,
        members: Mapping[str, Any],
        check: Callable[[Call], None] | None = None,
    ) -> bytes | Inference:
        """Run an operation in one transaction, if the key may.

        :param members: as ``Operation.read`` gives them.
        :param check: called after the operation, in its transaction, which it refuses by raising; not for a
            repeated client token, which has no further effect.
        :return: the body of the answer; or what a hosted model has yet to answer.
        :raises StaleKey: when the key has been deleted: find it again.
        :raises ServiceError: what the operation raises.
        """
        caller.authorize(operation.name, members.get("project_name"), members.get("model_version"))
        do = handler(operation)
        if do is None:
            raise NotImplementedException(f"{operation.name} is not part of this version of the service yet")
        if check is not None:
            do = _checked(do, check)
        token = members.get(operation.token_keyword or "")
        members = {name: value for name, value in members.items() if name != operation.token_keyword}
        with self._database.read() if operation.reads else self._database.write() as connection:
            self.keys.confirm(connection, caller.key.access_key_id)
            now, token_now = time.time_ns() // 1_000_000, self.token_clock.now
            call = Call(
                operation.name, token, caller, connection, self._settings, self._cipher, now, token_now
            )
            if operation.takes_image:
                return do(call, **members)  # type: ignore[return-value]
            answer = idempotency.perform(call, operation, members, do)
        if call.effect.queued_work:
            self._wake_worker()
        if call.effect.changed_hosting:
            self.fleet.wake()
        return answer

    async def perform_in_thread(
        self, operation: rest_json.Operation, work: Callable[[], bytes | Inference]
    ) -> bytes:
        """Run what calls ``perform`` in a thread, and wait for a hosted model if it has to; the body.

        :raises ServiceUnavailableException: when more calls wait to write than can be expected to.
        """
        limiter = self.readers if operation.reads else self.writers
        if limiter is self.writers and limiter.statistics().tasks_waiting >= _MOST_WAITING_WRITERS:
            raise ServiceUnavailableException("Too many requests wait to write: try again", retry_after=1)
        answer = await anyio.to_thread.run_sync(work, limiter=limiter)
        if isinstance(answer, Inference):
            return operation.write(await self.fleet.detect(answer))
        return answer

    def look(
        self,
        caller: access.Caller,
        operation: str,
        project_name: str | None,
        find: Callable[[Call], Found],
    ) -> Found:
        """Read what the API has no operation for, with the right to one that shows as much.

        :param find: reads in the call's transaction.
        :raises StaleKey: when the key has been deleted: find it again.
        :raises ServiceError: AccessDeniedException, and what ``find`` raises.
        """
        caller.authorize(operation, project_name)
        with self._database.read() as connection:
            self.keys.confirm(connection, caller.key.access_key_id)
            now = time.time_ns() // 1_000_000
            return find(Call(operation, None, caller, connection, self._settings, self._cipher, now))


def _checked(do: OperationHandler, check: Callable[[Call], None]) -> OperationHandler:
    def perform_and_check(call: Call, /, **members: Any) -> Mapping[str, Any]:
        answer = do(call, **members)
        check(call)
        return answer

    return perform_and_check
