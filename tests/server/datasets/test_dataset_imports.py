"""Imports of manifests: what is counted, what fails with which reason, and what they cost."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from dataset_projects import DatasetProject, statistics
from held_worker import worker_of
from manifest_lines import line, manifest

from airflow_provider_lookoutvision.testing.service import Service


@pytest.mark.one_database
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty: it needs one JSON object for each image"),
        (b"\xef\xbb\xbf\r\n \n", "is empty: it needs one JSON object for each image"),
        (
            manifest(line("1.png"), "", "nonsense", line("2.png")),
            "has 1 invalid line: line 3: it is not JSON: Expecting value at column 1",
        ),
        (
            manifest(*["{}"] * 10),
            "has 10 invalid lines: " + "; ".join(f"line {n}: it has no source-ref" for n in range(1, 11)),
        ),
        (
            manifest(line("1.png"), *["[]"] * 1200, line("2.png")),
            "has 1200 invalid lines: "
            + "; ".join(f"line {n}: it is not a JSON object" for n in range(2, 12))
            + "; and 1190 more",
        ),
        (
            manifest(*(line(f"{n}") for n in range(2500)), b"\xff", *(line(f"{-n}") for n in range(2500))),
            "has 1 invalid line: line 2501: it is not UTF-8 (byte 1)",
        ),
        (
            manifest(line("1.png", bucket="one"), line("2.png", bucket="two"), line("3.png", bucket="one")),
            "has 1 invalid line: line 2: its image is in the bucket two, others are in one; all must be in",
        ),
        (
            manifest(r'{"source-ref":"s3://images/1.png","\u0000\ud800-ref-metadata":{"type":"groundtruth/semantic-segmentation"}}'),
            r"has 1 invalid line: line 1: it has '\x00\ud800-ref'-metadata, but no '\x00\ud800-ref'",
        ),
        ("\n".join(["{}"] * 2).encode("utf-16"), "it is not UTF-8 (byte 1)"),
    ],
    ids=["empty", "blank", "one", "ten", "many", "late", "buckets", "unprintable", "utf-16"],
)  # fmt: skip
def test_a_manifest_that_can_not_be_used(content: bytes, message: str, project: DatasetProject) -> None:
    described = project.created(content)
    assert described["Status"] == "CREATE_FAILED"
    assert described["StatusMessage"].startswith(
        f"Invalid input: the manifest s3://{project.bucket}/x.manifest "
    )
    assert message in described["StatusMessage"]
    assert statistics(described) == (0, 0, 0, 0)
    assert project.entries() == []


def test_a_manifest_as_windows_writes_it_with_the_same_image_twice(project: DatasetProject) -> None:
    content = b"\xef\xbb\xbf" + b"\r\n".join(
        manifest(document).strip()
        for document in (
            {"source-ref": "1.png"},
            line("2.png", "normal", bucket=project.bucket),
            line("1.png", "normal", bucket=project.bucket),
            line("3.png", "anomaly", bucket=project.bucket),
            line("1.png", "anomaly", bucket=project.bucket),
        )
    )
    described = project.created(content)
    assert (described["Status"], statistics(described)) == ("CREATE_COMPLETE", (3, 3, 1, 2))
    entries = project.entries()
    assert len(entries) == 3
    [last] = [entry for entry in entries if "/1.png" in entry]
    assert '"anomaly-label":1' in last


def test_the_same_image_again_thousands_of_lines_later(project: DatasetProject) -> None:
    described = project.created(
        manifest(*(line(f"{n % 1500}.png", "normal" if n < 1500 else "anomaly") for n in range(3000)))
    )
    assert (described["Status"], statistics(described)) == ("CREATE_COMPLETE", (1500, 1500, 0, 1500))
    entries = project.entries()
    assert len(entries) == len(set(entries)) == 1500


def test_keys_of_1024_bytes_that_no_index_can_shorten(project: DatasetProject) -> None:
    from random import Random

    names = Random(7)
    keys = ["".join(chr(names.randrange(0x20000, 0x2A6D0)) for _ in range(256)) for _ in range(20)]
    described = project.created(manifest(*(line(key) for key in keys)))
    assert (described["Status"], statistics(described)[0]) == ("CREATE_COMPLETE", 20)
    assert len(project.entries(SourceRefContains=keys[3])) == 1


def test_more_images_than_a_dataset_may_have(project: DatasetProject) -> None:
    # 4,000 in a test dataset; an image's second line is no image more.
    lines = [line(f"{n}.png", None) for n in range(4000)]
    described = project.created(manifest(*lines, line("7.png")), "test")
    assert (described["Status"], statistics(described)) == ("CREATE_COMPLETE", (4000, 1, 1, 0))
    project.delete("test")
    described = project.created(manifest(*lines, line("4000.png")), "test")
    assert described["Status"] == "CREATE_FAILED"
    assert re.fullmatch(
        r"Invalid input: .* has more than 4000 images, .*max_test_images.*", described["StatusMessage"]
    )


@pytest.mark.one_database
def test_a_file_that_is_no_manifest_at_all_is_not_read_to_its_end(project: DatasetProject) -> None:
    described = project.created(b"x\n" * 10_000, "test")
    assert "/x.manifest has more than 4000 invalid lines: line 1: it is not" in described["StatusMessage"]
    assert described["StatusMessage"].endswith("; and 3991 more")


@pytest.mark.one_database
def test_a_single_line_of_300_million_bytes_costs_no_memory(
    project: DatasetProject, service: Service
) -> None:
    project.created(manifest(line()), "test")
    with (project.folder / "x.manifest").open("wb") as file:
        file.truncate(300_000_000)  # all of it zeros, and none of it on the disk
    worker = Path(f"/proc/{worker_of(service)}")
    (worker / "clear_refs").write_text("5")  # resets the peak
    before = _kilobytes(worker, "VmRSS")
    described = project.created(DatasetSource=project.source())
    assert described["StatusMessage"] == (
        f"Invalid input: the manifest s3://{project.bucket}/x.manifest has 1 invalid line: line 1: "
        "it has more than 8192 characters"
    )
    assert _kilobytes(worker, "VmHWM") < before + 20_000


def _kilobytes(process: Path, name: str) -> int:
    return next(
        int(text.split()[1])
        for text in (process / "status").read_text().splitlines()
        if text.startswith(name + ":")
    )


@pytest.mark.one_database
def test_a_manifest_that_is_too_large_is_not_read(project: DatasetProject) -> None:
    with (project.folder / "x.manifest").open("wb") as file:
        file.truncate(1_000_000_001)
    described = project.created(DatasetSource=project.source())
    assert described["StatusMessage"] == (
        f"Invalid input: s3://{project.bucket}/x.manifest has 1000000001 bytes; the most is 1000000000"
    )


@pytest.mark.one_database
@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("nothing.manifest", "does not exist"),
        ("folder", "is not a file"),
        ("folder/", "is a folder, not an object"),
        ("a/../x.manifest", "names no object"),
        ("link", "leads through a symbolic link"),
    ],
)
def test_a_manifest_that_can_not_be_had(key: str, reason: str, project: DatasetProject) -> None:
    (project.folder / "folder").mkdir()
    (project.folder / "x.manifest").write_bytes(manifest(line()))
    (project.folder / "link").symlink_to("x.manifest")
    described = project.created(DatasetSource=project.source(key=key))
    assert described["Status"] == "CREATE_FAILED"
    assert described["StatusMessage"].startswith(f"Invalid input: s3://{project.bucket}/{key} {reason}")


@pytest.mark.one_database
def test_a_version_where_there_are_none(project: DatasetProject) -> None:
    described = project.created(DatasetSource=project.source(manifest(line()), VersionId="v1"))
    assert described["Status"] == "CREATE_FAILED"
    assert "(version v1) names a version, but directories keep none" in described["StatusMessage"]
