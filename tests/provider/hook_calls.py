"""Calls of a hook as a task and as a trigger make them, and endpoints of services in a connection's extra."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from airflow_provider_lookoutvision.hooks.lookoutvision import LookoutVisionHook

ELSEWHERE = "http://localhost:9/elsewhere"


def services(lookoutvision: str, sts: str | None = None) -> dict[str, Any]:
    config = {"lookoutvision": {"endpoint_url": lookoutvision}}
    return config | ({"sts": {"endpoint_url": sts}} if sts else {})


def list_projects(hook: LookoutVisionHook, *, deferrable: bool, times: int = 1) -> None:
    """Call the service, as a task does or as a trigger does."""

    async def from_a_trigger() -> None:
        async with await hook.get_async_conn() as client:
            for _ in range(times):
                await client.list_projects()

    if deferrable:
        asyncio.run(from_a_trigger())
    else:
        for _ in range(times):
            hook.conn.list_projects()


both = pytest.mark.parametrize("deferrable", [False, True], ids=["sync", "async"])
