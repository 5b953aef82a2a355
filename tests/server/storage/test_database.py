"""What a transaction promises on each database."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa
from services import Storage

from airflow_provider_lookoutvision.server.storage.database import Database
from airflow_provider_lookoutvision.server.storage.schema import insert_new, projects


def row(account: str, name: str = "p") -> dict[str, object]:
    return {"account_id": account, "region": "r", "name": name, "created_at": 0}


def count(connection: sa.Connection, account: str) -> int:
    of_account = sa.select(sa.func.count()).select_from(projects).where(projects.c.account_id == account)
    return connection.execute(of_account).scalar_one()


def test_a_block_that_raises_writes_nothing(storage: Storage, account: str) -> None:
    def write_and_raise() -> None:
        with storage.database.write() as connection:
            assert insert_new(connection, projects, **row(account))
            raise LookupError

    with pytest.raises(LookupError):
        write_and_raise()
    with storage.database.read() as connection:
        assert count(connection, account) == 0


def test_insert_new_returns_whether_it_inserted(storage: Storage, account: str) -> None:
    with storage.database.write() as connection:
        assert insert_new(connection, projects, **row(account)) is True
        assert insert_new(connection, projects, **row(account)) is False
        assert insert_new(connection, projects, **row(account, "q")) is True
        assert count(connection, account) == 2
        connection.execute(projects.delete().where(projects.c.account_id == account))


def test_what_was_deleted_gives_its_number_to_nobody(storage: Storage, account: str) -> None:
    with storage.database.write() as connection:
        for name in ("a", "b"):
            insert_new(connection, projects, **row(account, name))
        numbers = sa.select(projects.c.id).where(projects.c.account_id == account).order_by(projects.c.id)
        before = connection.execute(numbers).scalars().all()
        connection.execute(projects.delete().where(projects.c.account_id == account))
        insert_new(connection, projects, **row(account, "c"))
        assert connection.execute(numbers).scalar_one() > max(before)
        connection.execute(projects.delete().where(projects.c.account_id == account))


def test_commits_are_durable_and_nobody_waits_for_ever(storage: Storage) -> None:
    with storage.database.write() as connection:
        if connection.dialect.name == "sqlite":
            settings = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 30_000}
            for name, value in settings.items():
                assert connection.execute(sa.text(f"PRAGMA {name}")).scalar() == value
        else:
            settings = {
                "synchronous_commit": "on",
                "lock_timeout": "20s",
                "statement_timeout": "20s",
                "idle_in_transaction_session_timeout": "1min",
            }
            for name, value in settings.items():
                assert connection.execute(sa.text(f"SHOW {name}")).scalar() == value


@pytest.mark.parametrize("earlier_version", [False, True])
def test_the_file_shrinks(earlier_version: bool, tmp_path: Path) -> None:
    file = tmp_path / "file.db"
    if earlier_version:  # whose files keep their pages
        with sqlite3.connect(file) as connection:
            connection.execute("PRAGMA auto_vacuum = NONE")
            connection.execute("CREATE TABLE other (content BLOB)")
        connection.close()
    database = Database(f"sqlite:///{file}")
    database.upgrade()
    for _ in range(2):
        with database.write() as connection:
            connection.execute(sa.text("CREATE TABLE large AS SELECT randomblob(8000000) AS content"))
        with database.write() as connection:
            connection.execute(sa.text("DROP TABLE large"))
        assert file.stat().st_size + file.with_name("file.db-wal").stat().st_size > 8_000_000
        database.compact()
        assert file.stat().st_size + file.with_name("file.db-wal").stat().st_size < 2_000_000
    with database.read() as connection:
        assert connection.execute(sa.text("PRAGMA integrity_check")).scalar() == "ok"
    database.close()


def test_a_file_with_little_to_free_is_left_alone(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'file.db'}")
    database.upgrade()
    with database.write() as connection:
        connection.execute(sa.text("CREATE TABLE small AS SELECT randomblob(500000) AS content"))
    with database.write() as connection:
        connection.execute(sa.text("DROP TABLE small"))
    database.compact()
    assert (tmp_path / "file.db").stat().st_size > 500_000
    database.close()
