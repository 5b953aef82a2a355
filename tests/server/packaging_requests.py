"""Requests of packaging jobs in a project, and what became of them.

A plugin of the test modules that name it in ``pytest_plugins`` (and import from it: PYTEST_DONT_REWRITE):
``artifact`` is a trained model, for the whole session, as the service stores it.
"""

from __future__ import annotations

from typing import Any

import edge_models
import pytest
from model_fixtures import ModelProject
from polling import until

PREFIX = "components/"


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("trained")
    edge_models.train("normal", folder / "model", folder / "cache")
    return edge_models.artifact(folder / "model")


def component(project: ModelProject) -> str:
    """The name of the project's component: no other test's, where a test puts all into one account."""
    return f"plates-{project.account}"


def configuration(project: ModelProject, **more: Any) -> dict[str, Any]:
    output = {"Bucket": project.bucket, "Prefix": PREFIX}
    return {"Greengrass": {"S3OutputLocation": output, "ComponentName": component(project), **more}}


def start(project: ModelProject, version: str = "1", **more: Any) -> str:
    """StartModelPackagingJob; the job's name."""
    members = {**project.of, "ModelVersion": version, "Configuration": configuration(project), **more}
    return str(project.client.start_model_packaging_job(**members)["JobName"])


def job(project: ModelProject, name: str) -> dict[str, Any]:
    """DescribeModelPackagingJob."""
    answer = project.client.describe_model_packaging_job(**project.of, JobName=name)
    return dict(answer["ModelPackagingDescription"])


def ended(project: ModelProject, name: str) -> dict[str, Any]:
    """The job's description, once it has come to its end."""
    return until(lambda: job(project, name), lambda found: found["Status"] in {"SUCCEEDED", "FAILED"})


def packaged(project: ModelProject, version: str = "1", **more: Any) -> dict[str, Any]:
    """Start a job; its description, once it has come to its end."""
    return ended(project, start(project, version, **more))
