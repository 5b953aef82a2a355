"""Asking the service from an event loop: one client, and one pace, for all waits on one connection.

A triggerer may hold a thousand waits. Each with a client of its own would cost megabytes, and all together
more requests than a service takes. So the waits of an event loop share, by connection, what is here: a client
that lives as long as one of them, and for each operation a cadence that spaces the questions, first come
first served. When the service says that it is too much, or that it has trouble, all of them pause.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Hashable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from airflow_provider_lookoutvision.waiters.transient import (
    UNANSWERED,
    is_trouble,
    refusal,
    retry_after,
    status,
)

if TYPE_CHECKING:
    from airflow_provider_lookoutvision.hooks.lookoutvision import LookoutVisionHook

_LONGEST_PAUSE_SECONDS = 60.0
# After so long without an answer it may be the connection that is wrong, and somebody may have edited it.
_STALE_SECONDS = 180.0


def ask(hook: LookoutVisionHook, method: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """Ask once, in this thread: the answer, or the refusal's response."""
    try:
        answer: Mapping[str, Any] = getattr(hook.conn, method)(**arguments)
    except Exception as error:
        return refusal(error)
    return answer


class Cadence:
    """Spaces the questions of one operation."""

    def __init__(self) -> None:
        self._next = 0.0
        self._pause = 0.0
        self._turns = asyncio.Lock()  # whose waiters get it in the order in which they came

    async def turn(self, rate: float) -> None:
        """Wait until it is one's turn.

        :param rate: the most questions a second.
        """
        clock = asyncio.get_running_loop().time
        async with self._turns:
            # Again and again, since the pause may have grown meanwhile.
            while (left := self._next - clock()) > 0:  # noqa: ASYNC110 (nothing here could set an event)
                await asyncio.sleep(left)
            self._next = clock() + 1 / rate

    def heed(self, answer: Mapping[str, Any]) -> None:
        """Pause after trouble: as long as the service says, or else longer each time, with some jitter."""
        if not is_trouble(answer):
            self._pause = 0.0
            return
        self._pause = min(max(2 * self._pause, 1.0), _LONGEST_PAUSE_SECONDS)
        seconds = (retry_after(answer) or self._pause) * random.uniform(1, 1.5)  # noqa: S311
        self._next = max(self._next, asyncio.get_running_loop().time() + seconds)


class _Connected:
    """A client, which is closed once it is retired and the last request that it makes has ended.

    A request whose client is closed under it may never end.

    :param client: of boto3, or of aiobotocore.
    :param stack: what closes it.
    """

    def __init__(self, client: Any, stack: AsyncExitStack) -> None:
        self._client, self._stack = client, stack
        self._requests, self._retired = 0, False

    async def __aenter__(self) -> Any:
        self._requests += 1
        return self._client

    async def __aexit__(self, *_: object) -> None:
        self._requests -= 1
        await self._close_unused()

    async def retire(self) -> None:
        """Make no more requests."""
        self._retired = True
        await self._close_unused()

    async def _close_unused(self) -> None:
        if self._retired and not self._requests:
            await self._stack.aclose()


class Asker:
    """What the waits of one event loop on one connection share.

    The client makes each request once, since repetitions are up to the cadence. When it may be out of date,
    because the service refuses the key or hasn't answered for minutes, it is made anew, of the connection as
    it is by then.

    :param make_hook: makes a hook, which reads the connection.
    """

    def __init__(self, make_hook: Callable[[], LookoutVisionHook]) -> None:
        self.users = 0
        self._make_hook = make_hook
        self._connected: _Connected | None = None
        self._rate = 0.0
        self._cadences: defaultdict[str, Cadence] = defaultdict(Cadence)
        self._unanswered_since: float | None = None
        self._opening = asyncio.Lock()

    async def ask(self, method: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """Ask when it is one's turn: the answer, or the refusal's response."""
        answer, asked = await self._ask(method, arguments)
        if self._is_stale(answer):
            answer, _ = await self._ask(method, arguments, instead_of=asked)
        return answer

    async def close(self) -> None:
        """Close the client."""
        if self._connected:
            await self._connected.retire()

    async def _ask(
        self, method: str, arguments: Mapping[str, Any], instead_of: _Connected | None = None
    ) -> tuple[Mapping[str, Any], _Connected | None]:
        cadence, asked = self._cadences[method], instead_of
        try:
            await self._open(instead_of)
            await cadence.turn(self._rate)
            asked = self._connected
            assert asked  # noqa: S101 (it is open)
            async with asked as client:
                call = partial(getattr(client, method), **arguments)
                answer = await (call() if has_aiobotocore() else asyncio.to_thread(call))
        except Exception as error:
            answer = refusal(error)
        cadence.heed(answer)
        return answer, asked

    async def _open(self, instead_of: _Connected | None) -> None:
        from asgiref.sync import sync_to_async

        async with self._opening:
            if self._connected is not instead_of:
                return  # another wait has opened it
            # The connection is read in a thread, as the Amazon provider does: that takes a while.
            rate, client = await sync_to_async(self._connect)()
            async with AsyncExitStack() as stack:
                if has_aiobotocore():
                    client = await stack.enter_async_context(client)
                self._connected, self._rate = _Connected(client, stack.pop_all()), rate
            if instead_of:
                await instead_of.retire()

    def _connect(self) -> tuple[float, Any]:
        hook = self._make_hook()
        return hook.requests_per_second, hook.client_without_retries(deferrable=has_aiobotocore())

    def _is_stale(self, answer: Mapping[str, Any]) -> bool:
        code = answer.get("Error", {}).get("Code")
        if code != UNANSWERED:
            self._unanswered_since = None
            # What the key may not do is no reason to look for another one.
            return status(answer) in (401, 403) and code != "AccessDeniedException"
        now = asyncio.get_running_loop().time()
        if self._unanswered_since is None:
            self._unanswered_since = now
        if now - self._unanswered_since < _STALE_SECONDS:
            return False
        self._unanswered_since = now
        return True


_askers: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Hashable, Asker]] = WeakKeyDictionary()


@asynccontextmanager
async def asker(make_hook: Callable[[], LookoutVisionHook], connection: Hashable) -> AsyncIterator[Asker]:
    """What the waits of this event loop on a connection share, for one of them.

    :param make_hook: makes a hook for the connection.
    :param connection: equal for the waits that share.
    """
    of_loop = _askers.setdefault(asyncio.get_running_loop(), {})
    shared = of_loop.setdefault(connection, Asker(make_hook))
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
