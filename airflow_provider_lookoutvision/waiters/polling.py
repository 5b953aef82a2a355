"""Polling the service from an event loop: one client and one rate limit for all waits on one connection.

A triggerer may run a thousand waits. With a client each they would cost megabytes, and together they would
send more requests than the service takes. So the waits of an event loop share, by connection, one client,
which lives as long as one of them, and one rate limiter for each operation, first come first served. After a
transient error all of them pause.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Hashable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from airflow_provider_lookoutvision.waiters.transient import (
    CONNECTION_FAILED,
    Backoff,
    error_code,
    error_response,
    http_status,
    is_transient,
)

if TYPE_CHECKING:
    from airflow_provider_lookoutvision.hooks.lookoutvision import LookoutVisionHook

_LONGEST_PAUSE_SECONDS = 60.0
# After so long without a response the connection may be wrong, and somebody may have edited it.
_STALE_SECONDS = 180.0


def poll(hook: LookoutVisionHook, method: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """Send one request from this thread, and return its response or its error response."""
    try:
        response: Mapping[str, Any] = getattr(hook.conn, method)(**arguments)
    except Exception as error:
        return error_response(error)
    return response


class RateLimiter:
    """Spaces the requests of one operation, and pauses all of them after a transient error."""

    def __init__(self) -> None:
        self._next = 0.0
        self._backoff = Backoff(_LONGEST_PAUSE_SECONDS)
        self._queue = asyncio.Lock()  # which is acquired in the order of the requests

    async def acquire(self, rate: float) -> None:
        """Wait until a request may be sent.

        :param rate: the most requests a second.
        """
        clock = asyncio.get_running_loop().time
        async with self._queue:
            # In a loop, since a pause may have begun or grown meanwhile.
            while (left := max(self._next, self._backoff.resume_at) - clock()) > 0:  # noqa: ASYNC110 (nothing here could set an event)
                await asyncio.sleep(left)
            self._next = clock() + 1 / rate

    def back_off(self, response: Mapping[str, Any]) -> None:
        """Pause if a response is a transient error."""
        if is_transient(response):
            self._backoff.fail(response, asyncio.get_running_loop().time())
        else:
            self._backoff.succeed()


class _OpenClient:
    """A client that is closed once it has been retired and its last request has ended.

    A request whose client is closed under it may never end.

    :param client: of boto3 or aiobotocore.
    :param stack: closes the client.
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
        """Send no further requests."""
        self._retired = True
        await self._close_unused()

    async def _close_unused(self) -> None:
        if self._retired and not self._requests:
            await self._stack.aclose()


class SharedPollingClient:
    """The client and the rate limiters that the waits of one event loop on one connection share.

    The client sends each request once; repeating it is up to the rate limiters. When its settings may be out
    of date, because the service refuses the key or hasn't responded for minutes, a new client is made from
    the connection as it is then.

    :param make_hook: makes a hook, which reads the connection.
    """

    def __init__(self, make_hook: Callable[[], LookoutVisionHook]) -> None:
        self.users = 0
        self._make_hook = make_hook
        self._open_client: _OpenClient | None = None
        self._rate = 0.0
        self._limiters: defaultdict[str, RateLimiter] = defaultdict(RateLimiter)
        self._no_response_since: float | None = None
        self._opening = asyncio.Lock()

    async def poll(self, method: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """Send a request when the rate limit allows, and return its response or its error response."""
        response, used = await self._poll(method, arguments)
        if self._is_stale(response):
            response, _ = await self._poll(method, arguments, replacing=used)
        return response

    async def close(self) -> None:
        """Close the client."""
        if self._open_client:
            await self._open_client.retire()

    async def _poll(
        self, method: str, arguments: Mapping[str, Any], replacing: _OpenClient | None = None
    ) -> tuple[Mapping[str, Any], _OpenClient | None]:
        limiter, used = self._limiters[method], replacing
        try:
            await self._open(replacing)
            await limiter.acquire(self._rate)
            used = self._open_client
            assert used  # noqa: S101 (it is open)
            async with used as client:
                call = partial(getattr(client, method), **arguments)
                response = await (call() if has_aiobotocore() else asyncio.to_thread(call))
        except Exception as error:
            response = error_response(error)
        limiter.back_off(response)
        return response, used

    async def _open(self, replacing: _OpenClient | None) -> None:
        from asgiref.sync import sync_to_async

        async with self._opening:
            if self._open_client is not replacing:
                return  # another wait has opened it
            # The connection is read in a thread, as the Amazon provider does: that takes a while.
            rate, client = await sync_to_async(self._connect)()
            async with AsyncExitStack() as stack:
                if has_aiobotocore():
                    client = await stack.enter_async_context(client)
                self._open_client, self._rate = _OpenClient(client, stack.pop_all()), rate
            if replacing:
                await replacing.retire()

    def _connect(self) -> tuple[float, Any]:
        hook = self._make_hook()
        return hook.requests_per_second, hook.client_without_retries(deferrable=has_aiobotocore())

    def _is_stale(self, response: Mapping[str, Any]) -> bool:
        code = error_code(response)
        if code != CONNECTION_FAILED:
            self._no_response_since = None
            # A key that lacks a permission is no reason to look for another key.
            return http_status(response) in (401, 403) and code != "AccessDeniedException"
        now = asyncio.get_running_loop().time()
        if self._no_response_since is None:
            self._no_response_since = now
        if now - self._no_response_since < _STALE_SECONDS:
            return False
        self._no_response_since = now
        return True


_shared_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Hashable, SharedPollingClient]] = (
    WeakKeyDictionary()
)


@asynccontextmanager
async def shared_polling_client(
    make_hook: Callable[[], LookoutVisionHook], connection: Hashable
) -> AsyncIterator[SharedPollingClient]:
    """The client that this event loop's waits on a connection share, kept open while one of them uses it.

    :param make_hook: makes a hook for the connection.
    :param connection: equal for the waits that share.
    """
    of_loop = _shared_clients.setdefault(asyncio.get_running_loop(), {})
    shared = of_loop.setdefault(connection, SharedPollingClient(make_hook))
    shared.users += 1
    try:
        yield shared
    finally:
        shared.users -= 1
        if not shared.users:
            del of_loop[connection]
            await shared.close()


def has_aiobotocore() -> bool:
    """Whether requests are sent with aiobotocore; without it they are sent with boto3, from threads."""
    return find_spec("aiobotocore") is not None
