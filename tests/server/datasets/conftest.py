"""``project``: a project of the test's own, with a bucket, in the shared service."""

from __future__ import annotations

from typing import Any

import pytest
from dataset_projects import DatasetProject

from airflow_provider_lookoutvision.testing.service import Service


@pytest.fixture
def project(service: Service, client: Any) -> DatasetProject:
    return DatasetProject.make(service, client)
