"""Calls that begin at one instant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any, TypeVar

from botocore.exceptions import ClientError

Result = TypeVar("Result")


def at_once(calls: Sequence[Callable[[], Result]]) -> list[Result]:
    """Make all calls at one instant; their results, in their order."""
    barrier = Barrier(len(calls))

    def run(call: Callable[[], Result]) -> Result:
        barrier.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(run, calls))


def outcomes_at_once(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Make all SDK calls at one instant; their results, or the codes of their errors."""

    def outcome(call: Callable[[], Any]) -> Any:
        try:
            return call()
        except ClientError as error:
            return error.response["Error"]["Code"]

    return at_once([lambda call=call: outcome(call) for call in calls])  # type: ignore[misc]
