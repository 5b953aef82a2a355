"""Asking the service from an event loop: one client, and one pace, for all waits on one connection.

A triggerer may hold a thousand waits. Each with a client of its own would cost megabytes, and all together
more requests than a service takes. So the waits of an event loop share, by connection, what is here: a client
that lives as long as one of them, and for each operation a pace that spaces the questions, first come first
served. When the service says that it is too much, or that it has trouble, all of them pause.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Hashable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from airflow_provider_lookoutvision.hooks.lookoutvision import LookoutVisionHook

_TROUBLE = frozenset({"ThrottlingException", "InternalServerException", UNANSWERED := "Unanswered"})
_LONGEST_PAUSE_SECONDS = 60.0


def ask(hook: LookoutVisionHook, method: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """Ask once, in this thread: the answer, or the refusal's response.

    A service that can't be reached, because it is being restarted for example, is a refusal too, with the
    code ``Unanswered``.
    """
    from botocore import exceptions

    try:
        answer: Mapping[str, Any] = getattr(hook.conn, method)(**arguments)
    except (exceptions.ClientError, exceptions.ConnectionError, exceptions.HTTPClientError) as error:
        return _refusal(error)
    return answer


class Pace:
    """Spaces the questions of one operation.

    :param rate: the most questions a second.
    """

    def __init__(self, rate: float) -> None:
        self._gap = 1 / rate
        self._next = 0.0
        self._pause = 0.0
        self._turns = asyncio.Lock()  # whose waiters get it in the order in which they came

    async def turn(self) -> None:
        """Wait until it is one's turn."""
        clock = asyncio.get_running_loop().time
        async with self._turns:
            # Again and again, since the pause may have grown meanwhile.
            while (left := self._next - clock()) > 0:  # noqa: ASYNC110 (nothing here could set an event)
                await asyncio.sleep(left)
            self._next = clock() + self._gap

    def heed(self, answer: Mapping[str, Any]) -> None:
        """Pause after trouble: as long as the service says, or else longer each time, with some jitter."""
        if answer.get("Error", {}).get("Code") not in _TROUBLE:
            self._pause = 0.0
            return
        headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        self._pause = min(max(2 * self._pause, 1.0), _LONGEST_PAUSE_SECONDS)
        told = str(headers.get("retry-after", ""))
        seconds = (float(told) if told.isdecimal() else self._pause) * random.uniform(1, 1.5)  # noqa: S311
        self._next = max(self._next, asyncio.get_running_loop().time() + seconds)


class Asker:
    """What the waits of one event loop on one connection share.

    :param hook: of the first of them.
    """

    def __init__(self, hook: LookoutVisionHook) -> None:
        self.users = 0
        self._hook = hook
        self._client: Any = None
        self._rate = 0.0
        self._paces: dict[str, Pace] = {}
        self._opening = asyncio.Lock()
        self._stack = AsyncExitStack()

    async def ask(self, method: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """Ask when it is one's turn: the answer, or the refusal's response."""
        await self._open()
        pace = self._paces.setdefault(method, Pace(self._rate))
        await pace.turn()
        answer = await self._ask(method, arguments)
        pace.heed(answer)
        return answer

    async def close(self) -> None:
        """Close the client."""
        await self._stack.aclose()

    async def _open(self) -> None:
        from asgiref.sync import sync_to_async

        async with self._opening:
            if self._rate:
                return
            # The connection is read in a thread, as the Amazon provider does: that takes a while.
            rate = await sync_to_async(lambda: self._hook.requests_per_second)()
            if has_aiobotocore():
                opening = await self._hook.get_async_conn()  # type: ignore[no-untyped-call]
                self._client = await self._stack.enter_async_context(opening)
            self._rate = rate

    async def _ask(self, method: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        from botocore import exceptions

        if self._client is None:
            return await asyncio.to_thread(ask, self._hook, method, arguments)
        try:
            answer: Mapping[str, Any] = await getattr(self._client, method)(**arguments)
        except (exceptions.ClientError, exceptions.ConnectionError, exceptions.HTTPClientError) as error:
            return _refusal(error)
        return answer


_askers: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Hashable, Asker]] = WeakKeyDictionary()


@asynccontextmanager
async def asker(hook: LookoutVisionHook, connection: Hashable) -> AsyncIterator[Asker]:
    """What the waits of this event loop on a connection share, for one of them.

    :param hook: of this wait; that of the first is the one that is used.
    :param connection: equal for the waits that share.
    """
    of_loop = _askers.setdefault(asyncio.get_running_loop(), {})
    shared = of_loop.setdefault(connection, Asker(hook))
    shared.users += 1
    try:
        yield shared
    finally:
        shared.users -= 1
        if not shared.users:
            del of_loop[connection]
            await shared.close()


def has_aiobotocore() -> bool:
    """Whether questions go through aiobotocore; else they go through boto3, from threads."""
    return find_spec("aiobotocore") is not None


def _refusal(error: Exception) -> Mapping[str, Any]:
    from botocore.exceptions import ClientError

    if isinstance(error, ClientError):
        response: Mapping[str, Any] = error.response
        return response
    return {"Error": {"Code": UNANSWERED, "Message": str(error)}}
