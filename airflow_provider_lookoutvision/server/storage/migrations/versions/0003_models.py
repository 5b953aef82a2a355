"""Models, what they are trained from, what comes of it, their tags."""

import sqlalchemy as sa
from alembic import op

from airflow_provider_lookoutvision.server.storage.schema import Identity, text_by_bytes

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the tables; no project has had a model yet."""
    op.add_column(
        "projects", sa.Column("last_model_version", sa.Integer, nullable=False, server_default=sa.text("0"))
    )
    op.create_table(
        "models",
        sa.Column("id", Identity, autoincrement=True, nullable=False),
        sa.Column("project_id", sa.BigInteger, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("status_message", sa.Text, nullable=False),
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
        sa.PrimaryKeyConstraint("id", name="pk_models"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_models_project_id"),
        sa.UniqueConstraint("project_id", "version", name="uq_models_project_id_version"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_models_status", "models", ["status"])
    op.create_table(
        "training_entries",
        sa.Column("model_id", sa.BigInteger, nullable=False),
        sa.Column("entry_id", sa.BigInteger, nullable=False),
        sa.Column("type", sa.String(10), nullable=False),
        sa.Column("source_ref", text_by_bytes(1100), nullable=False),
        sa.Column("label", sa.String(10), nullable=False),
        sa.Column("line", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("model_id", "entry_id", name="pk_training_entries"),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name="fk_training_entries_model_id"),
    )
    op.create_table(
        "model_artifacts",
        sa.Column("model_id", sa.BigInteger, nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("model_id", name="pk_model_artifacts"),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name="fk_model_artifacts_model_id"),
    )
    op.create_table(
        "model_tags",
        sa.Column("model_id", sa.BigInteger, nullable=False),
        sa.Column("key", text_by_bytes(128), nullable=False),
        sa.Column("value", sa.String(256), nullable=False),
        sa.PrimaryKeyConstraint("model_id", "key", name="pk_model_tags"),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name="fk_model_tags_model_id"),
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_table("model_tags")
    op.drop_table("model_artifacts")
    op.drop_table("training_entries")
    op.drop_table("models")
    op.drop_column("projects", "last_model_version")
