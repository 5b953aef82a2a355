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
from held_worker import queued_jobs, worker_of
from model_fixtures import ModelProject, TrainingService
from packaging_requests import PREFIX, component, configuration, ended, job, packaged, start
from polling import until
from service_processes import processes
from services import NewService, storage_of

from airflow_provider_lookoutvision.server.packaging import component as parts
from airflow_provider_lookoutvision.server.storage.schema import jobs

pytest_plugins = ["model_fixtures", "packaging_requests"]
pytestmark = pytest.mark.timeout(400)


def packagers(training_service: TrainingService) -> list[int]:
    return processes("server.packaging.packaging_process", str(training_service.service.data_dir))


def packager_of(project: ModelProject, but: int = 0) -> int:
    """The packaging process, once there is one (other than ``but``), held where it is."""
    return until(
        lambda: [pid for pid in packagers(project.training_service) if pid != but],
        lambda found: len(found) == 1,
    )[0]


def nothing_is_left(project: ModelProject) -> None:
    assert queued_jobs(project.training_service.storage, project.account) == []
    until(lambda: packagers(project.training_service), lambda found: not found)
    root = project.training_service.service.data_dir / "packaging"
    until(lambda: list(root.iterdir()) if root.exists() else [], lambda found: not found)


def written(project: ModelProject) -> set[str]:
    return {str(path.relative_to(project.folder)) for path in project.folder.rglob("*") if path.is_file()}


def test_what_a_job_writes(project: ModelProject, artifact: bytes) -> None:
    project.put(1, artifact=artifact, f1=0.5)
    tags = [{"Key": "line", "Value": "7"}]
    given = configuration(
        project, Tags=tags, ComponentDescription="of line 7", CompilerOptions="{'mattr': '+avx'}"
    )
    described = packaged(project, Configuration=given)
    assert (described["Status"], described["StatusMessage"]) == (
        "SUCCEEDED",
        "The model was packaged successfully.",
    )
    assert described["LastUpdatedTimestamp"] > described["CreationTimestamp"]
    stem = f"{component(project)}-1.0.0"
    assert written(project) == {f"{PREFIX}{stem}.zip", f"{PREFIX}recipe.json", f"{PREFIX}{stem}.sha256"}
    folder = project.folder / PREFIX
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
        component(project),
        "1.0.0",
    )
    assert recipe["ComponentDescription"] == "of line 7"
    assert recipe["ComponentConfiguration"]["DefaultConfiguration"]["Socket"].endswith("EdgeAgent.sock")
    [manifest] = recipe["Manifests"]
    assert manifest["Platform"] == {"os": "linux", "architecture": "amd64"}
    assert manifest["Artifacts"][0]["Uri"] == f"s3://{project.bucket}/{PREFIX}{stem}.zip"
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
        "name": component(project),
        "version": "1.0.0",
        "description": "of line 7",
        "tags": tags,
    }
    assert described["model"]["arn"].endswith(f":{project.account}:model/p/1")
    assert described["image"] == {"width": 64, "height": 80}
    assert described["metrics"]["F1Score"] == 0.5
    assert described["calibrated"] is False
    assert described["target"]["compiler_options"] == {"mcpu": "core-avx2", "mattr": "+avx"}
    assert {each["license"] for each in described["licences"]} == {"Apache-2.0"}
    nothing_is_left(project)


@pytest.mark.parametrize(
    ("more", "architecture", "runtime"),
    [
        ({"TargetPlatform": {"Os": "LINUX", "Arch": "ARM64"}}, "aarch64", "onnxruntime>="),
        ({"TargetDevice": "jetson_xavier"}, "aarch64", "onnxruntime-gpu>="),
    ],
)
def test_other_platforms(
    sqlite_project: ModelProject, artifact: bytes, more: dict[str, Any], architecture: str, runtime: str
) -> None:
    sqlite_project.put(1, artifact=artifact)
    assert (
        packaged(sqlite_project, Configuration=configuration(sqlite_project, **more))["Status"] == "SUCCEEDED"
    )
    recipe = json.loads((sqlite_project.folder / PREFIX / "recipe.json").read_text())
    assert recipe["Manifests"][0]["Platform"]["architecture"] == architecture
    with zipfile.ZipFile(
        sqlite_project.folder / PREFIX / f"{component(sqlite_project)}-1.0.0.zip"
    ) as archive:
        assert archive.read("requirements.txt").decode().startswith(runtime)
    assert ("has not been tried" in recipe["ComponentDescription"]) == ("gpu" in runtime)


def test_the_runner_is_whole_and_nothing_else(tmp_path: Path) -> None:
    names = {name for name, _ in parts.runner()}
    assert {"__init__.py", "__main__.py", "command.py", "agent.py", "edge_agent_pb2.py", "images.py"} <= names
    assert not {name for name in names if name.startswith(("training", "detector", "artifact"))}


def test_a_model_that_is_deleted_while_it_is_packaged(project: ModelProject, artifact: bytes) -> None:
    project.put(1, artifact=artifact)
    name = start(project)
    process = packager_of(project)
    os.kill(process, signal.SIGSTOP)
    assert job(project, name)["Status"] == "RUNNING"
    project.client.delete_model(**project.of, ModelVersion="1")
    described = ended(project, name)
    assert (described["Status"], described["StatusMessage"]) == (
        "FAILED",
        "Invalid input: the model 1 was deleted before it was packaged",
    )
    assert "ModelPackagingOutputDetails" not in described
    assert written(project) == set()
    nothing_is_left(project)
    # The component is free for another.
    project.put(2, artifact=artifact)
    assert (
        packaged(project, "2", Configuration=configuration(project, ComponentVersion="1.0.0"))["Status"]
        == "SUCCEEDED"
    )


def test_a_project_that_is_deleted_while_its_model_is_packaged(
    project: ModelProject, artifact: bytes
) -> None:
    project.put(1, artifact=artifact)
    start(project)
    os.kill(packager_of(project), signal.SIGSTOP)
    project.client.delete_model(**project.of, ModelVersion="1")
    project.client.delete_project(**project.of)
    until(lambda: queued_jobs(project.training_service.storage, project.account), lambda left: not left)
    nothing_is_left(project)
    assert written(project) == set()


def test_a_killed_packaging_process_is_replaced_once(sqlite_project: ModelProject, artifact: bytes) -> None:
    sqlite_project.put(1, artifact=artifact)
    name = start(sqlite_project, ClientToken="t")
    first = packager_of(sqlite_project)
    os.killpg(first, signal.SIGKILL)
    os.killpg(packager_of(sqlite_project, but=first), signal.SIGKILL)
    described = ended(sqlite_project, name)
    assert (described["Status"], described["StatusMessage"]) == (
        "FAILED",
        (
            "Service fault: the packaging process ended 2 times, the last time by SIGKILL, "
            "as when the machine's memory is full"
        ),
    )
    nothing_is_left(sqlite_project)
    again = start(sqlite_project, ClientToken="t")
    os.killpg(packager_of(sqlite_project), signal.SIGKILL)
    assert ended(sqlite_project, again)["Status"] == "SUCCEEDED"


def test_whatever_is_killed_the_packaging_ends(new_service: NewService, artifact: bytes) -> None:
    service = new_service()
    with storage_of(service) as storage:
        project = TrainingService(service, storage).new_project()
        project.put(1, artifact=artifact)
        name = start(project)
        process, worker = packager_of(project), worker_of(service)
        os.kill(process, signal.SIGSTOP)
        os.kill(worker, signal.SIGKILL)
        service.kill()
        os.killpg(process, signal.SIGKILL)
        service.start()
        with storage.database.write() as connection:  # fifteen seconds later
            connection.execute(jobs.update().values(leased_until=0))
        assert ended(project, name)["Status"] == "SUCCEEDED"
        nothing_is_left(project)


def test_the_rights_are_those_of_the_key_that_asked(sqlite_project: ModelProject, artifact: bytes) -> None:
    sqlite_project.put(1, artifact=artifact)
    with sqlite_project.training_service.paused_worker():
        name = start(sqlite_project)
        with sqlite_project.training_service.storage.database.write() as connection:
            connection.execute(jobs.update().values(allowed_buckets=["other"]))
    assert ended(sqlite_project, name)["StatusMessage"] == (
        f"Invalid input: the access key may not use the bucket of s3://{sqlite_project.bucket}/"
    )
    nothing_is_left(sqlite_project)


def test_an_artifact_that_is_no_model(sqlite_project: ModelProject) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("model.json", "{}")
    sqlite_project.put(1, artifact=content.getvalue())
    described = packaged(sqlite_project)
    assert described["Status"] == "FAILED"
    assert described["StatusMessage"].startswith("Service fault: the model can't be exported: ")


def test_a_place_that_is_no_object(sqlite_project: ModelProject, artifact: bytes) -> None:
    sqlite_project.put(1, artifact=artifact)
    sqlite_project.write("components", b"a file where the folder would be")
    described = packaged(sqlite_project)
    assert described["Status"] == "FAILED"
    assert described["StatusMessage"].startswith("Invalid input: s3://")
