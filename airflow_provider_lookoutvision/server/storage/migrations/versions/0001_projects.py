"""Access keys, projects, client tokens."""

import sqlalchemy as sa
from alembic import op

from airflow_provider_lookoutvision.server.storage.schema import Identity, text_by_bytes

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the first three tables."""
    op.create_table(
        "access_keys",
        sa.Column("access_key_id", text_by_bytes(128), nullable=False),
        sa.Column("account_id", sa.String(12), nullable=False),
        sa.Column("sealed_secret", sa.Text, nullable=False),
        sa.Column("allowed_actions", sa.JSON, nullable=False),
        sa.Column("allowed_projects", sa.JSON, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("access_key_id", name="pk_access_keys"),
    )
    op.create_table(
        "projects",
        sa.Column("id", Identity, autoincrement=True, nullable=False),
        sa.Column("account_id", sa.String(12), nullable=False),
        sa.Column("region", sa.String(64), nullable=False),
        sa.Column("name", text_by_bytes(255), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_projects"),
        sa.UniqueConstraint("account_id", "region", "name", name="uq_projects_account_id_region_name"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "client_tokens",
        sa.Column("account_id", sa.String(12), nullable=False),
        sa.Column("region", sa.String(64), nullable=False),
        sa.Column("operation", sa.String(64), nullable=False),
        sa.Column("token", text_by_bytes(64), nullable=False),
        sa.Column("request_digest", sa.String(64), nullable=False),
        sa.Column("answer", sa.LargeBinary, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("resource_type", sa.String(32), nullable=False),
        sa.Column("resource_id", text_by_bytes(512), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=True),
        sa.PrimaryKeyConstraint("account_id", "region", "operation", "token", name="pk_client_tokens"),
    )
    op.create_index(
        "ix_client_tokens_account_id_region_resource_type_resource_id",
        "client_tokens",
        ["account_id", "region", "resource_type", "resource_id"],
    )
    op.create_index("ix_client_tokens_expires_at", "client_tokens", ["expires_at"])


def downgrade() -> None:
    """Drop them."""
    op.drop_table("client_tokens")
    op.drop_table("projects")
    op.drop_table("access_keys")
