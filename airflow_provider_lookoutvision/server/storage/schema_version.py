"""The version of a database's schema, and the way to the newest one.

Alembic goes that way, and is imported for it alone: it takes a fifth of a process's start, and most processes
find the newest version.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from airflow_provider_lookoutvision.server.settings import SettingsError

_MIGRATIONS = Path(__file__).parent / "migrations"
# Alembic's own.
_TABLE, _COLUMN = "alembic_version", "version_num"


def newest() -> str:
    """The version of this package: of the last migration, whose files begin with their versions."""
    return max(path.name for path in (_MIGRATIONS / "versions").glob("[0-9]*.py")).partition("_")[0]


def current(connection: sa.Connection) -> str | None:
    """The version of a database; None where there has been no migration."""
    if not sa.inspect(connection).has_table(_TABLE):
        return None
    version = connection.execute(sa.select(sa.column(_COLUMN)).select_from(sa.table(_TABLE))).scalar()
    return None if version is None else str(version)


def upgrade(connection: sa.Connection) -> None:
    """Bring the schema to the newest version, in the connection's transaction.

    :raises SettingsError: when the database is newer than this package.
    """
    from alembic import command
    from alembic.config import Config
    from alembic.util.exc import CommandError

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise SettingsError(
            f"a newer version of this package wrote the database ({error}): install that version"
        ) from error
