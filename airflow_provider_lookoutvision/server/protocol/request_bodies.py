"""Reading the bodies of requests: no more bytes than there is room for, and no longer than it takes.

What has arrived of large bodies counts against one budget, so that who announces much and sends nothing takes
nothing from others. A body that doesn't come is given up; a slow line has the time it needs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import Request

from airflow_provider_lookoutvision.server.protocol.errors import RequestTimeoutException, ThrottlingException

# RequestBodies up to this size are bounded by the number of connections alone.
SMALL = 64 << 10
_SECONDS, _BYTES_A_SECOND = 20.0, 64 << 10


class RequestBodies:
    """The bodies that this process holds.

    :param most: how many bytes of large ones at a time.
    """

    def __init__(self, most: int) -> None:
        self._most, self._held = most, 0

    @asynccontextmanager
    async def read(self, request: Request, length: int) -> AsyncIterator[bytes]:
        """A body, which is held while the block runs.

        :param length: the most bytes that it can have.
        :raises ThrottlingException: when there is no room for it, beside the others.
        :raises RequestTimeoutException: when it doesn't come.
        """
        if not length:
            yield b""
            return
        # One buffer that grows would be copied again and again, and leave holes in the memory.
        chunks: list[bytes] = []
        received = 0
        counts = length > SMALL
        seconds = _SECONDS + length / _BYTES_A_SECOND
        try:
            if counts:
                self._check(length)
            try:
                async with asyncio.timeout(seconds):
                    async for chunk in request.stream():
                        if counts:
                            self._check(len(chunk))
                            self._held += len(chunk)
                        chunks.append(chunk)
                        received += len(chunk)
                        if received > length:
                            break
            except TimeoutError:
                raise RequestTimeoutException(
                    f"{received} bytes of the body came in {seconds:.0f} s, and then no more"
                ) from None
            yield b"".join(chunks)
        finally:
            self._held -= received if counts else 0

    def _check(self, count: int) -> None:
        if self._held + count > self._most:
            raise ThrottlingException(
                "The service is busy with other large requests", quota_code="large_bodies", retry_after=1
            )
