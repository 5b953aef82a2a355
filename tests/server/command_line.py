"""The command ``lookoutvision``, as another process and in this one."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow_provider_lookoutvision.server import cli

COMMAND = (sys.executable, "-m", "airflow_provider_lookoutvision.server.cli")


@dataclass(frozen=True)
class Outcome:
    """What a command ended with, and said."""

    status: int
    out: str
    err: str


def run_command(*arguments: str | Path) -> Outcome:
    """Run a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = cli.main([str(argument) for argument in arguments])
        except SystemExit as end:
            status = int(end.code or 0)
    return Outcome(status, out.getvalue(), err.getvalue())


def start_command(
    *arguments: str | Path, environ: Mapping[str, str] | None = None, **options: Any
) -> subprocess.Popen[str]:
    """Start a command in another process."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.Popen(command, env={**os.environ, **(environ or {})}, **pipes, **options)


def wait_for_end(process: subprocess.Popen[str]) -> Outcome:
    """Wait until it has ended."""
    try:
        out, err = process.communicate(timeout=90)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return Outcome(process.returncode, out, err)


def error_message(outcome: Outcome) -> str:
    """The one line with which a command fails."""
    assert outcome.status == 2, outcome
    assert outcome.out == ""
    assert outcome.err.startswith("lookoutvision: ")
    assert "Traceback" not in outcome.err
    return outcome.err


def wait_until_listening(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What ``serve`` said until it listened, and where it does."""
    assert process.stdout
    said = ""
    for line in process.stdout:
        said += line
        if "listening on" in line:
            return said, line.split()[-1]
    raise AssertionError(f"it ended instead: {said}{wait_for_end(process)}")
