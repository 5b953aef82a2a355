"""An Airflow home and an AWS environment that nobody else shapes, and Amazon connections."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# Airflow reads its configuration when it is first imported, which is before any fixture runs.
_home = tempfile.TemporaryDirectory(prefix="airflow-unit-tests-")
os.environ["AIRFLOW_HOME"] = _home.name
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"

Connect = Callable[..., str]


@pytest.fixture(autouse=True)
def _aws_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "aws-credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Make an Amazon connection with a key and this extra; return its ID."""

    def connect(*, login: str | None = "AKIDEXAMPLE", password: str | None = "secret", **extra: Any) -> str:
        extra = {"region_name": "eu-central-1", **extra}
        connection = {"conn_type": "aws", "login": login, "password": password, "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_LOOKOUTVISION_TEST", json.dumps(connection))
        return "lookoutvision_test"

    return connect
