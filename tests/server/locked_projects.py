"""A lock that lets every request that writes a project wait."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from services import Storage


@contextmanager
def projects_locked(storage: Storage) -> Iterator[None]:
    """Let every request that writes a project wait for as long as the block runs."""
    with storage.database.write() as connection:  # on SQLite, this is all it takes
        if connection.dialect.name == "postgresql":
            connection.execute(sa.text("LOCK TABLE projects IN EXCLUSIVE MODE"))
        yield
