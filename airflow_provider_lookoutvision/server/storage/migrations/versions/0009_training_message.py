"""What a training has said of a model that is hosted: it is said again when that ends."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Add it."""
    with op.batch_alter_table("models") as batch:
        batch.add_column(sa.Column("training_message", sa.Text, nullable=True))


def downgrade() -> None:
    """Drop it."""
    with op.batch_alter_table("models") as batch:
        batch.drop_column("training_message")
