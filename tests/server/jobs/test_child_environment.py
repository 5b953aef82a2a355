"""Processes that decode strangers' images have none of the secrets of the service's environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from airflow_provider_lookoutvision.server.jobs.child_process import ChildProcess
from airflow_provider_lookoutvision.server.settings import Settings

MODULE = """
import json, os
def main(folder, output):
    output.write(json.dumps(dict(os.environ)) + "\\n")
    output.flush()
    return 0
"""
SECRETS = {
    "LOOKOUTVISION_SECRET_KEY": "s3cret",
    "LOOKOUTVISION_DATABASE_URL": "postgresql://u:s3cret@h/d",
    "AWS_SECRET_ACCESS_KEY": "s3cret",
    "AIRFLOW_CONN_X": "s3cret",
    "HTTPS_PROXY": "http://u:s3cret@proxy",
    "PGPASSWORD": "s3cret",
}


@pytest.mark.parametrize("buckets", ["directory", "s3"])
def test_a_child_process_gets_what_it_needs(
    buckets: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shows_its_environment.py").write_text(MODULE)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    settings = Settings(
        data_dir=tmp_path, database_url=SECRETS["LOOKOUTVISION_DATABASE_URL"], buckets=buckets
    )
    with ChildProcess("shows_its_environment", tmp_path, settings) as child:
        received, over = child.messages(60)
        while not over:
            more, over = child.messages(60)
            received += more
    [environ] = received
    assert environ["LOOKOUTVISION_DATA_DIR"] == str(tmp_path)
    assert environ["PATH"] == os.environ["PATH"]
    # A training reads its images from S3 itself.
    needed = {"AWS_SECRET_ACCESS_KEY", "HTTPS_PROXY"} if buckets == "s3" else set()
    assert {name for name, value in environ.items() if "s3cret" in value} == needed
