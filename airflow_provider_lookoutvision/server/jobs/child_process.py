"""A child process for long work, the leader of its own process group, so that all of it can be killed.

It writes messages to its standard output, a JSON object a line; what else it prints goes to this process's
log. When its standard input ends, its parent has ended, and it kills its process group.
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from airflow_provider_lookoutvision.server import logs
from airflow_provider_lookoutvision.server.jobs.child_environment import environ_with_buckets
from airflow_provider_lookoutvision.server.settings import ENVIRONMENT_PREFIX, Settings

_CAUSES: Mapping[int, str] = {
    signal.SIGKILL: "the machine's memory is full",
    signal.SIGBUS: "the disk is full",
}


class ProcessDied(Exception):
    """A child process ended without a result, or hung; the message is the reason."""


class Process(Protocol):
    """A process for long work, wherever it runs, inside a ``with`` block; it is killed at its end."""

    def __enter__(self) -> Self:
        """Nothing more."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill it."""

    def messages(self, timeout: float) -> tuple[list[Mapping[str, Any]], bool]:
        """The messages since the last call, and whether they were the last.

        :param timeout: seconds to wait for a message.
        """

    def exit_reason(self) -> str:
        """Why the process ended, for a message."""


class ChildProcess:
    """A process that runs a module's ``main``, inside a ``with`` block, and is killed at its end.

    :param module: its ``main`` gets the folder and a text stream for messages.
    :param configuration: settings, passed to the child by its environment.
    """

    def __init__(self, module: str, folder: Path, configuration: Settings) -> None:
        self._process = subprocess.Popen(  # noqa: S603 (our own command)
            [sys.executable, "-m", __name__, module, str(folder)],
            env=environ_with_buckets(configuration),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        about = {"process": module.rpartition(".")[2], "pid": self._process.pid}
        about |= {"request_id": logs.request_id.get(), "folder": folder.parent.name}
        self._relay = threading.Thread(
            target=logs.relay, args=(self._process.stderr,), kwargs=about, daemon=True
        )
        self._relay.start()
        self._messages: queue.Queue[Mapping[str, Any] | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read_messages, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join()
        self._relay.join()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe:
                pipe.close()

    def messages(self, timeout: float) -> tuple[list[Mapping[str, Any]], bool]:
        """The messages since the last call, and whether they were the last.

        :param timeout: seconds to wait for a message.
        """
        received: list[Mapping[str, Any]] = []
        with suppress(queue.Empty):
            message = self._messages.get(timeout=timeout)
            while message is not None:
                received.append(message)
                message = self._messages.get_nowait()
            return received, True
        return received, False

    def exit_reason(self) -> str:
        """Why the process ended, for a message."""
        status = self._process.wait()
        if status >= 0:
            return f"exit status {status}"
        name = signal.Signals(-status).name
        return f"{name}, as when {_CAUSES[-status]}" if -status in _CAUSES else name

    def _read_messages(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 (a pipe was asked for)
        for line in self._process.stdout:
            with suppress(ValueError):  # a line cut short by its death
                self._messages.put(json.loads(line))
        self._messages.put(None)


def not_installed_message(error: ModuleNotFoundError) -> str:
    """What to install when the engine can't be imported."""
    return (
        f"{error.name} is not installed where the service runs: pip install "
        "'airflow-provider-lookoutvision[server,engine]'"
    )


def _run(module: str, folder: str) -> int:
    # Before anything large is imported: if the parent dies at once, the child must not import for seconds.
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    logs.configure(os.environ.get(f"{ENVIRONMENT_PREFIX}LOG_LEVEL", "info"))
    # What a library prints goes to the log, not between the messages.
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        return int(importlib.import_module(module).main(Path(folder), output))
    except ModuleNotFoundError as error:
        output.write(json.dumps({"fault": not_installed_message(error)}) + "\n")
        output.flush()
        return 1


def _end_with_the_parent() -> None:
    while os.read(0, 4096):
        pass
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(_run(*sys.argv[1:]))
