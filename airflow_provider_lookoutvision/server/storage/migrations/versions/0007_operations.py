"""Jobs with their request and age, workers that are heard of, and an end of the tokens of deletions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_DAYS = 30


def upgrade() -> None:
    """Add them; the tokens of deletions that there are end as new ones do, 30 days after the deletion."""
    op.add_column("jobs", sa.Column("request_id", sa.String(36), nullable=True))
    op.add_column("jobs", sa.Column("created_at", sa.BigInteger, nullable=True))
    op.create_table(
        "workers",
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.Column("heard_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("owner", name="pk_workers"),
    )
    op.execute(
        f"UPDATE client_tokens SET expires_at = created_at + {_DAYS * 24 * 60 * 60 * 1000}"  # noqa: S608
        " WHERE state = 'DELETED' AND expires_at IS NULL"
    )
    op.execute(
        "UPDATE client_tokens SET expires_at = created_at + 28800000"
        " WHERE state = 'FAILED' AND operation = 'UpdateDatasetEntries' AND expires_at IS NULL"
    )


def downgrade() -> None:
    """Drop what was added."""
    op.drop_table("workers")
    op.drop_column("jobs", "created_at")
    op.drop_column("jobs", "request_id")
