"""The way to the newest schema, back, and what it keeps on the way."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from services import NewDatabase

from airflow_provider_lookoutvision.server.calls import access
from airflow_provider_lookoutvision.server.settings import SettingsError
from airflow_provider_lookoutvision.server.storage import encryption, migrations, schema, schema_version
from airflow_provider_lookoutvision.server.storage.database import Database
from airflow_provider_lookoutvision.server.storage.schema import metadata


@pytest.fixture
def empty(new_database: NewDatabase, tmp_path: Path) -> Iterator[Database]:
    database = Database((new_database() or ["", f"sqlite:///{tmp_path / 'empty.db'}"])[1])
    yield database
    database.close()


def migrate(database: Database, direction: str, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__path__[0])))
    with database.write() as connection:
        config.attributes["connection"] = connection
        getattr(command, direction)(config, revision)


def tables(database: Database) -> set[str]:
    with database.read() as connection:
        return set(sa.inspect(connection).get_table_names())


def test_the_migrations_make_what_the_schema_says(empty: Database) -> None:
    empty.upgrade()
    with empty.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        inspector = sa.inspect(connection)
        for table in metadata.sorted_tables:
            unique = {tuple(item["column_names"]) for item in inspector.get_unique_constraints(table.name)}
            assert unique == {
                tuple(column.name for column in constraint.columns)
                for constraint in table.constraints
                if isinstance(constraint, sa.UniqueConstraint)
            }
            assert {
                (item["name"], tuple(item["column_names"])) for item in indexes(inspector, table.name)
            } == {
                (str(index.name), tuple(column.name for column in index.columns)) for index in table.indexes
            }
            keys = {tuple(item["constrained_columns"]) for item in inspector.get_foreign_keys(table.name)}
            assert keys == {
                tuple(column.name for column in key.columns) for key in table.foreign_key_constraints
            }


def indexes(inspector: sa.Inspector, table: str) -> list[sa.engine.interfaces.ReflectedIndex]:
    return [item for item in inspector.get_indexes(table) if not item.get("duplicates_constraint")]


def test_names_compare_by_their_bytes(empty: Database) -> None:
    empty.upgrade()
    with empty.write() as connection:
        for name in ("b", "B", "a_", "a-", "aA"):
            connection.execute(
                metadata.tables["projects"].insert(),
                {"account_id": "1", "region": "r", "name": name, "created_at": 0},
            )
        column = metadata.tables["projects"].c.name
        assert connection.execute(sa.select(column).order_by(column)).scalars().all() == [
            *("B", "a-", "aA", "a_", "b")
        ]


def test_names_compare_by_their_bytes_whatever_the_language_of_the_database(empty: Database) -> None:
    empty.upgrade()
    with empty.read() as connection:
        inspector = sa.inspect(connection)
        collations = {
            f"{table}.{column['name']}": getattr(column["type"], "collation", None)
            for table in metadata.tables
            for column in inspector.get_columns(table)
        }
    # SQLite compares bytes by default.
    of_names = "C" if empty.engine.dialect.name == "postgresql" else None
    for name in (
        "projects.name",
        "client_tokens.token",
        "client_tokens.resource_id",
        "access_keys.access_key_id",
    ):
        assert collations[name] == of_names, name


def test_twice_is_once(empty: Database) -> None:
    empty.upgrade()
    before = tables(empty)
    empty.upgrade()
    assert tables(empty) == before == {*metadata.tables, "alembic_version"}


def test_the_version_is_alembics(empty: Database) -> None:
    for version in ("0001", schema_version.newest()):
        migrate(empty, "upgrade", version)
        with empty.read() as connection:
            alembics = MigrationContext.configure(connection).get_current_revision()
            assert schema_version.current(connection) == alembics == version
        assert empty.is_current() == (version == schema_version.newest())
    config = Config(config_args={"script_location": str(Path(migrations.__path__[0]))})
    assert ScriptDirectory.from_config(config).get_current_head() == schema_version.newest()
    migrate(empty, "downgrade", "base")
    assert not empty.is_current()


def test_a_newer_version_is_refused(empty: Database) -> None:
    empty.upgrade()
    with empty.write() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    assert not empty.is_current()
    with pytest.raises(SettingsError, match=r"a newer version of this package wrote the database.*9999"):
        empty.upgrade()


def test_a_process_that_finds_the_newest_version_imports_no_alembic(empty: Database) -> None:
    empty.upgrade()
    code = (
        "import sys\n"
        "from airflow_provider_lookoutvision.server import serving, worker\n"
        "from airflow_provider_lookoutvision.server.storage.database import Database\n"
        "Database(sys.argv[1]).upgrade()\n"
        "sys.exit('alembic' in sys.modules)"
    )
    url = empty.engine.url.render_as_string(hide_password=False)
    subprocess.run([sys.executable, "-c", code, url], check=True)


def test_down_and_up_again(empty: Database) -> None:
    empty.upgrade()
    migrate(empty, "downgrade", "base")
    assert tables(empty) == {"alembic_version"}
    empty.upgrade()
    assert tables(empty) == {*metadata.tables, "alembic_version"}
    migrate(empty, "downgrade", "-1")
    migrate(empty, "upgrade", "head")
    with empty.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_a_migration_that_fails_leaves_nothing_behind(
    empty: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It is the second of the first migration's tables that can't be made.
    with monkeypatch.context() as patched:
        patched.setattr(schema, "Identity", "no type")
        with pytest.raises(sa.exc.ArgumentError):
            empty.upgrade()
    assert tables(empty) == set()
    empty.upgrade()
    assert tables(empty) == {*metadata.tables, "alembic_version"}


def test_what_the_first_version_kept_is_kept(empty: Database, tmp_path: Path) -> None:
    migrate(empty, "upgrade", "0001")
    cipher = encryption.load(tmp_path)
    with empty.write() as connection:
        connection.execute(
            sa.text(
                "INSERT INTO access_keys (access_key_id, account_id, sealed_secret, allowed_actions,"
                " allowed_projects, created_at) VALUES ('AKIAOLD', '123456789012', :sealed, :all, :all, 7)"
            ),
            {"sealed": cipher.encrypt("secret"), "all": '["*"]'},
        )
        connection.execute(
            sa.text(
                "INSERT INTO projects (account_id, region, name, created_at)"
                " VALUES ('123456789012', 'eu-central-1', 'p', 7)"
            )
        )
    empty.upgrade()
    with empty.read() as connection:
        stored = access.find_key(connection, cipher, "AKIAOLD")
        assert stored
        assert stored.secret == "secret"
        assert access.Caller(stored.key, "eu-central-1").sees("p")
        assert connection.execute(sa.text("SELECT name FROM projects")).scalars().all() == ["p"]


def test_tokens_of_before_they_had_a_scope(empty: Database) -> None:
    migrate(empty, "upgrade", "0004")
    columns = (
        "account_id, region, operation, token, request_digest, answer, state, resource_type, resource_id,"
        " created_at"
    )
    stored = [("CreateModel", "CREATED", 7), ("StartModel", "DONE", 8), ("StopModel", "DONE", 9)]
    with empty.write() as connection:
        for operation, state, created_at in stored:
            connection.execute(
                sa.text(
                    f"INSERT INTO client_tokens ({columns})"
                    " VALUES ('1', 'r', :operation, 't', 'd', :answer, :state, 'MODEL', 'p/1', :created_at)"
                ),
                {"operation": operation, "state": state, "answer": b"{}", "created_at": created_at},
            )
    empty.upgrade()
    table = schema.client_tokens
    with empty.write() as connection:
        rows = connection.execute(sa.select(table.c.operation, table.c.scope).order_by(table.c.created_at))
        assert [tuple(row) for row in rows] == [
            ("CreateModel", ""),
            ("StartModel", "p/1"),
            ("StopModel", "p/1"),
        ]
        start = connection.execute(table.select().where(table.c.operation == "StartModel")).one()
        connection.execute(table.insert().values({**start._mapping, "scope": "p/2", "created_at": 10}))
    migrate(empty, "downgrade", "0004")
    with empty.read() as connection:
        kept = connection.execute(sa.text("SELECT operation, created_at FROM client_tokens ORDER BY 1"))
        assert [tuple(row) for row in kept] == [("CreateModel", 7), ("StartModel", 10), ("StopModel", 9)]
