"""Datasets, their entries, jobs; the buckets that a key may use."""

import sqlalchemy as sa
from alembic import op

from airflow_provider_lookoutvision.server.storage.schema import Identity, text_by_bytes

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the tables, and let the keys that are there use every bucket."""
    op.add_column(
        "access_keys",
        sa.Column("allowed_buckets", sa.JSON, nullable=False, server_default=sa.text("'[\"*\"]'")),
    )
    op.create_table(
        "datasets",
        sa.Column("id", Identity, autoincrement=True, nullable=False),
        sa.Column("project_id", sa.BigInteger, nullable=False),
        sa.Column("type", sa.String(10), nullable=False),
        sa.Column("status", sa.String(40), nullable=False),
        sa.Column("status_message", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.Column("total", sa.Integer, nullable=False),
        sa.Column("normal", sa.Integer, nullable=False),
        sa.Column("anomaly", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_datasets"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_datasets_project_id"),
        sa.UniqueConstraint("project_id", "type", name="uq_datasets_project_id_type"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "dataset_entries",
        sa.Column("id", Identity, autoincrement=True, nullable=False),
        sa.Column("dataset_id", sa.BigInteger, nullable=False),
        sa.Column("source_ref", text_by_bytes(1100), nullable=False),
        sa.Column("label", sa.String(10), nullable=True),
        sa.Column("line", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_dataset_entries"),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name="fk_dataset_entries_dataset_id"),
        sa.UniqueConstraint("dataset_id", "source_ref", name="uq_dataset_entries_dataset_id_source_ref"),
    )
    op.create_index("ix_dataset_entries_dataset_id_id", "dataset_entries", ["dataset_id", "id"])
    op.create_index(
        "ix_dataset_entries_dataset_id_label_id", "dataset_entries", ["dataset_id", "label", "id"]
    )
    op.create_table(
        "jobs",
        sa.Column("id", Identity, autoincrement=True, nullable=False),
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
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_jobs_kind_leased_until", "jobs", ["kind", "leased_until"])


def downgrade() -> None:
    """Drop them."""
    op.drop_table("jobs")
    op.drop_table("dataset_entries")
    op.drop_table("datasets")
    op.drop_column("access_keys", "allowed_buckets")
