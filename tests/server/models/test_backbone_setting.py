"""A service that trains with a pretrained network of its user's own, from an ONNX file."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_backbone
from command_line import error_message, run_command
from drawn_parts import drawn
from model_fixtures import ModelProject, TrainingService
from packaging_requests import packaged
from sdk_errors import error_response
from services import storage_of

from airflow_provider_lookoutvision.server.packaging.packaging_process import MANIFEST
from airflow_provider_lookoutvision.testing.service import running_service

pytest_plugins = ["model_fixtures", "packaging_requests"]


@pytest.fixture
def backbone(tmp_path: Path) -> Path:
    return tiny_backbone.write(tmp_path)


@pytest.fixture
def project(backbone: Path, tmp_path: Path) -> Iterator[ModelProject]:
    with (
        running_service(tmp_path / "data", ["--backbone", str(backbone)]) as service,
        storage_of(service) as storage,
    ):
        yield TrainingService(service, storage).new_project()


def test_a_model_is_trained_with_it_and_needs_it_no_more(project: ModelProject, backbone: Path) -> None:
    project.small_datasets(scratched=3)
    digest = hashlib.sha256(backbone.read_bytes()).hexdigest()
    used = f"three-convolutions, SHA-256 {digest}"
    model = project.train()
    assert model["Status"] == "TRAINED", model
    assert model["StatusMessage"].endswith(f"Backbone: {used}.")
    result = json.loads((project.folder / model["EvaluationResult"]["Key"]).read_bytes())
    assert result["EvaluationDetails"]["TrainingBackbone"] == used

    thorough = [{"Key": "lookoutvision:effort", "Value": "thorough"}]
    error = error_response(
        project.client.create_model, **project.of, OutputConfig=project.output, Tags=thorough
    )
    assert error["Error"]["Code"] == "ValidationException"
    assert error["Error"]["Message"].endswith("where the setting backbone is: tiny.onnx")

    backbone.unlink()
    project.host()
    found = project.detect(drawn(99)[0])
    assert 0.5 <= found["Confidence"] <= 1
    job = packaged(project)
    assert job["Status"] == "SUCCEEDED", job
    (archive,) = project.folder.rglob("*.zip")
    with zipfile.ZipFile(archive) as component:
        (name,) = [name for name in component.namelist() if name.endswith(MANIFEST)]
        licences = json.loads(component.read(name))["licences"]
    assert licences[0] == {"of": "the network", "package": used, "license": "CC0-1.0"}

    project.client.create_model(**project.of, OutputConfig=project.output)
    failed = project.ended("2")
    assert failed["Status"] == "TRAINING_FAILED"
    assert failed["StatusMessage"].startswith("Service fault: the setting backbone is ")
    assert "tiny.onnx can't be copied: No such file" in failed["StatusMessage"]


@pytest.mark.parametrize("command", ["serve", "worker"])
def test_a_file_that_is_none_is_refused_at_the_start(command: str, backbone: Path, tmp_path: Path) -> None:
    backbone.with_suffix(".json").unlink()
    data = tmp_path / "data"
    said = error_message(run_command(command, "--data-dir", data, "--backbone", backbone))
    assert said == (
        f"lookoutvision: backbone: the backbone {backbone}: tiny.json is missing; the ONNX file and a JSON "
        "file of the same name are needed\n"
    )
    assert not data.exists()
