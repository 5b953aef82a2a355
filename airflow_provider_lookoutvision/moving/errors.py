"""The error for the user of an import, an export or a diagnosis."""

from __future__ import annotations

from collections.abc import Iterable

_SHOWN = 5


class MovingError(Exception):
    """What stands in the way, where, and what to do about it. Nothing was lost."""


class ServiceFault(MovingError):
    """The service failed: the same may succeed later."""


def some(names: Iterable[str]) -> str:
    """The first few of the names, and how many more there are."""
    every = list(names)
    left = len(every) - _SHOWN
    return (", ".join(every[:_SHOWN]) or "nothing") + (f" and {left} more" if left > 0 else "")
