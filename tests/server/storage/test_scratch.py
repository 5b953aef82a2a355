"""What killed processes leave on the disk, and that it is found again."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from airflow_provider_lookoutvision.server.s3 import temporary
from airflow_provider_lookoutvision.server.storage import scratch


@contextmanager
def running(program: str, *arguments: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that runs a program, which says when it is where it should be."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "now\n"
        yield process
        process.kill()


def age(path: Path) -> None:
    os.utime(path, (0, 0))


HOLD = """
import sys
from pathlib import Path
from airflow_provider_lookoutvision.server.storage import scratch
with scratch.folder(Path(sys.argv[1])) as folder:
    (folder / "model.onnx").write_bytes(b"x")
    print("now", flush=True)
    sys.stdin.read()
"""


def test_the_folder_of_a_killed_process_is_swept(tmp_path: Path) -> None:
    root = tmp_path / "hosting"
    assert scratch.sweep(root) == 0
    with running(HOLD, root) as process:
        [folder] = root.iterdir()
        assert folder.stat().st_mode & 0o777 == 0o700
        age(folder)
        assert scratch.sweep(root) == 0, "its owner lives"
        process.kill()
        process.wait()
    assert list(root.iterdir()) == [folder]
    assert scratch.sweep(root) == 1
    assert list(root.iterdir()) == []


def test_the_owner_deletes_it_and_a_new_one_is_left_alone(tmp_path: Path) -> None:
    with scratch.folder(tmp_path) as folder:
        assert list(tmp_path.iterdir()) == [folder]
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "begun-a-moment-ago").mkdir()
    assert scratch.sweep(tmp_path) == 0


WRITE = """
import os, sys
from pathlib import Path
from airflow_provider_lookoutvision.server.storage.buckets import Location
from airflow_provider_lookoutvision.server.storage.directory_store import DirectoryStore
def fsync(descriptor):
    print("now", flush=True)
    sys.stdin.read()
os.fsync = fsync
DirectoryStore(Path(sys.argv[1])).write(Location("parts", "a/b/result.json"), b"x" * 100)
"""


def test_what_a_killed_writer_of_a_result_leaves_is_swept(tmp_path: Path) -> None:
    with running(WRITE, tmp_path) as process:
        [left] = [path for path in tmp_path.rglob("*") if path.is_file()]
        age(left)
        assert temporary.sweep(tmp_path / "parts") == 0, "it is being written"
        process.kill()
        process.wait()
    assert temporary.sweep(tmp_path / "parts") == 1
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
