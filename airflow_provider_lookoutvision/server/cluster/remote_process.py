"""A child process for long work on a node of the cluster, with the interface of ``jobs.child_process``.

It is an actor and not a task of Ray, since it reports its progress while it works. The actor starts the child
process beside it, in a folder of its own. It ends with the process that asked for it, so a worker that is
killed leaves nothing running. A node that is lost counts as the death of the child: the job's handler starts
another, and Ray places that on a node that is left.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import ray
from ray.exceptions import GetTimeoutError, RayError

from airflow_provider_lookoutvision.server.cluster.connection import connect
from airflow_provider_lookoutvision.server.jobs.child_process import ChildProcess
from airflow_provider_lookoutvision.server.settings import Settings

_WAIT_SECONDS = 1.0
_FETCH_SECONDS = 120.0
_WAITING = {"progress": 0.0, "doing": "waiting for a place in the cluster"}

Message = Mapping[str, Any]


class RemoteProcess:
    """A process that runs a module's ``main`` on a node, inside a ``with`` block, and is killed at its end.

    :param module: its ``main`` gets a folder with the files of ``folder``, and a text stream for messages.
    :param results: files and folders that the process leaves. They are in ``folder`` when its last message
        is returned.
    :param cpus: CPUs that are reserved on the node.
    :param gpus: GPUs that are reserved on the node.
    """

    def __init__(
        self, module: str, folder: Path, settings: Settings, results: Sequence[str], cpus: float, gpus: float
    ) -> None:
        connect(settings)
        self._folder, self._results = folder, results
        self._death = "an unknown cause"
        self._started = False
        # It knows nothing of the database: whatever images do to it, it can't reach that.
        configuration = dataclasses.replace(settings, database_url="", cluster="")
        files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        runner = ray.remote(_Runner).options(num_cpus=cpus, num_gpus=gpus, max_restarts=0)
        self._runner: Any = runner.remote(module, files, configuration)
        self._pending = self._runner.messages.remote(_WAIT_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(RayError):
            ray.kill(self._runner)

    def messages(self, timeout: float) -> tuple[list[Message], bool]:
        """The messages since the last call, and whether they were the last.

        :param timeout: seconds to wait for a message.
        """
        try:
            received, over = ray.get(self._pending, timeout=timeout)
        except GetTimeoutError:
            return ([] if self._started else [_WAITING]), False
        except RayError as error:
            self._death = f"the loss of its node or process in the cluster ({_first_line(error)})"
            return [], True
        self._started = True
        if over:
            try:
                self._fetch()
                self._death = ray.get(self._runner.exit_reason.remote(), timeout=_FETCH_SECONDS)
            except RayError as error:
                self._death = f"the loss of its results in the cluster ({_first_line(error)})"
                return [], True
        else:
            self._pending = self._runner.messages.remote(_WAIT_SECONDS)
        return list(received), over

    def exit_reason(self) -> str:
        """Why the process ended, for a message."""
        return self._death

    def _fetch(self) -> None:
        files = ray.get(self._runner.files.remote(list(self._results)), timeout=_FETCH_SECONDS)
        for name, content in files.items():
            path = self._folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


class _Runner:
    """The actor: one child process on the node where it is."""

    def __init__(self, module: str, files: Mapping[str, bytes], settings: Settings) -> None:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        self._temporary = tempfile.TemporaryDirectory(prefix="lookoutvision-")
        self._folder = Path(self._temporary.name)
        for name, content in files.items():
            (self._folder / name).write_bytes(content)
        self._child = ChildProcess(module, self._folder, settings)

    def messages(self, timeout: float) -> tuple[list[Message], bool]:
        received, over = self._child.messages(timeout)
        while not over and any("progress" not in message for message in received):  # its last: it ends now
            more, over = self._child.messages(timeout)
            received += more
        return received, over

    def exit_reason(self) -> str:
        return self._child.exit_reason()

    def files(self, names: Sequence[str]) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for path in (self._folder / name for name in names):
            paths = path.rglob("*") if path.is_dir() else [path]
            found |= {
                str(each.relative_to(self._folder)): each.read_bytes() for each in paths if each.is_file()
            }
        return found


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
