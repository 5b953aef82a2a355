"""A child process that does long work: the leader of a process group of its own, so that all of it ends.

It says what it has to say on its standard output, a JSON object a line, and ends when its standard input
does. What it prints otherwise goes to this process's standard error.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from airflow_provider_lookoutvision.server.settings import Settings, as_environ


class Child:
    """``python -m <module> <argument>``, running inside a ``with`` block and killed at its end.

    :param configuration: settings that the child finds in its environment.
    """

    def __init__(self, module: str, argument: str, configuration: Settings) -> None:
        self._process = subprocess.Popen(  # noqa: S603 (our own command)
            [sys.executable, "-m", module, argument],
            env={**os.environ, **as_environ(configuration)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._messages: queue.Queue[Mapping[str, Any] | None] = queue.Queue()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._listener.join()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()

    def messages(self, timeout: float) -> tuple[list[Mapping[str, Any]], bool]:
        """What it has said since, waiting at most ``timeout`` seconds for it; and whether that was all."""
        said: list[Mapping[str, Any]] = []
        with suppress(queue.Empty):
            message = self._messages.get(timeout=timeout)
            while message is not None:
                said.append(message)
                message = self._messages.get_nowait()
            return said, True
        return said, False

    def reason(self) -> str:
        """How it ended, in words."""
        status = self._process.wait()
        if status >= 0:
            return f"exit status {status}"
        return signal.Signals(-status).name

    def _listen(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 (a pipe was asked for)
        for line in self._process.stdout:
            with suppress(ValueError):  # a line cut short by its death
                self._messages.put(json.loads(line))
        self._messages.put(None)
