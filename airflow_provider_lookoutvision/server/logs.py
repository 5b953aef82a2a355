"""Structured logs: one JSON object a line, on standard error.

A line carries the ID of the request that it is about, through threads, jobs and child processes. It has no
secret, no body and no values of a statement: what a database says of the rows at fault is left out. A fault
that comes again and again is shown with its traceback once a minute, and counted meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import IO, Any

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_STORM_SECONDS = 60.0
_MOST_FAULTS = 256
_LONGEST_LINE = 1 << 16
# What PostgreSQL adds to a message, with the values of rows.
_VALUES = re.compile(r"\n(?:DETAIL|CONTEXT|QUERY|STATEMENT|WHERE|LINE \d+):[^\n]*")

log = logging.getLogger("lookoutvision")


@contextmanager
def about_request(identity: str | None) -> Iterator[None]:
    """What is logged inside the block is about this request."""
    token = request_id.set(identity)
    try:
        yield
    finally:
        request_id.reset(token)


class JsonFormatter(logging.Formatter):
    """Formats a record, with what was passed as ``extra``, as one JSON object."""

    def __init__(self) -> None:
        super().__init__()
        self._faults = _Faults()

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        if (identity := request_id.get()) is not None:
            line["request_id"] = identity
        line.update(
            {k: v for k, v in vars(record).items() if k not in _STANDARD and k[0] != "_" and v is not None}
        )
        if record.exc_info and record.exc_info[0] is not None:
            kind, _, trace = record.exc_info
            shown, count = self._faults.count((record.msg, kind, _place(trace)))
            if shown:
                line["exception"] = _VALUES.sub("", self.formatException(record.exc_info))
            else:
                line["fault"] = f"{kind.__module__}.{kind.__qualname__}, whose traceback was logged before"
            if count:
                line["repetitions"] = count
        return json.dumps(line, default=str)


class _Faults:
    """Counts faults of a kind, and says when to show one in full."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[object, tuple[float, int]] = {}

    def count(self, kind: object) -> tuple[bool, int]:
        """Whether to show this one, and how many there were since the last that was shown."""
        with self._lock:
            now = time.monotonic()
            shown_at, count = self._seen.get(kind, (-_STORM_SECONDS, -1))
            count += 1
            if now - shown_at < _STORM_SECONDS:
                self._seen[kind] = shown_at, count
                return False, count
            if len(self._seen) >= _MOST_FAULTS:
                self._seen.clear()
            self._seen[kind] = now, 0
            return True, count


def configure(level: str) -> None:
    """Log everything of this process to standard error in this format: warnings, and its own end, too."""
    stream = logging.StreamHandler(sys.stderr)
    stream.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [stream]
    root.setLevel(logging.WARNING)
    logging.getLogger("lookoutvision").setLevel(level.upper())
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    logging.captureWarnings(True)
    sys.excepthook = _log_end
    threading.excepthook = _log_end_of_thread
    sys.unraisablehook = _log_unraisable


def relay(stream: IO[bytes], **fields: Any) -> None:
    """Log what a child process writes to its standard error, line by line, until it ends.

    :param fields: of each line: which process it is, and what it does.
    """
    while line := stream.readline(_LONGEST_LINE):
        relay_line(line, fields)


async def relay_async(stream: asyncio.StreamReader, fields: Callable[[], Mapping[str, Any]]) -> None:
    """The same of a child process of an event loop; the fields are those of the moment."""
    rest = b""
    while block := await stream.read(_LONGEST_LINE):
        *lines, rest = (rest + block).split(b"\n")
        if len(rest) >= _LONGEST_LINE:
            lines, rest = [*lines, rest], b""
        for line in lines:
            relay_line(line, fields())
    relay_line(rest, fields())


def relay_line(line: bytes, fields: Mapping[str, Any]) -> None:
    """Log a line of a child process: one of its log with these fields too, any other as the text it is."""
    text = line.decode(errors="replace").strip()
    if not text:
        return
    try:
        entry = json.loads(text)
    except ValueError:
        entry = None
    if isinstance(entry, dict) and {"time", "level", "message"} <= set(entry):
        known = {name: value for name, value in fields.items() if value is not None}
        sys.stderr.write(json.dumps({**known, **entry}) + "\n")
        sys.stderr.flush()
    else:
        log.warning("output of a child process", extra={**fields, "text": text})


def _place(trace: TracebackType | None) -> tuple[str, int] | None:
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return (trace.tb_frame.f_code.co_filename, trace.tb_lineno) if trace else None


def _log_end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, Exception):
        log.critical("the process ends by an error", exc_info=(kind, error, trace))


def _log_end_of_thread(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_value is not None and issubclass(arguments.exc_type, Exception):
        where = arguments.thread.name if arguments.thread else None
        log.error(
            "a thread ended by an error",
            exc_info=(arguments.exc_type, arguments.exc_value, arguments.exc_traceback),
            extra={"thread_name": where},
        )


def _log_unraisable(arguments: sys.UnraisableHookArgs) -> None:
    if arguments.exc_value is not None:
        log.warning(
            "an error that nobody could be given",
            exc_info=(arguments.exc_type, arguments.exc_value, arguments.exc_traceback),
        )
