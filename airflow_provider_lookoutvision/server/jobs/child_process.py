"""A child process that does long work: the leader of a process group of its own, so that all of it ends.

It says what it has to say on its standard output, a JSON object a line; what it prints otherwise goes to this
process's standard error. When its standard input ends its parent has gone, and it ends with all its group.
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
from typing import Any, Self

from airflow_provider_lookoutvision.server.settings import Settings, as_environ

_CAUSES: Mapping[int, str] = {
    signal.SIGKILL: "the machine's memory is full",
    signal.SIGBUS: "the disk is full",
}


class Child:
    """A process that does a module's ``main``, inside a ``with`` block and killed at its end.

    :param module: whose ``main`` gets the folder and a text stream for its messages.
    :param configuration: settings that the child finds in its environment.
    """

    def __init__(self, module: str, folder: Path, configuration: Settings) -> None:
        self._process = subprocess.Popen(  # noqa: S603 (our own command)
            [sys.executable, "-m", __name__, module, str(folder)],
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
        name = signal.Signals(-status).name
        return f"{name}, as when {_CAUSES[-status]}" if -status in _CAUSES else name

    def _listen(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 (a pipe was asked for)
        for line in self._process.stdout:
            with suppress(ValueError):  # a line cut short by its death
                self._messages.put(json.loads(line))
        self._messages.put(None)


def not_installed(error: ModuleNotFoundError) -> str:
    """What to do where the engine is missed."""
    return (
        f"{error.name} is not installed where the service runs: pip install "
        "'airflow-provider-lookoutvision[server,engine]'"
    )


def _work(module: str, folder: str) -> int:
    # Before anything large is imported: who dies at once leaves no child behind that imports for seconds.
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    # What a library prints goes to the log, not between the messages.
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        main = importlib.import_module(module).main
    except ModuleNotFoundError as error:
        output.write(json.dumps({"fault": not_installed(error)}) + "\n")
        output.flush()
        return 1
    return int(main(Path(folder), output))


def _end_with_the_parent() -> None:
    while os.read(0, 4096):
        pass
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(_work(*sys.argv[1:]))
