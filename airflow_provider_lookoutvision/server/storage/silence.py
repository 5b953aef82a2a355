"""PostgreSQL that falls silent: what is waited for has an end, and meanwhile nobody waits for the same again.

TCP notices a dead peer by keepalives and time-outs, but not one whose network still confirms what comes, nor
a server that is stopped. So a connection also waits for each answer for a bounded time, and is closed then.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from typing import Any, TypeVar

import sqlalchemy as sa
from psycopg import Connection, OperationalError

CONNECT_SECONDS = 5
PING_SECONDS = 2.0
# What the server allows a statement, and a wait for a lock.
STATEMENT_SECONDS = 20
ANSWER_SECONDS = 25.0
# A migration may rewrite a table, and waits for one that another process does.
UPGRADE_SECONDS = 3600.0
_RETRY_SECONDS = 2.0

CONNECT_ARGUMENTS = {
    "connect_timeout": CONNECT_SECONDS,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}

Value = TypeVar("Value")


class BoundedConnection(Connection[Any]):
    """A connection that waits ``answer_seconds`` for an answer, and then closes itself."""

    answer_seconds = ANSWER_SECONDS

    def wait(self, gen: Generator[Any, Any, Value], *arguments: Any, **keywords: Any) -> Value:
        """Run one of psycopg's generators.

        :raises psycopg.OperationalError: when the server does not answer in time.
        """
        return super().wait(self._until(gen, time.monotonic() + self.answer_seconds), *arguments, **keywords)

    def _until(self, gen: Generator[Any, Any, Value], deadline: float) -> Generator[Any, Any, Value]:
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and time.monotonic() > deadline:
                    self.pgconn.finish()
                    raise OperationalError("the server does not answer")
                wanted = gen.send(ready)
        except StopIteration as end:
            value: Value = end.value
            return value


def bound(engine: sa.Engine) -> None:
    """Let the connections of an engine wait as described."""
    silence = _Silence()
    sa.event.listen(engine, "do_connect", silence.connect)
    ping = engine.dialect.do_ping

    def bounded_ping(connection: Any) -> bool:
        connection.answer_seconds = PING_SECONDS
        try:
            return bool(ping(connection))
        finally:
            connection.answer_seconds = ANSWER_SECONDS

    engine.dialect.do_ping = bounded_ping  # type: ignore[method-assign,assignment]


def allow_long_statements(connection: sa.Connection) -> None:
    """Give the statements of this transaction, and the waits in it, the time of a migration."""
    connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
    connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
    driver_connection: Any = connection.connection.driver_connection
    driver_connection.answer_seconds = UPGRADE_SECONDS  # until the next ping


class _Silence:
    """After an attempt to connect that took its whole time, others fail at once, for a moment."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until = 0.0

    def connect(self, _dialect: Any, _record: Any, arguments: Any, keywords: Any) -> BoundedConnection:
        if time.monotonic() < self._until:
            raise OperationalError("the server has just not answered; it is tried again in a moment")
        begin = time.monotonic()
        try:
            connection = BoundedConnection.connect(*arguments, **keywords)
        except OperationalError:
            if time.monotonic() - begin > CONNECT_SECONDS / 2:
                with self._lock:
                    self._until = time.monotonic() + _RETRY_SECONDS
            raise
        self._until = 0.0
        return connection
