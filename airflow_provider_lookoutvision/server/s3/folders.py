"""The folders of a bucket, by descriptors: no key leads out of its bucket, and no symbolic link is followed.

(A bucket itself may be a link, which the operator of the service has put there.)
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from airflow_provider_lookoutvision.server.s3 import keys

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# Without O_NONBLOCK a named pipe would wait here for its writer, for ever.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
# How it is when there is no such object.
MISSING = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO, errno.EISDIR}


@contextmanager
def folder_of(bucket: Path, key: str, *, create: bool = False) -> Iterator[tuple[int, str]]:
    """A descriptor of the folder that has the key's last part, and that part.

    :param create: make the folders, durably.
    """
    *parents, name = key.removesuffix("/").split("/")
    descriptor = os.open(bucket, _FOLDER)
    try:
        for parent in parents:
            if create:
                make(parent, descriptor)
            child = os.open(parent, _FOLDER | os.O_NOFOLLOW, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = child
        yield descriptor, name
    finally:
        os.close(descriptor)


def make(name: str, parent: int) -> None:
    """Make a folder, if it isn't there, durably."""
    with suppress(FileExistsError):
        os.mkdir(name, dir_fd=parent)
        os.fsync(parent)


def remove(bucket: Path, key: str) -> None:
    """Remove the folder of a key, which has to be empty."""
    with folder_of(bucket, key) as (folder, name):
        os.rmdir(name, dir_fd=folder)


def open_file(name: str, folder: int) -> int:
    """A descriptor of a file; what isn't one can be seen of it."""
    return os.open(name, _FILE, dir_fd=folder)


def status_of(path: Path, key: str) -> os.stat_result | None:
    """The status of the file of a key; None if there is none."""
    try:
        with folder_of(path, key) as (folder, name):
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError as error:
        if error.errno in MISSING:
            return None
        raise
    return status if stat.S_ISREG(status.st_mode) else None


def stamped(descriptor: int, old: os.stat_result | None) -> os.stat_result:
    """The status of a file with a time of its own: no two objects of a key have the same."""
    now = time.time_ns()
    if old is not None and now <= old.st_mtime_ns:
        now = old.st_mtime_ns + 1
    os.utime(descriptor, ns=(now, now))
    status = os.fstat(descriptor)
    if old is not None and status.st_mtime_ns <= old.st_mtime_ns:
        later = old.st_mtime_ns + 2_000_000_000  # a file system that counts seconds
        os.utime(descriptor, ns=(later, later))
        status = os.fstat(descriptor)
    return status


@dataclass(frozen=True)
class Entry:
    """What a walk meets: a file, a folder as a whole, or a folder by itself.

    :param key: the file's; or the folder's path, with its slash.
    :param status: the file's; None for a folder.
    :param is_prefix: whether it is a folder as a whole, which isn't walked through.
    """

    key: str
    status: os.stat_result | None
    is_prefix: bool = False


def walk(bucket: Path, prefix: str = "", after: str = "", *, by_folder: bool = False) -> Iterator[Entry]:
    """The files and folders below a bucket whose keys begin with ``prefix``, from those after ``after`` on.

    The order is S3's: that of the keys' bytes in UTF-8. A folder comes before what is in it.

    :param by_folder: whether a folder stands for all that is below it.
    """
    base = prefix.rpartition("/")[0]
    try:
        with folder_of(bucket, f"{base}/x" if base else "x") as (folder, _):
            root = os.dup(folder)
    except OSError:
        return
    base = f"{base}/" if base else ""
    frames = [(root, base, iter(_entries(root, base)))]
    try:
        if base and base.startswith(prefix) and base > after:
            yield Entry(base, None)
        while frames:
            folder, base, entries = frames[-1]
            name, is_folder, status = next(entries, ("", False, None))
            if not name:
                frames.pop()
                os.close(folder)
                continue
            key = base + name + ("/" if is_folder else "")
            if not key.startswith(prefix) or (key <= after and not after.startswith(key)):
                continue
            if not is_folder:
                if key > after and status is not None:
                    yield Entry(key, status)
            elif by_folder:
                if key > after:
                    yield Entry(key, None, is_prefix=True)
            else:
                if key > after:
                    yield Entry(key, None)
                with suppress(OSError):  # it went in this moment
                    child = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
                    frames.append((child, key, iter(_entries(child, key))))
    finally:
        for folder, _, _ in frames:
            os.close(folder)


def _entries(folder: int, base: str) -> Iterator[tuple[str, bool, os.stat_result | None]]:
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            is_folder = entry.is_dir(follow_symlinks=False)
            if is_folder or entry.is_file(follow_symlinks=False):
                key = base + entry.name + ("/" if is_folder else "")
                if keys.problem(key) is None:
                    found.append((entry.name + ("/" if is_folder else ""), is_folder))
    for name, is_folder in sorted(found):
        name = name.removesuffix("/")
        if is_folder:
            yield name, True, None
        else:
            with suppress(FileNotFoundError):
                yield name, False, os.stat(name, dir_fd=folder, follow_symlinks=False)
