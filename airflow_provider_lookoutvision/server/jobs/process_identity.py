"""Which process is meant, for as long as the machine runs: a process ID alone is given to others again.

An identity has the machine's name, its boot, the namespace of process IDs (each container has its own), the
ID and the moment of the start. Of another machine or container nothing can be said.
"""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

_PATTERN = re.compile(
    r"(?P<host>.{,16})\.(?P<boot>[0-9a-f]{8})\.(?P<space>\d+)\.(?P<pid>\d+)\.(?P<start>\d+)"
)


def own() -> str:
    """The identity of this process, at most 55 characters."""
    host, boot, space = _place()
    return f"{host}.{boot}.{space}.{os.getpid()}.{_start(os.getpid())}"


def is_gone(identity: str) -> bool:
    """Whether a process certainly does not run any more.

    :param identity: as ``own`` gives it; what follows it is ignored.
    """
    found = _PATTERN.match(identity)
    host, boot, space = _place()
    if found is None or found["host"] != host:
        return False
    if found["boot"] != boot:
        return True
    return found["space"] == space and _start(int(found["pid"])) != int(found["start"])


def _place() -> tuple[str, str, str]:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
    return socket.gethostname()[:16], boot, str(Path("/proc/self/ns/pid").stat().st_ino)


def _start(pid: int) -> int:
    """When a process started, in clock ticks since the boot; 0 when there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in "ZX" else int(fields[19])
