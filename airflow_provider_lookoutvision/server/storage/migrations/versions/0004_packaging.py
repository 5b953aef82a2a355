"""Model packaging jobs, and the components that they make."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from airflow_provider_lookoutvision.server.storage.schema import Identity, text_by_bytes

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "packaging_jobs",
        sa.Column("id", Identity, autoincrement=True, nullable=False),
        sa.Column("project_id", sa.BigInteger, nullable=False),
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
        sa.PrimaryKeyConstraint("id", name="pk_packaging_jobs"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_packaging_jobs_project_id"),
        sa.UniqueConstraint("project_id", "name", name="uq_packaging_jobs_project_id_name"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "components",
        sa.Column("account_id", sa.String(12), nullable=False),
        sa.Column("region", sa.String(64), nullable=False),
        sa.Column("name", text_by_bytes(128), nullable=False),
        sa.Column("version", text_by_bytes(64), nullable=False),
        sa.Column("packaging_job_id", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("account_id", "region", "name", "version", name="pk_components"),
    )
    op.create_index("ix_components_packaging_job_id", "components", ["packaging_job_id"])


def downgrade() -> None:
    """Drop them."""
    op.drop_table("components")
    op.drop_table("packaging_jobs")
