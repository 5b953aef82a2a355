"""Client tokens with a scope: the tokens of starts and stops belong to one model."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from airflow_provider_lookoutvision.server.storage.schema import text_by_bytes

revision = "0005"
down_revision = "0004"

_KEY = ["account_id", "region", "operation", "token"]


def upgrade() -> None:
    """Add the scope; what earlier versions stored has the model that it started or stopped."""
    with op.batch_alter_table("client_tokens") as table:
        table.add_column(sa.Column("scope", text_by_bytes(512), nullable=False, server_default=sa.text("''")))
        table.drop_constraint("pk_client_tokens", type_="primary")
        table.create_primary_key("pk_client_tokens", [*_KEY, "scope"])
    op.execute("UPDATE client_tokens SET scope = resource_id WHERE operation IN ('StartModel', 'StopModel')")


def downgrade() -> None:
    """Drop it, with all but the newest of the tokens that would be alike without it."""
    op.execute(
        "DELETE FROM client_tokens WHERE EXISTS (SELECT 1 FROM client_tokens AS other"
        " WHERE other.account_id = client_tokens.account_id AND other.region = client_tokens.region"
        " AND other.operation = client_tokens.operation AND other.token = client_tokens.token"
        " AND (other.created_at, other.scope) > (client_tokens.created_at, client_tokens.scope))"
    )
    with op.batch_alter_table("client_tokens") as table:
        table.drop_constraint("pk_client_tokens", type_="primary")
        table.create_primary_key("pk_client_tokens", _KEY)
        table.drop_column("scope")
