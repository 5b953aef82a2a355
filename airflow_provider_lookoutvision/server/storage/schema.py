"""The tables, for SQLite and PostgreSQL alike.

Moments are integers: milliseconds since the epoch, UTC. Names compare by their bytes, so that a page that
ends at a name begins there again on every database. What is written here must be what the migrations
beside it make; a test compares the two.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    }
)

Identity = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def text_by_bytes(length: int) -> sa.types.TypeEngine[str]:
    """Text of at most ``length`` characters, ordered by code point."""
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


access_keys = sa.Table(
    "access_keys",
    metadata,
    sa.Column("access_key_id", text_by_bytes(128), primary_key=True),
    sa.Column("account_id", sa.String(12), nullable=False),
    sa.Column("sealed_secret", sa.Text, nullable=False),
    sa.Column("allowed_actions", sa.JSON, nullable=False),
    sa.Column("allowed_projects", sa.JSON, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("allowed_buckets", sa.JSON, nullable=False, server_default=sa.text("'[\"*\"]'")),
)

projects = sa.Table(
    "projects",
    metadata,
    sa.Column("id", Identity, primary_key=True, autoincrement=True),
    sa.Column("account_id", sa.String(12), nullable=False),
    sa.Column("region", sa.String(64), nullable=False),
    sa.Column("name", text_by_bytes(255), nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("last_model_version", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.UniqueConstraint("account_id", "region", "name"),
    sqlite_autoincrement=True,
)

# ``status`` and ``status_message`` as the API shows them; the counts are those of the entries that it shows.
datasets = sa.Table(
    "datasets",
    metadata,
    sa.Column("id", Identity, primary_key=True, autoincrement=True),
    sa.Column("project_id", sa.BigInteger, sa.ForeignKey("projects.id"), nullable=False),
    sa.Column("type", sa.String(10), nullable=False),
    sa.Column("status", sa.String(40), nullable=False),
    sa.Column("status_message", sa.Text, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("updated_at", sa.BigInteger, nullable=False),
    sa.Column("total", sa.Integer, nullable=False),
    sa.Column("normal", sa.Integer, nullable=False),
    sa.Column("anomaly", sa.Integer, nullable=False),
    sa.UniqueConstraint("project_id", "type"),
    sqlite_autoincrement=True,
)

# ``label`` is normal, anomaly, or null for an entry without one; ``line`` is the entry as the API returns it.
dataset_entries = sa.Table(
    "dataset_entries",
    metadata,
    sa.Column("id", Identity, primary_key=True, autoincrement=True),
    sa.Column("dataset_id", sa.BigInteger, sa.ForeignKey("datasets.id"), nullable=False),
    sa.Column("source_ref", text_by_bytes(1100), nullable=False),
    sa.Column("label", sa.String(10), nullable=True),
    sa.Column("line", sa.Text, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("dataset_id", "source_ref"),
    sa.Index(None, "dataset_id", "id"),
    sa.Index(None, "dataset_id", "label", "id"),
)

# ``hosting`` counts the starts: work for one of them sees when it is over. The metrics and
# ``evaluated_at`` are there once the model is trained; the units, and what the training had said in
# ``training_message``, once it has been started.
models = sa.Table(
    "models",
    metadata,
    sa.Column("id", Identity, primary_key=True, autoincrement=True),
    sa.Column("project_id", sa.BigInteger, sa.ForeignKey("projects.id"), nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("status", sa.String(20), nullable=False),
    sa.Column("status_message", sa.Text, nullable=False),
    sa.Column("training_message", sa.Text, nullable=True),
    sa.Column("description", sa.String(500), nullable=True),
    sa.Column("output_bucket", sa.String(63), nullable=False),
    sa.Column("output_prefix", sa.String(1024), nullable=False),
    sa.Column("kms_key_id", sa.String(2048), nullable=True),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("evaluated_at", sa.BigInteger, nullable=True),
    sa.Column("f1", sa.Float, nullable=True),
    sa.Column("recall", sa.Float, nullable=True),
    sa.Column("precision", sa.Float, nullable=True),
    sa.Column("hosting", sa.Integer, nullable=False),
    sa.Column("min_units", sa.Integer, nullable=True),
    sa.Column("max_units", sa.Integer, nullable=True),
    sa.UniqueConstraint("project_id", "version"),
    sa.Index(None, "status"),
    sqlite_autoincrement=True,
)

# The labelled entries that a training learns from, as they were when it was requested, or when their import
# ended; until it has ended itself. ``entry_id`` is their order.
training_entries = sa.Table(
    "training_entries",
    metadata,
    sa.Column("model_id", sa.BigInteger, sa.ForeignKey("models.id"), primary_key=True),
    sa.Column("entry_id", sa.BigInteger, primary_key=True),
    sa.Column("type", sa.String(10), nullable=False),
    sa.Column("source_ref", text_by_bytes(1100), nullable=False),
    sa.Column("label", sa.String(10), nullable=False),
    sa.Column("line", sa.Text, nullable=False),
)

# A trained model as the engine wrote it, in a ZIP archive.
model_artifacts = sa.Table(
    "model_artifacts",
    metadata,
    sa.Column("model_id", sa.BigInteger, sa.ForeignKey("models.id"), primary_key=True),
    sa.Column("content", sa.LargeBinary, nullable=False),
)

model_tags = sa.Table(
    "model_tags",
    metadata,
    sa.Column("model_id", sa.BigInteger, sa.ForeignKey("models.id"), primary_key=True),
    sa.Column("key", text_by_bytes(128), primary_key=True),
    sa.Column("value", sa.String(256), nullable=False),
)

# A packaging of a model for a device. The model may be deleted while the job's row, which says what was made
# of it, stays.
packaging_jobs = sa.Table(
    "packaging_jobs",
    metadata,
    sa.Column("id", Identity, primary_key=True, autoincrement=True),
    sa.Column("project_id", sa.BigInteger, sa.ForeignKey("projects.id"), nullable=False),
    sa.Column("name", text_by_bytes(64), nullable=False),
    sa.Column("model_id", sa.BigInteger, nullable=False),
    sa.Column("model_version", sa.Integer, nullable=False),
    sa.Column("description", sa.String(256), nullable=True),
    sa.Column("configuration", sa.JSON, nullable=False),
    sa.Column("component_name", sa.String(128), nullable=False),
    sa.Column("component_version", sa.String(64), nullable=False),
    sa.Column("status", sa.String(20), nullable=False),
    sa.Column("status_message", sa.Text, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("updated_at", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("project_id", "name"),
    sqlite_autoincrement=True,
)

# The names and versions of components that are taken in an account and region, for as long as a packaging may
# still make one, and for good once it has: a device may have it.
components = sa.Table(
    "components",
    metadata,
    sa.Column("account_id", sa.String(12), primary_key=True),
    sa.Column("region", sa.String(64), primary_key=True),
    sa.Column("name", text_by_bytes(128), primary_key=True),
    sa.Column("version", text_by_bytes(64), primary_key=True),
    sa.Column("packaging_job_id", sa.BigInteger, nullable=False),
    sa.Index(None, "packaging_job_id"),
)

# A job waits, or is its owner's until ``leased_until`` by the database's clock; when it is done its row goes.
jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("id", Identity, primary_key=True, autoincrement=True),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("subject_id", sa.BigInteger, nullable=False),
    sa.Column("details", sa.JSON, nullable=False),
    sa.Column("content", sa.LargeBinary, nullable=True),
    sa.Column("account_id", sa.String(12), nullable=False),
    sa.Column("region", sa.String(64), nullable=False),
    sa.Column("allowed_buckets", sa.JSON, nullable=False),
    sa.Column("operation", sa.String(64), nullable=False),
    sa.Column("token", text_by_bytes(64), nullable=True),
    sa.Column("owner", sa.String(64), nullable=True),
    sa.Column("leased_until", sa.BigInteger, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("request_id", sa.String(36), nullable=True),
    sa.Column("created_at", sa.BigInteger, nullable=True),
    sa.Index(None, "kind", "leased_until"),
    sqlite_autoincrement=True,
)

# The workers that run, or did until a moment ago; the moments are by the database's clock.
workers = sa.Table(
    "workers",
    metadata,
    sa.Column("owner", sa.String(64), primary_key=True),
    sa.Column("started_at", sa.BigInteger, nullable=False),
    sa.Column("heard_at", sa.BigInteger, nullable=False),
)

# ``scope`` is the model that the call named, where a token belongs to one; else it is empty.
client_tokens = sa.Table(
    "client_tokens",
    metadata,
    sa.Column("account_id", sa.String(12), primary_key=True),
    sa.Column("region", sa.String(64), primary_key=True),
    sa.Column("operation", sa.String(64), primary_key=True),
    sa.Column("token", text_by_bytes(64), primary_key=True),
    sa.Column("scope", text_by_bytes(512), primary_key=True, server_default=sa.text("''")),
    sa.Column("request_digest", sa.String(64), nullable=False),
    sa.Column("answer", sa.LargeBinary, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("resource_type", sa.String(32), nullable=False),
    sa.Column("resource_id", text_by_bytes(512), nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("expires_at", sa.BigInteger, nullable=True),
    sa.Index(None, "account_id", "region", "resource_type", "resource_id"),
    sa.Index(None, "expires_at"),
)

# The sessions of the console, by a digest of what the browser keeps.
console_sessions = sa.Table(
    "console_sessions",
    metadata,
    sa.Column("digest", sa.String(64), primary_key=True),
    sa.Column("access_key_id", text_by_bytes(128), nullable=False),
    sa.Column("region", sa.String(64), nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("expires_at", sa.BigInteger, nullable=False),
    sa.Index(None, "expires_at"),
)


# What the service keeps of itself, by name; ``seen_at`` is the machine's clock when it was written.
service_state = sa.Table(
    "service_state",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
    sa.Column("seen_at", sa.BigInteger, nullable=False),
)


def upsert(
    connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]], key: Sequence[str]
) -> None:
    """Insert rows; one whose key is there already replaces the values of that row."""
    insert = (postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert)(table)
    replaced = {name: insert.excluded[name] for name in rows[0] if name not in key} if rows else {}
    if rows:
        connection.execute(insert.on_conflict_do_update(index_elements=list(key), set_=replaced), list(rows))


class now(FunctionElement[int]):  # noqa: N801 (an SQL function)
    """The database's clock, in milliseconds since the epoch: one clock for all machines that share it."""

    type = sa.BigInteger()
    inherit_cache = True


@compiles(now, "sqlite")
def _now_on_sqlite(*_: Any, **__: Any) -> str:
    return "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"


@compiles(now, "postgresql")
def _now_on_postgresql(*_: Any, **__: Any) -> str:
    return "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)"


def insert_new(connection: sa.Connection, table: sa.Table, **values: Any) -> bool:
    """Insert a row unless a unique constraint forbids it; whether it was inserted.

    On PostgreSQL it waits for another transaction that is inserting the same row, and returns its outcome.
    """
    return connection.execute(_insert_new(connection.dialect.name, table), values).one_or_none() is not None


@cache  # since building a statement takes longer than running it
def _insert_new(dialect: str, table: sa.Table) -> sa.Executable:
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    # By what it returns, since not every driver counts the rows of an insert.
    return insert(table).on_conflict_do_nothing().returning(*table.primary_key)


def lock(connection: sa.Connection, *names: Sequence[str]) -> None:
    """Take the locks of these names, one after another; they are held until the transaction ends.

    On SQLite nothing is to be done: a writing transaction is alone.
    """
    if connection.dialect.name == "postgresql":
        digests = (hashlib.sha256("\0".join(name).encode()).digest() for name in names)
        keys = {f"key{i}": int.from_bytes(digest[:8], signed=True) for i, digest in enumerate(digests)}
        connection.execute(_locks(len(keys)), keys)


@cache
def _locks(count: int) -> sa.Select[Any]:
    keys = (sa.bindparam(f"key{i}", type_=sa.BigInteger) for i in range(count))
    return sa.select(*(sa.func.pg_advisory_xact_lock(key) for key in keys))
