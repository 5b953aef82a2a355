"""The processes of a service that runs: its worker, its trainings, its inference units; and their threads."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from airflow_provider_lookoutvision.testing.service import Service


def processes(*words: str) -> list[int]:
    """The processes whose command line has all these words."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (
                (entry / "cmdline").read_bytes().decode(errors="replace") if entry.name.isdigit() else ""
            )
        except OSError:
            continue
        if command and all(word in command for word in words):
            found.append(int(entry.name))
    return found


def replicas(service: Service) -> list[int]:
    """The inference units of a service's data directory, whichever process has them."""
    return processes("server.hosting.replica", str(service.data_dir))


def training_processes(service: Service) -> list[int]:
    """The training processes of a service's data directory."""
    return processes("server.models.training_process", str(service.data_dir))


def workers(service: Service) -> list[int]:
    """The workers that a service has started."""
    candidates = processes("server.cli", "\0worker")
    return [pid for pid in candidates if parent(pid) == service.process.pid and is_alive(pid)]


def is_alive(pid: int) -> bool:
    """Whether a process runs or sleeps, and is no zombie."""
    return _state(Path(f"/proc/{pid}")) not in "ZX"


def thread_states(pid: int) -> set[str]:
    """The states of a process's threads, as /proc has them: R, S, T, ..."""
    return {_state(task) for task in Path(f"/proc/{pid}/task").iterdir()}


def signal_another_thread(pid: int, number: int) -> None:
    """Send a signal to a thread of a process that isn't its main one, as the system may do by itself."""
    thread = max(int(task.name) for task in Path(f"/proc/{pid}/task").iterdir())
    assert thread != pid
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.tgkill(pid, thread, number):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def parent(pid: int) -> int:
    """The process that has started another; 0 when that is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _state(task: Path) -> str:
    try:
        return (task / "stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"
