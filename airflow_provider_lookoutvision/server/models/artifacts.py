"""Trained models, as the database keeps them."""

from __future__ import annotations

import sqlalchemy as sa

from airflow_provider_lookoutvision.server.storage.database import Database
from airflow_provider_lookoutvision.server.storage.schema import model_artifacts


def read_artifact(database: Database, model_id: int) -> bytes | None:
    """The artifact of a model, or None when it is gone."""
    query = sa.select(model_artifacts.c.content).where(model_artifacts.c.model_id == model_id)
    with database.read() as connection:
        return connection.execute(query).scalar_one_or_none()
