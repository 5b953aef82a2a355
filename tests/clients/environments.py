"""Each client from its registry, unchanged, in an environment of its own, which is kept beside ``.venv``."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_SECONDS = 600


def python_with(name: str, *packages: str, newest: bool = False) -> Path:
    """The Python of an environment with these packages.

    :param newest: look for newer versions each time.
    """
    folder = ROOT / f".venv-{name}-python{sys.version_info.major}.{sys.version_info.minor}"
    python, complete = folder / "bin" / "python", folder / "complete"
    wanted = "\n".join(packages)
    if not complete.exists() or complete.read_text() != wanted:
        venv.create(folder, clear=True, with_pip=not _uv(), symlinks=True)
        _install(python, packages)
        complete.write_text(wanted)
    elif newest:
        _install(python, ["--upgrade", *packages])
    return python


def node_modules(*packages: str) -> Path:
    """The folder of these packages for Node.js; the test is skipped, and says so, where that isn't."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("NOT RUN: there is no node, or no npm")
    folder = ROOT / ".venv-node"
    wanted = json.dumps({"private": True, "dependencies": dict(each.rsplit("@", 1) for each in packages)})
    complete = folder / "complete"
    if not complete.exists() or complete.read_text() != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "package.json").write_text(wanted)
        command = ["npm", "install", "--silent", "--no-audit", "--no-fund"]
        subprocess.run(command, cwd=folder, check=True, timeout=_SECONDS)
        complete.write_text(wanted)
    return folder


def _install(python: Path, packages: Sequence[str]) -> None:
    installer = [*_uv(), "pip", "install", "--python", python] if _uv() else [python, "-m", "pip", "install"]
    subprocess.run([*installer, "--quiet", *packages], check=True, timeout=_SECONDS)


def _uv() -> list[str]:
    try:
        from uv import find_uv_bin
    except ImportError:
        return []
    return [os.fsdecode(find_uv_bin())]
