"""Waiting for what comes true in another process."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

# More than anything here takes on a busy machine; the time limit of pytest is shorter for most tests.
_SECONDS = 600

T = TypeVar("T")


def until(poll: Callable[[], T], condition: Callable[[T], bool]) -> T:
    """Poll until the result meets the condition, and return it."""
    deadline = time.monotonic() + _SECONDS
    pause = 0.02
    while not condition(result := poll()):
        assert time.monotonic() < deadline, f"still {result}"
        time.sleep(pause)
        pause = min(pause * 1.1, 0.1)
    return result
