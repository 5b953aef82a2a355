"""How the applications of Ray Serve are: read once a second, for all hosted models of this process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Protocol

import anyio.to_thread
from ray import serve

from airflow_provider_lookoutvision.server.cluster.connection import connect, log_as_the_service
from airflow_provider_lookoutvision.server.settings import Settings

_POLL_SECONDS = 1.0

log = logging.getLogger("lookoutvision")


class Watcher(Protocol):
    """Who is to know how an application is."""

    def see(self, application: Any) -> None:
        """Take note of an ``ApplicationStatusOverview``, or None when there is no such application."""


class Applications:
    """The applications of the cluster, and who watches them, in one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._watchers: dict[str, Watcher] = {}
        self._added = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None
        self._connected = False

    def watch(self, name: str, watcher: Watcher) -> None:
        """Show a watcher how an application is, at once and from then on."""
        self._watchers[name] = watcher
        self._added.set()
        if self._watching is None:
            self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def forget(self, name: str) -> None:
        """Don't show its watcher an application any more; without watchers nothing is read."""
        self._watchers.pop(name, None)
        if not self._watchers and self._watching is not None:
            watching, self._watching = self._watching, None
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching

    async def _watch(self) -> None:
        while True:
            self._added.clear()
            try:
                found = await anyio.to_thread.run_sync(self._read)
                for name, watcher in list(self._watchers.items()):
                    watcher.see(found.get(name))
            except Exception:  # the cluster may be back in a moment
                self._connected = False
                log.exception("the cluster doesn't answer")
            with suppress(TimeoutError):
                async with asyncio.timeout(_POLL_SECONDS):
                    await self._added.wait()

    def _read(self) -> Mapping[str, Any]:
        if not self._connected:
            connect(self._settings)
            serve.start(proxy_location="Disabled")
            log_as_the_service()
            self._connected = True
        found: Mapping[str, Any] = serve.status().applications
        return found
