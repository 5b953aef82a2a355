"""What a process has used, from the kernel."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Literal


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, all its threads, to the nanosecond."""
    return time.clock_gettime(~pid << 3 | 2)  # what clock_getcpuclockid(3) makes of a process ID on Linux


def memory_mebibytes(pid: int, field: Literal["VmRSS", "VmHWM"]) -> float:
    """What of a process is resident: now (``VmRSS``), or at most so far (``VmHWM``)."""
    match = re.search(rf"^{field}:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(match[1]) / 1024 if match else 0.0


def children(pid: int) -> list[int]:
    """The processes that a process has started, in any of its threads."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]
