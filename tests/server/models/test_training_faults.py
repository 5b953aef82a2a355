"""Trainings that fail, are killed or cancelled: each ends with a reason, and leaves nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from drawn_parts import COLOR, drawn, encoded, png16, turned
from held_worker import queued_jobs, worker_of
from manifest_lines import line, manifest, masked
from model_fixtures import ModelProject, TrainingService
from moto_s3 import running_s3, running_service_on
from PIL import Image
from polling import until
from service_processes import is_alive, processes, training_processes
from services import NewService, storage_of

from airflow_provider_lookoutvision.server.jobs.child_process import ChildProcess
from airflow_provider_lookoutvision.server.settings import load
from airflow_provider_lookoutvision.server.storage.schema import jobs, training_entries
from airflow_provider_lookoutvision.testing.service import Service

pytest_plugins = ["model_fixtures"]


def failure(project: ModelProject, **more: Any) -> str:
    """The StatusMessage of a training that fails and leaves nothing."""
    described = project.train(**more)
    assert described["Status"] == "TRAINING_FAILED"
    nothing_is_left(project)
    return str(described["StatusMessage"])


def nothing_is_left(project: ModelProject) -> None:
    training_service = project.training_service
    until(lambda: queued_jobs(training_service.storage, project.account), lambda left: not left)
    with training_service.storage.database.read() as connection:
        count = sa.select(sa.func.count()).select_from(training_entries)
        assert connection.execute(count).scalar_one() == 0
    root = training_service.service.data_dir / "training"
    until(lambda: list(root.iterdir()) if root.exists() else [], lambda left: not left)
    until(lambda: training_processes(training_service.service), lambda left: not left)


def test_too_few_images(sqlite_project: ModelProject) -> None:
    sqlite_project.dataset(
        [
            *sqlite_project.lines(normal=19, scratched=2),
            line("unlabelled.jpg", None, bucket=sqlite_project.bucket),
        ]
    )
    single = "a training dataset without a test dataset needs at least"
    assert failure(sqlite_project) == (
        f"Invalid input: {single} 20 images labelled normal, and has 19; "
        f"{single} 10 images labelled anomaly, and has 2"
    )


def test_every_bad_image_and_mask_among_many_is_named(sqlite_project: ModelProject) -> None:
    sqlite_project.dataset(sqlite_project.lines(normal=20, scratched=20, masks=True))
    unknown = Image.new("RGB", (64, 64), "white")
    unknown.paste((1, 2, 3), (0, 0, 8, 8))
    bad = {
        "normal-3.jpg": (b"GIF89a and so on", "the file is neither a JPEG nor a PNG"),
        "normal-4.jpg": (drawn(4)[0][:-400], "cut short"),
        "normal-5.jpg": (encoded(Image.new("RGB", (63, 64)), "PNG"), "the image has 63 x 64 pixels"),
        "normal-6.jpg": (b"", "the file is neither a JPEG nor a PNG"),
        "masks/scratched-0.jpg": (
            encoded(unknown, "PNG"),
            "the mask has #010203, which is no class's colour",
        ),
        "masks/scratched-1.jpg": (encoded(unknown, "JPEG"), "the mask is not a PNG"),
        "masks/scratched-2.jpg": (encoded(Image.new("RGB", (65, 64)), "PNG"), "the mask has 65 x 64 pixels"),
        "masks/scratched-3.jpg": (
            encoded(Image.new("RGB", (64, 32), COLOR), "PNG"),
            "the mask has 64 x 32 pixels, other proportions than its image with 64 x 64 pixels",
        ),
        "normal-7.jpg": (
            png16(np.full((64, 64, 3), 200)),
            "has 16 bits a channel, and no colour is over 255",
        ),
    }
    # Not at fault: 8-bit values in 16-bit grey.
    sqlite_project.write("normal-8.jpg", png16(np.full((64, 64), 200)))
    for key, (content, _) in bad.items():
        sqlite_project.write(key, content)
    message = failure(sqlite_project)
    assert message.startswith("Invalid input: images cannot be used: ")
    named = dict(part.split(": ", 1) for part in message.split("s3://")[1:] if ": " in part)
    assert set(named) == {f"{sqlite_project.bucket}/{key.removeprefix('masks/')}" for key in bad}
    for key, (_, reason) in bad.items():
        assert reason in named[f"{sqlite_project.bucket}/{key.removeprefix('masks/')}"]


def test_images_of_another_size_are_named(sqlite_project: ModelProject) -> None:
    sqlite_project.small_datasets()
    sqlite_project.put_image("normal-107.jpg", 107, side=72)
    sqlite_project.write("normal-108.jpg", turned(Image.new("RGB", (64, 72))))
    assert failure(sqlite_project) == (
        "Invalid input: all images must have the same size: "
        f"s3://{sqlite_project.bucket}/normal-107.jpg: it has 72 x 72 pixels, most have 64 x 64; "
        f"s3://{sqlite_project.bucket}/normal-108.jpg: it has 72 x 64 pixels (upright: its EXIF orientation "
        "turns the 64 x 72 that are stored), most have 64 x 64"
    )


def test_masks_in_another_bucket_on_a_background_that_they_declare(sqlite_project: ModelProject) -> None:
    lines = sqlite_project.lines(normal=20, scratched=20, masks=True)
    elsewhere = sqlite_project.folder.with_name(f"masks-of-{sqlite_project.bucket}")
    elsewhere.mkdir()
    for each in (each for each in lines if "anomaly-mask-ref" in each):
        key = each["anomaly-mask-ref"].rpartition("/")[2]
        mask = np.array(Image.open(sqlite_project.folder / "masks" / key).convert("RGB"))
        mask[(mask == 255).all(axis=2)] = (0x10, 0x20, 0x30)
        (elsewhere / key).write_bytes(encoded(Image.fromarray(mask), "PNG"))
        each["anomaly-mask-ref"] = f"s3://{elsewhere.name}/{key}"
        each["anomaly-mask-ref-metadata"]["internal-color-map"]["0"]["hex-color"] = "#102030"
    # Only what is no image is at fault, and only the mask that isn't where its line says.
    sqlite_project.write("normal-3.jpg", b"GIF89a and so on")
    sqlite_project.dataset(lines)
    message = failure(sqlite_project, ClientToken="t")
    faulty = f"s3://{sqlite_project.bucket}/normal-3.jpg"
    assert message == (
        f"Invalid input: images cannot be used: {faulty}: the file is neither a JPEG nor a PNG, whatever its "
        "name says; convert it to one"
    )
    (elsewhere / "scratched-0.jpg").unlink()
    message = failure(sqlite_project, ClientToken="t")
    assert message.startswith(f"Invalid input: s3://{elsewhere.name}/scratched-0.jpg does not exist")


def test_images_in_both_datasets_are_named_when_the_model_is_trained(sqlite_project: ModelProject) -> None:
    shared = sqlite_project.lines(normal=10)
    sqlite_project.dataset(shared)
    sqlite_project.dataset([*shared, *sqlite_project.lines(scratched=10)], "test")
    described = sqlite_project.train()
    assert described["Status"] == "TRAINED", described
    assert (
        "10 images are in both the training and the test dataset, so that the metrics are too good: "
        f"s3://{sqlite_project.bucket}/normal-0.jpg, " in described["StatusMessage"]
    )


def test_images_that_are_missing_are_named_and_the_token_tries_again(sqlite_project: ModelProject) -> None:
    lines = sqlite_project.lines(normal=10)
    more = [f"none-{number}.jpg" for number in range(11)]
    sqlite_project.dataset([*lines, *(line(key, bucket=sqlite_project.bucket) for key in more)])
    sqlite_project.dataset(sqlite_project.lines(normal=10, scratched=10, first=100), "test")
    with (sqlite_project.folder / "normal-9.jpg").open("wb") as file:
        file.truncate((8 << 20) + 1)
    message = failure(sqlite_project, ClientToken="t")
    assert message.startswith(
        f"Invalid input: s3://{sqlite_project.bucket}/normal-9.jpg has 8388609 bytes; the most is "
    )
    assert f"s3://{sqlite_project.bucket}/none-8.jpg does not exist" in message
    # Ten are named, and the rest counted.
    assert message.count("does not exist") == 9
    assert message.endswith("; and 2 more")
    for number, key in enumerate(["normal-9.jpg", *more], start=50):
        sqlite_project.put_image(key, number)
    described = sqlite_project.train(ClientToken="t")
    assert (described["ModelVersion"], described["Status"]) == ("2", "TRAINED")
    assert sqlite_project.versions() == ["2"]


def test_colours_that_contradict_each_other(sqlite_project: ModelProject) -> None:
    lines = sqlite_project.lines(normal=20, scratched=20, masks=True)
    colors = {"1": {"class-name": "scratch", "hex-color": "#00ff00"}}
    sqlite_project.dataset([*lines, masked("other.jpg", bucket=sqlite_project.bucket, colors=colors)])
    assert failure(sqlite_project) == (
        "Invalid input: the masks paint 'scratch' as #2CA02C and, for s3://"
        f"{sqlite_project.bucket}/other.jpg, as #00FF00: a class has one colour in all of them"
    )


def test_a_training_has_the_permissions_of_its_key(sqlite_project: ModelProject, account: str) -> None:
    sqlite_project.small_datasets()
    limited = sqlite_project.training_service.client(account, buckets=["output-*"])
    output = {"S3Location": {"Bucket": "output-1", "Prefix": ""}}
    limited.create_model(**sqlite_project.of, OutputConfig=output)
    message = sqlite_project.ended()["StatusMessage"]
    assert message.startswith(
        f"Invalid input: the access key may not use the bucket of s3://{sqlite_project.bucket}/"
    )
    nothing_is_left(sqlite_project)


def test_an_output_bucket_that_may_be_used_no_more(sqlite_project: ModelProject) -> None:
    sqlite_project.small_datasets()
    with sqlite_project.training_service.paused_worker():
        sqlite_project.create()
        with sqlite_project.training_service.storage.database.write() as connection:
            connection.execute(jobs.update().values(allowed_buckets=["other"]))
    described = sqlite_project.ended()
    assert described["StatusMessage"] == (
        f"Invalid input: the access key may not use the bucket of s3://{sqlite_project.bucket}/"
    )


# Killed, cancelled, full.


def trainer_of(project: ModelProject, but: int = 0) -> int:
    """The training process, once there is one (other than ``but``)."""
    return until(
        lambda: [pid for pid in training_processes(project.training_service.service) if pid != but],
        lambda found: len(found) == 1,
    )[0]


def test_a_model_that_is_deleted_in_training_is_cancelled(
    project: ModelProject, training_service: TrainingService
) -> None:
    project.small_datasets()
    project.create()
    process = trainer_of(project)
    project.client.delete_model(**project.of, ModelVersion="1")
    until(lambda: is_alive(process), lambda alive: not alive)
    nothing_is_left(project)
    assert project.versions() == []
    # What was occupied is free.
    with training_service.paused_worker():
        assert [project.create()["ModelVersion"] for _ in range(2)] == ["2", "3"]
        for version in ("2", "3"):
            project.client.delete_model(**project.of, ModelVersion=version)


def test_a_killed_training_process_is_replaced_once(sqlite_project: ModelProject) -> None:
    project = sqlite_project
    project.small_datasets()
    project.create(ClientToken="t")
    first = trainer_of(project)
    os.killpg(first, signal.SIGKILL)
    os.killpg(trainer_of(project, but=first), signal.SIGKILL)
    described = project.ended()
    assert described["Status"] == "TRAINING_FAILED"
    assert described["StatusMessage"] == (
        "Service fault: the training process ended 2 times, the last time by SIGKILL, "
        "as when the machine's memory is full"
    )
    nothing_is_left(project)
    project.create(ClientToken="t")
    os.killpg(trainer_of(project), signal.SIGKILL)
    assert project.ended("2")["Status"] == "TRAINED"
    nothing_is_left(project)


@pytest.mark.one_database
def test_whatever_is_killed_the_training_ends(new_service: NewService) -> None:
    service = new_service()
    with storage_of(service) as storage:
        project = TrainingService(service, storage).new_project()
        project.small_datasets()
        project.create()
        process, worker = trainer_of(project), worker_of(project.training_service.service)
        # The worker alone: another takes its place, and the training process has gone with it.
        os.kill(worker, signal.SIGKILL)
        until(lambda: is_alive(process), lambda alive: not alive)
        process, worker = trainer_of(project, but=process), worker_of(project.training_service.service)
        # The service too, as when the power fails.
        os.kill(worker, signal.SIGKILL)
        service.kill()
        until(lambda: is_alive(process), lambda alive: not alive)
        service.start()
        with storage.database.write() as connection:  # fifteen seconds later
            connection.execute(jobs.update().values(leased_until=0))
        assert project.ended()["Status"] == "TRAINED"
        nothing_is_left(project)
        # In an orderly way: it is given back, and not counted as tried.
        project.create()
        process = trainer_of(project)
        service.stop()
        assert not is_alive(process)
        assert [(job.attempts, job.owner) for job in queued_jobs(storage)] == [(0, None)]


def test_a_service_without_the_engine_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "wants_more.py").write_text("import a_library_that_is_not_there")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    with ChildProcess("wants_more", tmp_path, load({})) as child:
        messages, over = child.messages(60)
        while not over:
            more, over = child.messages(60)
            messages += more
    [message] = messages
    assert message["fault"].startswith(
        "a_library_that_is_not_there is not installed where the service runs: pip"
    )


def test_a_folder_that_can_not_be_written(sqlite_project: ModelProject) -> None:
    sqlite_project.small_datasets()
    root = sqlite_project.training_service.service.data_dir / "training"
    if root.exists():
        root.rmdir()
    root.write_text("in the way")
    try:
        message = sqlite_project.train()["StatusMessage"]
        assert message == "Service fault: the data directory can't be used: Not a directory"
        assert queued_jobs(sqlite_project.training_service.storage, sqlite_project.account) == []
    finally:
        root.unlink()


@pytest.fixture(scope="module")
def s3() -> Iterator[tuple[Any, Service]]:
    """A client of S3, and a service whose buckets are there."""
    with running_s3("factory", "results") as client, running_service_on(client) as service:
        yield client, service


def test_a_training_from_s3_and_a_bucket_that_vanishes(s3: tuple[Any, Service]) -> None:
    client, service = s3
    with storage_of(service) as storage:
        project = TrainingService(service, storage).new_project()
        object.__setattr__(project, "folder", project.folder.parent / "factory")
        project.folder.mkdir()
        parts = {"train": project.lines(normal=10), "test": project.lines(normal=10, scratched=10, first=100)}
        for kind, lines in parts.items():
            client.put_object(Bucket="factory", Key=f"{kind}.manifest", Body=manifest(*lines))
            source = {"GroundTruthManifest": {"S3Object": {"Bucket": "factory", "Key": f"{kind}.manifest"}}}
            for path in project.folder.iterdir():
                client.put_object(Bucket="factory", Key=path.name, Body=path.read_bytes())
            project.client.create_dataset(**project.of, DatasetType=kind, DatasetSource=source)
        until(
            lambda: project.client.describe_project(**project.of)["ProjectDescription"]["Datasets"],
            lambda found: {dataset["Status"] for dataset in found} == {"CREATE_COMPLETE"},
        )
        assert project.train(OutputConfig={"S3Location": {"Bucket": "none", "Prefix": ""}})[
            "StatusMessage"
        ] == ("Invalid input: s3://none/ does not exist")
        output = {"S3Location": {"Bucket": "results", "Prefix": "out/"}}
        project.create(OutputConfig=output)
        trainer_of(project)
        client.delete_bucket(Bucket="results")
        described = project.ended()
        assert (described["Status"], described["StatusMessage"]) == (
            "TRAINING_FAILED",
            "Invalid input: s3://results/out/EvaluationManifest-p-2.json does not exist",
        )
        nothing_is_left(project)
    assert processes("server.models.training_process", str(service.data_dir)) == []
