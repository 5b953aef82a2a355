"""What a packaging job leaves in its bucket, and how it ends when something is deleted, killed or missing."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import zipfile
from pathlib import Path
from typing import Any

import pytest
from dataset_fixtures import queued, until
from model_fixtures import ModelLab, Studio
from packaging_requests import PREFIX, component, configuration, ended, job, packaged, start
from service_processes import processes
from services import NewService, storage_of
from training_processes import paused, worker_of

from airflow_provider_lookoutvision.server.packaging import component as parts
from airflow_provider_lookoutvision.server.storage.schema import jobs

pytest_plugins = ["model_fixtures", "packaging_requests"]
pytestmark = pytest.mark.timeout(400)


def packagers(studio: Studio) -> list[int]:
    return processes("server.packaging.packaging_process", str(studio.service.data_dir))


def packager_of(lab: ModelLab, but: int = 0) -> int:
    """The packaging process, once there is one (other than ``but``), held where it is."""
    return until(lambda: [pid for pid in packagers(lab.studio) if pid != but], lambda found: len(found) == 1)[
        0
    ]


def nothing_is_left(lab: ModelLab) -> None:
    assert queued(lab.studio.storage, lab.account) == []
    until(lambda: packagers(lab.studio), lambda found: not found)
    root = lab.studio.service.data_dir / "packaging"
    until(lambda: list(root.iterdir()) if root.exists() else [], lambda found: not found)


def written(lab: ModelLab) -> set[str]:
    return {str(path.relative_to(lab.folder)) for path in lab.folder.rglob("*") if path.is_file()}


def test_what_a_job_writes(lab: ModelLab, artifact: bytes) -> None:
    lab.put(1, artifact=artifact, f1=0.5)
    tags = [{"Key": "line", "Value": "7"}]
    given = configuration(
        lab, Tags=tags, ComponentDescription="of line 7", CompilerOptions="{'mattr': '+avx'}"
    )
    described = packaged(lab, Configuration=given)
    assert (described["Status"], described["StatusMessage"]) == (
        "SUCCEEDED",
        "The model was packaged successfully.",
    )
    assert described["LastUpdatedTimestamp"] > described["CreationTimestamp"]
    stem = f"{component(lab)}-1.0.0"
    assert written(lab) == {f"{PREFIX}{stem}.zip", f"{PREFIX}recipe.json", f"{PREFIX}{stem}.sha256"}
    folder = lab.folder / PREFIX
    digests = dict(
        reversed(line.split("  ")) for line in (folder / f"{stem}.sha256").read_text().splitlines()
    )
    assert digests == {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in (f"{stem}.zip", "recipe.json")
    }
    recipe = json.loads((folder / "recipe.json").read_text())
    assert (recipe["RecipeFormatVersion"], recipe["ComponentName"], recipe["ComponentVersion"]) == (
        "2020-01-25",
        component(lab),
        "1.0.0",
    )
    assert recipe["ComponentDescription"] == "of line 7"
    assert recipe["ComponentConfiguration"]["DefaultConfiguration"]["Socket"].endswith("EdgeAgent.sock")
    [manifest] = recipe["Manifests"]
    assert manifest["Platform"] == {"os": "linux", "architecture": "amd64"}
    assert manifest["Artifacts"][0]["Uri"] == f"s3://{lab.bucket}/{PREFIX}{stem}.zip"
    assert manifest["Artifacts"][0]["Unarchive"] == "ZIP"
    with zipfile.ZipFile(folder / f"{stem}.zip") as archive:
        names = set(archive.namelist())
        described = json.loads(archive.read("manifest.json"))
        assert (
            hashlib.sha256(archive.read("model.onnx")).hexdigest()
            == described["files"]["model.onnx"]["sha256"]
        )
        sources = {name: archive.read(name).decode() for name in names if name.endswith(".py")}
    assert {
        "manifest.json",
        "model.onnx",
        "agent.py",
        "requirements.txt",
        "lookoutvision-edge.service",
    } < names
    assert not [
        name
        for name, source in sources.items()
        if "import airflow" in source or "airflow_provider_lookoutvision." in source
    ]
    assert described["component"] == {
        "name": component(lab),
        "version": "1.0.0",
        "description": "of line 7",
        "tags": tags,
    }
    assert described["model"]["arn"].endswith(f":{lab.account}:model/p/1")
    assert described["image"] == {"width": 64, "height": 80}
    assert described["metrics"]["F1Score"] == 0.5
    assert described["calibrated"] is False
    assert described["target"]["compiler_options"] == {"mcpu": "core-avx2", "mattr": "+avx"}
    assert {each["license"] for each in described["licences"]} == {"Apache-2.0"}
    nothing_is_left(lab)


@pytest.mark.parametrize(
    ("more", "architecture", "runtime"),
    [
        ({"TargetPlatform": {"Os": "LINUX", "Arch": "ARM64"}}, "aarch64", "onnxruntime>="),
        ({"TargetDevice": "jetson_xavier"}, "aarch64", "onnxruntime-gpu>="),
    ],
)
def test_other_platforms(
    simple: ModelLab, artifact: bytes, more: dict[str, Any], architecture: str, runtime: str
) -> None:
    simple.put(1, artifact=artifact)
    assert packaged(simple, Configuration=configuration(simple, **more))["Status"] == "SUCCEEDED"
    recipe = json.loads((simple.folder / PREFIX / "recipe.json").read_text())
    assert recipe["Manifests"][0]["Platform"]["architecture"] == architecture
    with zipfile.ZipFile(simple.folder / PREFIX / f"{component(simple)}-1.0.0.zip") as archive:
        assert archive.read("requirements.txt").decode().startswith(runtime)
    assert ("has not been tried" in recipe["ComponentDescription"]) == ("gpu" in runtime)


def test_the_runner_is_whole_and_nothing_else(tmp_path: Path) -> None:
    names = {name for name, _ in parts.runner()}
    assert {"__init__.py", "__main__.py", "command.py", "agent.py", "edge_agent_pb2.py", "images.py"} <= names
    assert not {name for name in names if name.startswith(("training", "detector", "artifact"))}


def test_a_model_that_is_deleted_while_it_is_packaged(lab: ModelLab, artifact: bytes) -> None:
    lab.put(1, artifact=artifact)
    name = start(lab)
    process = packager_of(lab)
    os.kill(process, signal.SIGSTOP)
    assert job(lab, name)["Status"] == "RUNNING"
    lab.client.delete_model(**lab.of, ModelVersion="1")
    described = ended(lab, name)
    assert (described["Status"], described["StatusMessage"]) == (
        "FAILED",
        "Invalid input: the model 1 was deleted before it was packaged",
    )
    assert "ModelPackagingOutputDetails" not in described
    assert written(lab) == set()
    nothing_is_left(lab)
    # The component is free for another.
    lab.put(2, artifact=artifact)
    assert (
        packaged(lab, "2", Configuration=configuration(lab, ComponentVersion="1.0.0"))["Status"]
        == "SUCCEEDED"
    )


def test_a_project_that_is_deleted_while_its_model_is_packaged(lab: ModelLab, artifact: bytes) -> None:
    lab.put(1, artifact=artifact)
    start(lab)
    os.kill(packager_of(lab), signal.SIGSTOP)
    lab.client.delete_model(**lab.of, ModelVersion="1")
    lab.client.delete_project(**lab.of)
    until(lambda: queued(lab.studio.storage, lab.account), lambda left: not left)
    nothing_is_left(lab)
    assert written(lab) == set()


def test_a_killed_packaging_process_is_replaced_once(simple: ModelLab, artifact: bytes) -> None:
    simple.put(1, artifact=artifact)
    name = start(simple, ClientToken="t")
    first = packager_of(simple)
    os.killpg(first, signal.SIGKILL)
    os.killpg(packager_of(simple, but=first), signal.SIGKILL)
    described = ended(simple, name)
    assert (described["Status"], described["StatusMessage"]) == (
        "FAILED",
        (
            "Service fault: the packaging process ended 2 times, the last time by SIGKILL, "
            "as when the machine's memory is full"
        ),
    )
    nothing_is_left(simple)
    again = start(simple, ClientToken="t")
    os.killpg(packager_of(simple), signal.SIGKILL)
    assert ended(simple, again)["Status"] == "SUCCEEDED"


def test_whatever_is_killed_the_packaging_ends(new_service: NewService, artifact: bytes) -> None:
    service = new_service()
    with storage_of(service) as storage:
        lab = Studio(service, storage).lab()
        lab.put(1, artifact=artifact)
        name = start(lab)
        process, worker = packager_of(lab), worker_of(lab.studio)
        os.kill(process, signal.SIGSTOP)
        os.kill(worker, signal.SIGKILL)
        service.kill()
        os.killpg(process, signal.SIGKILL)
        service.start()
        with storage.database.write() as connection:  # fifteen seconds later
            connection.execute(jobs.update().values(leased_until=0))
        assert ended(lab, name)["Status"] == "SUCCEEDED"
        nothing_is_left(lab)


def test_the_rights_are_those_of_the_key_that_asked(simple: ModelLab, artifact: bytes) -> None:
    simple.put(1, artifact=artifact)
    with paused(simple.studio):
        name = start(simple)
        with simple.studio.storage.database.write() as connection:
            connection.execute(jobs.update().values(allowed_buckets=["other"]))
    assert ended(simple, name)["StatusMessage"] == (
        f"Invalid input: the access key may not use the bucket of s3://{simple.bucket}/"
    )
    nothing_is_left(simple)


def test_an_artifact_that_is_no_model(simple: ModelLab) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("model.json", "{}")
    simple.put(1, artifact=content.getvalue())
    described = packaged(simple)
    assert described["Status"] == "FAILED"
    assert described["StatusMessage"].startswith("Service fault: the model can't be exported: ")


def test_a_place_that_is_no_object(simple: ModelLab, artifact: bytes) -> None:
    simple.put(1, artifact=artifact)
    simple.write("components", b"a file where the folder would be")
    described = packaged(simple)
    assert described["Status"] == "FAILED"
    assert described["StatusMessage"].startswith("Invalid input: s3://")
