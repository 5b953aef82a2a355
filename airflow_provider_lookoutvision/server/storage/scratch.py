"""Folders that a process needs for a while, and that others delete when it has been killed meanwhile.

Their owner holds a lock on them, which ends with it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

HOSTING = "hosting"  # in the data directory: what the replicas unpack
_LEAST_AGE_SECONDS = 60.0  # between a folder and its lock there is a moment


@contextmanager
def folder(root: Path) -> Iterator[Path]:
    """A new folder below ``root``, deleted after the block."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = Path(tempfile.mkdtemp(dir=root))
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(descriptor)


def sweep(root: Path) -> int:
    """Delete the folders below ``root`` whose owners have ended; how many."""
    if not root.is_dir():
        return 0
    return sum(_delete_ownerless(path) for path in root.iterdir())


def _delete_ownerless(path: Path) -> bool:
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if time.time() - os.fstat(descriptor).st_mtime < _LEAST_AGE_SECONDS:
                return False
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path)
        finally:
            os.close(descriptor)
        return True
    return False
