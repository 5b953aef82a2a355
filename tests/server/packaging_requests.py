"""Requests of packaging jobs in a lab of models, and what became of them.

A plugin of the test modules that name it in ``pytest_plugins`` (and import from it: PYTEST_DONT_REWRITE):
``artifact`` is a trained model, for the whole session, as the service stores it.
"""

from __future__ import annotations

from typing import Any

import edge_models
import pytest
from dataset_fixtures import until
from model_fixtures import ModelLab

PREFIX = "components/"


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("trained")
    edge_models.train("normal", folder / "model", folder / "cache")
    return edge_models.artifact(folder / "model")


def component(lab: ModelLab) -> str:
    """The name of the lab's component: no other test's, where a test puts all into one account."""
    return f"plates-{lab.account}"


def configuration(lab: ModelLab, **more: Any) -> dict[str, Any]:
    output = {"Bucket": lab.bucket, "Prefix": PREFIX}
    return {"Greengrass": {"S3OutputLocation": output, "ComponentName": component(lab), **more}}


def start(lab: ModelLab, version: str = "1", **more: Any) -> str:
    """StartModelPackagingJob; the job's name."""
    members = {**lab.of, "ModelVersion": version, "Configuration": configuration(lab), **more}
    return str(lab.client.start_model_packaging_job(**members)["JobName"])


def job(lab: ModelLab, name: str) -> dict[str, Any]:
    """DescribeModelPackagingJob."""
    answer = lab.client.describe_model_packaging_job(**lab.of, JobName=name)
    return dict(answer["ModelPackagingDescription"])


def ended(lab: ModelLab, name: str) -> dict[str, Any]:
    """The job's description, once it has come to its end."""
    return until(
        lambda: job(lab, name), lambda found: found["Status"] in {"SUCCEEDED", "FAILED"}, seconds=120
    )


def packaged(lab: ModelLab, version: str = "1", **more: Any) -> dict[str, Any]:
    """Start a job; its description, once it has come to its end."""
    return ended(lab, start(lab, version, **more))
