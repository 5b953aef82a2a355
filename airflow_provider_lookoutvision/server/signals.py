"""SIGTERM and SIGINT stop a process once: the first one stops it in order, all later ones change nothing.

A process manager, a terminal and an impatient user send several. Python's own handling would end the process
by one that arrives late, even while the interpreter shuts down, and the exit status would be that of a
failure.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def exit_on_stop_signal() -> Iterator[None]:
    """Leave the block by ``SystemExit(0)`` at the first signal; later ones are ignored, after the block too.

    For the main thread, around all that a process does.
    """
    on_stop_signal(lambda: sys.exit(0))
    try:
        yield
    finally:
        # The interpreter resets handlers when it shuts down, and leaves SIG_IGN as it is.
        _handle_by(signal.SIG_IGN)


def on_stop_signal(stop: Callable[[], object]) -> None:
    """Call ``stop`` at the first signal from now on, and nothing at later ones."""

    def handle(*_: object) -> None:
        # A function that does nothing, not SIG_IGN: child processes would inherit that.
        _handle_by(lambda *_: None)
        stop()

    _handle_by(handle)


def _handle_by(handler: Callable[..., object] | signal.Handlers) -> None:
    for number in _STOP_SIGNALS:
        signal.signal(number, handler)
