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
from model_fixtures import ModelLab, Studio
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
def labs() -> Iterator[tuple[ModelLab, ModelLab]]:
    with running_service() as service, storage_of(service) as storage:
        studio = Studio(service, storage)
        yield studio.lab("000000000011"), studio.lab("000000000012")


def test_a_device_finds_what_the_service_finds(
    labs: tuple[ModelLab, ModelLab], python: Path, models: Callable[[str], Path], tmp_path: Path
) -> None:
    root = tmp_path / "components"
    for lab, name in zip(labs, ("classes", "plain"), strict=True):
        lab.put(1, artifact=artifact(models(name)))
        described = packaged(lab)
        assert described["Status"] == "SUCCEEDED", described["StatusMessage"]
        with zipfile.ZipFile(lab.folder / "components" / f"{component(lab)}-1.0.0.zip") as archive:
            archive.extractall(root / component(lab))
        lab.host()
    first = root / component(labs[0])
    command = [str(python), str(first / "agent.py")]
    with running_agent(root, tmp_path, "--start", "all", command=command, environ=KEPT) as agent:
        for lab, name in zip(labs, ("classes", "plain"), strict=True):
            _same(lab, name, agent)
    # Nothing else is there that it could have used.
    listed = subprocess.run(
        [python, "-I", "-c", "import airflow_provider_lookoutvision"], capture_output=True
    )
    assert listed.returncode != 0


def _same(lab: ModelLab, name: str, agent: Agent) -> None:
    client, named = agent.client, component(lab)
    state = client.describe(named)
    for _ in range(600):
        if (state := client.describe(named)).status == RUNNING:
            break
    assert state.status == RUNNING, agent.said()
    assert state.arn == lab.describe("1")["ModelArn"]
    for image in held_out(name):
        for content in (encoded(image), encoded(image, "JPEG", quality=85)):
            wanted = lab.detect(content, content_type="image/png" if content[:1] == b"\x89" else "image/jpeg")
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
    labs: tuple[ModelLab, ModelLab], python: Path, models: Callable[[str], Path], tmp_path: Path
) -> None:
    lab = labs[0]
    lab.put(2, artifact=artifact(models("classes")))
    assert packaged(lab, "2")["Status"] == "SUCCEEDED"
    recipe = json.loads((lab.folder / "components" / "recipe.json").read_text())
    [manifest] = recipe["Manifests"]
    # As the nucleus of Greengrass lays it out, and fills in its variables.
    unpacked = tmp_path / "artifacts-unarchived" / recipe["ComponentName"] / recipe["ComponentVersion"]
    archive = lab.folder / manifest["Artifacts"][0]["Uri"].removeprefix(f"s3://{lab.bucket}/")
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
        assert (state.component, state.status) == (component(lab), STOPPED)
        assert agent.client.started(state.component).status == RUNNING
        assert agent.client.stop(state.component) == STOPPED
    finally:
        assert agent.end() == 0, agent.said()
