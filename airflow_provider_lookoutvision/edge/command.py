"""The command of the agent: ``lookoutvision edge-agent``, or ``python agent.py`` in an unpacked component.

What it needs beside Python is imported when it runs, so that its help can be shown without that.
"""

from __future__ import annotations

import argparse
import fcntl
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

# Where AWS's clients look for it.
SOCKET = Path("/tmp/aws.iot.lookoutvision.EdgeAgent.sock")  # noqa: S108
EVERY = "all"
NEEDED = ("onnxruntime", "numpy", "pillow", "grpcio")
_LONGEST_PATH = 107
_LEAVE_SECONDS = 10
# A signal that the system gives to another thread is handled when a wait of the main thread ends.
_SIGNAL_SECONDS = 1.0

log = logging.getLogger("lookoutvision.edge")


def add_arguments(parser: argparse.ArgumentParser, components: Path | None = None) -> None:
    """The arguments of the command.

    :param components: where components are, unless it is said.
    """
    parser.add_argument(
        "--components",
        type=Path,
        required=components is None,
        default=components,
        metavar="DIR",
        help="the folder of unpacked components, up to four levels below it"
        + (" (default: %(default)s)" if components else ""),
    )
    parser.add_argument(
        "--socket", type=Path, default=SOCKET, metavar="PATH", help="the Unix socket (default: %(default)s)"
    )
    parser.add_argument(
        "--start",
        action="append",
        default=[],
        metavar="COMPONENT",
        help=f"start this model, or {EVERY}, at once; may be repeated (default: none)",
    )
    parser.add_argument(
        "--threads", type=_count, metavar="N", help="of each model (default: as many as there are cores)"
    )
    parser.add_argument(
        "--queue",
        type=_positive,
        default=8,
        metavar="N",
        help="images that a model takes at a time, before it refuses more (default: %(default)s)",
    )
    parser.add_argument(
        "--wait",
        action="store_true",
        help="where another agent has the socket, wait until it ends and take its place",
    )


def run(flags: argparse.Namespace) -> int:
    """Run the agent until SIGTERM or SIGINT; 0, or 2 when something must be given differently."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    if not flags.components.is_dir():
        return _complain(f"--components {flags.components} is no folder")
    if len(os.fsencode(flags.socket)) > _LONGEST_PATH:
        return _complain(
            f"--socket {flags.socket} is longer than the {_LONGEST_PATH} bytes that a socket's path may have"
        )
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    try:
        with Path(f"{flags.socket}.lock").open("w") as lock:
            if not _lock(lock, stopping, wait=flags.wait):
                if stopping.is_set():
                    return 0
                return _complain(
                    f"another agent has the socket {flags.socket}: end it, or give --wait or --socket"
                )
            return _serve(flags, stopping)
    except ModuleNotFoundError as error:
        return _complain(f"{error.name} is not installed: pip install {' '.join(NEEDED)}")
    except OSError as error:
        return _complain(f"--socket {flags.socket} can't be used: {error.strerror}")


def main(arguments: Sequence[str] | None = None, components: Path | None = None) -> int:
    """The command of an unpacked component."""
    parser = argparse.ArgumentParser(description="Detect anomalies for the programs on this device.")
    add_arguments(parser, components)
    return run(parser.parse_args(arguments))


def _serve(flags: argparse.Namespace, stopping: threading.Event) -> int:
    from airflow_provider_lookoutvision.edge.agent import EdgeAgent, server
    from airflow_provider_lookoutvision.edge.edge_agent_pb2 import ModelStatus
    from airflow_provider_lookoutvision.edge.models import Models, Refused

    models = Models(flags.components, threads=flags.threads, queue=flags.queue)
    there = models.all()
    wanted = list(there) if EVERY in flags.start else [name for name in flags.start if name]
    try:
        for name in wanted:
            models.find(name).start()
    except Refused as refused:
        return _complain(f"--start: {refused}")
    try:
        listening = server(EdgeAgent(models), f"unix:{flags.socket.absolute()}")
    except RuntimeError as error:
        return _complain(f"--socket {flags.socket} can't be used: {error}")
    listening.start()
    log.info("listening on %s; models: %s", flags.socket, ", ".join(there) or "none yet")
    while not stopping.wait(_SIGNAL_SECONDS):
        pass
    listening.stop(_LEAVE_SECONDS).wait()
    for model in models.all().values():
        if model.settled().status == ModelStatus.RUNNING:
            model.stop()
    return 0


def _lock(lock: TextIO, stopping: threading.Event, *, wait: bool) -> bool:
    """Be the only agent at the socket, whose path a second one would take from the first."""
    said = False
    while not stopping.is_set():
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                return False
            if not said:
                log.info("another agent has the socket; waiting until it ends")
                said = True
            stopping.wait(1)
        else:
            return True
    return False


def _count(text: str) -> int | None:
    return _positive(text) if text else None


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def _complain(message: str) -> int:
    print(f"lookoutvision edge-agent: {message}", file=sys.stderr)  # noqa: T201
    return 2
