"""Waiting for what comes true in another process."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

# More than anything here takes, on the busiest machine: it ends a test that would wait for ever.
_SECONDS = 150

T = TypeVar("T")


def until(poll: Callable[[], T], condition: Callable[[T], bool]) -> T:
    """Poll until the result meets the condition, and return it."""
    deadline = time.monotonic() + _SECONDS
    while not condition(result := poll()):
        assert time.monotonic() < deadline, f"still {result}"
        time.sleep(0.02)
    return result
