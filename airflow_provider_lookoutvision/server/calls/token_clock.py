"""The clock by which client tokens are forgotten: it goes on while the service runs, by what really passes.

A machine's clock may be hours ahead for a while, after a power failure for example, and by one look at it
tokens that are minutes old would be forgotten, and a retry would take effect again. So this clock is kept in
the database, and goes on by what two looks are apart: by the clock of this process that can't be set, and by
the machine's, whichever is less. It stands still while no process runs.
"""

from __future__ import annotations

import time

from airflow_provider_lookoutvision.server.storage.database import Database
from airflow_provider_lookoutvision.server.storage.schema import service_state

_NAME = "token_clock"


class TokenClock:
    """The clock as one process sees it: ``now`` is of its last look, in milliseconds since the epoch."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._looked_at = time.monotonic()
        with database.read() as connection:
            row = connection.execute(service_state.select().where(service_state.c.name == _NAME)).one()
        self.now = int(row.value)

    def advance(self) -> int:
        """Look at it, and let it go on; the new ``now``."""
        looked_at, machine = time.monotonic(), time.time_ns() // 1_000_000
        passed = int((looked_at - self._looked_at) * 1000)
        this = service_state.c.name == _NAME
        with self._database.write() as connection:
            row = connection.execute(service_state.select().where(this).with_for_update()).one()
            # Of several processes, each adds what the others have not.
            self.now = int(row.value) + max(0, min(passed, machine - row.seen_at))
            connection.execute(
                service_state.update().where(this).values(value=str(self.now), seen_at=machine)
            )
        self._looked_at = looked_at
        return self.now
