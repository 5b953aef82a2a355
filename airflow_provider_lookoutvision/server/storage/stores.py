"""Which store the settings name."""

from __future__ import annotations

from airflow_provider_lookoutvision.server.settings import Settings
from airflow_provider_lookoutvision.server.storage.buckets import Store
from airflow_provider_lookoutvision.server.storage.directory_store import DirectoryStore
from airflow_provider_lookoutvision.server.storage.s3_store import S3Store


def store(settings: Settings) -> Store:
    """The store that the settings name."""
    if settings.buckets == "s3":
        return S3Store(settings.s3_endpoint_url)
    return DirectoryStore(settings.data_dir / "buckets")
