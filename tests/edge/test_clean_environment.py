"""From a trained model to a verdict on a device that has Python and four packages: the service, its
bucket, an unpacked archive, and a client that was written from the facts.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from agent_client import RUNNING, STOPPED, Agent, running_agent
from edge_models import artifact, encoded, held_out
from model_fixtures import ModelProject, TrainingService
from packaging_requests import component, packaged
from PIL import Image
from services import storage_of

from airflow_provider_lookoutvision.edge.command import NEEDED
from airflow_provider_lookoutvision.testing.service import running_service

pytestmark = pytest.mark.timeout(600)

CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"
# Of the machine's own settings, where packages are to be had.
KEPT = {name: value for name, value in os.environ.items() if name.startswith(("UV_", "PIP_", "SSL_", "HOME"))}


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the four packages, and nothing of this checkout."""
    folder = tmp_path_factory.mktemp("device")
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder / "venv"], check=True)
    subprocess.run(
        [
            *(uv, "pip", "install", "--quiet", "--python", folder / "venv"),
            *("--constraints", CONSTRAINTS, *NEEDED),
        ],
        check=True,
    )
    return folder / "venv" / "bin" / "python"


@pytest.fixture(scope="module")
def projects() -> Iterator[tuple[ModelProject, ModelProject]]:
    with running_service() as service, storage_of(service) as storage:
        training_service = TrainingService(service, storage)
        yield training_service.new_project("000000000011"), training_service.new_project("000000000012")


def test_a_device_finds_what_the_service_finds(
    projects: tuple[ModelProject, ModelProject], python: Path, models: Callable[[str], Path], tmp_path: Path
) -> None:
    root = tmp_path / "components"
    for project, name in zip(projects, ("classes", "plain"), strict=True):
        project.put(1, artifact=artifact(models(name)))
        described = packaged(project)
        assert described["Status"] == "SUCCEEDED", described["StatusMessage"]
        with zipfile.ZipFile(project.folder / "components" / f"{component(project)}-1.0.0.zip") as archive:
            archive.extractall(root / component(project))
        project.host()
    first = root / component(projects[0])
    command = [str(python), str(first / "agent.py")]
    with running_agent(root, tmp_path, "--start", "all", command=command, environ=KEPT) as agent:
        for project, name in zip(projects, ("classes", "plain"), strict=True):
            _same(project, name, agent)
    # Nothing else is there that it could have used.
    listed = subprocess.run(
        [python, "-I", "-c", "import airflow_provider_lookoutvision"], capture_output=True
    )
    assert listed.returncode != 0


def _same(project: ModelProject, name: str, agent: Agent) -> None:
    client, named = agent.client, component(project)
    state = client.describe(named)
    for _ in range(600):
        if (state := client.describe(named)).status == RUNNING:
            break
    assert state.status == RUNNING, agent.said()
    assert state.arn == project.describe("1")["ModelArn"]
    for image in held_out(name):
        for content in (encoded(image), encoded(image, "JPEG", quality=85)):
            wanted = project.detect(
                content, content_type="image/png" if content[:1] == b"\x89" else "image/jpeg"
            )
            plain = Image.open(io.BytesIO(content)).convert("RGB")
            for sent in (content, plain.tobytes()):
                if sent is not content and plain.size != image.size:
                    continue
                found = client.detect(named, *plain.size, sent)
                assert found.is_anomalous == wanted["IsAnomalous"]
                assert found.confidence == pytest.approx(wanted["Confidence"], abs=1e-5)
                if "AnomalyMask" not in wanted:
                    assert found.mask is None
                    continue
                mask = Image.open(io.BytesIO(wanted["AnomalyMask"]))
                assert found.mask_size == mask.size
                np.testing.assert_array_equal(
                    np.frombuffer(found.mask, np.uint8), np.asarray(mask, np.uint8).ravel()
                )
                assert found.anomalies == {
                    each["Name"]: (
                        pytest.approx(each["PixelAnomaly"]["TotalPercentageArea"]),
                        each["PixelAnomaly"]["Color"],
                    )
                    for each in wanted["Anomalies"]
                }


def test_the_recipes_own_command_runs_the_agent(
    projects: tuple[ModelProject, ModelProject], python: Path, models: Callable[[str], Path], tmp_path: Path
) -> None:
    project = projects[0]
    project.put(2, artifact=artifact(models("classes")))
    assert packaged(project, "2")["Status"] == "SUCCEEDED"
    recipe = json.loads((project.folder / "components" / "recipe.json").read_text())
    [manifest] = recipe["Manifests"]
    # As the nucleus of Greengrass lays it out, and fills in its variables.
    unpacked = tmp_path / "artifacts-unarchived" / recipe["ComponentName"] / recipe["ComponentVersion"]
    archive = project.folder / manifest["Artifacts"][0]["Uri"].removeprefix(f"s3://{project.bucket}/")
    with zipfile.ZipFile(archive) as content:
        content.extractall(unpacked / archive.stem)
    work = tmp_path / "work"
    work.mkdir()
    (work / "venv").symlink_to(python.parents[1])
    configuration = {
        **recipe["ComponentConfiguration"]["DefaultConfiguration"],
        "Socket": str(tmp_path / "s"),
    }
    script = manifest["Lifecycle"]["Run"]["Script"]
    for name, value in configuration.items():
        script = script.replace(f"{{configuration:/{name}}}", value)
    script = script.replace("{artifacts:decompressedPath}", str(unpacked)).replace("{work:path}", str(work))
    agent = Agent(["sh", "-c", script], tmp_path / "s", tmp_path / "log", KEPT)
    try:
        agent.until_ready()
        [state] = agent.client.list()
        # As AWS's: deployed is not started.
        assert (state.component, state.status) == (component(project), STOPPED)
        assert agent.client.started(state.component).status == RUNNING
        assert agent.client.stop(state.component) == STOPPED
    finally:
        assert agent.end() == 0, agent.said()
