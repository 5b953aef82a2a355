"""What the service keeps of itself: the clock of the client tokens, and the secret key that it belongs to."""

from __future__ import annotations

import time

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add it; the clock goes on from the last moment that the tokens have seen."""
    state = op.create_table(
        "service_state",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("seen_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_service_state"),
    )
    now = time.time_ns() // 1_000_000
    seen = op.get_bind().execute(sa.text("SELECT MAX(created_at) FROM client_tokens")).scalar()
    begin = now if seen is None else min(now, int(seen))
    op.bulk_insert(state, [{"name": "token_clock", "value": str(begin), "seen_at": now}])


def downgrade() -> None:
    """Drop it."""
    op.drop_table("service_state")
