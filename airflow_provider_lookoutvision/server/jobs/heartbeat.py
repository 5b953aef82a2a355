"""That a worker is there and works: heard of in the database, every few seconds.

A worker that hangs isn't heard of any more: whoever started it, a health check or an alarm sees its age.
"""

from __future__ import annotations

import sqlalchemy as sa

from airflow_provider_lookoutvision.server.storage.database import Database
from airflow_provider_lookoutvision.server.storage.schema import now, upsert, workers

BEAT_SECONDS = 5.0
# Something is wrong with a worker that wasn't heard of for so long; and it is ended after so long.
MISSING_SECONDS, HANGING_SECONDS = 60.0, 300.0
_FORGOTTEN_MILLISECONDS = 24 * 60 * 60 * 1000


def beat(database: Database, owner: str) -> None:
    """Be heard of."""
    with database.write() as connection:
        moment = connection.execute(sa.select(now())).scalar_one()
        known = workers.update().where(workers.c.owner == owner).values(heard_at=moment)
        if connection.execute(known).rowcount == 0:
            row = {"owner": owner, "started_at": moment, "heard_at": moment}
            upsert(connection, workers, [row], key=("owner",))
            connection.execute(workers.delete().where(workers.c.heard_at < moment - _FORGOTTEN_MILLISECONDS))


def stop(database: Database, owner: str) -> None:
    """The worker has ended."""
    with database.write() as connection:
        connection.execute(workers.delete().where(workers.c.owner == owner))


def silence(connection: sa.Connection, owner: str | None = None) -> float | None:
    """For how many seconds a worker, or the one heard of last, has been silent; None if there is none."""
    query = sa.select(now() - sa.func.max(workers.c.heard_at))
    if owner is not None:
        query = query.where(workers.c.owner == owner)
    milliseconds = connection.execute(query).scalar_one()
    return None if milliseconds is None else max(0.0, milliseconds / 1000)
