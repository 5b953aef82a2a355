"""CreateDataset, DescribeDataset, DeleteDataset, and what the rest of the API tells of datasets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from dataset_fixtures import Lab, paused, refusal, statistics, worker_of
from manifest_lines import line, manifest, masked
from services import MakeClient, Storage, client_of
from signed_http import Wire

from airflow_provider_lookoutvision.server.calls import access
from airflow_provider_lookoutvision.testing.service import Key, Service

CREATED = "The dataset was created successfully."


@pytest.fixture
def lab(service: Service, client: Any) -> Lab:
    return Lab.make(service, client)


def test_an_empty_dataset_is_there_at_once(lab: Lab) -> None:
    made = lab.create()
    assert made["DatasetType"] == "train"
    assert (made["Status"], made["StatusMessage"]) == ("CREATE_COMPLETE", CREATED)
    described = lab.describe()
    assert statistics(described) == (0, 0, 0, 0)
    assert described == {
        **made,
        "ProjectName": "p",
        "LastUpdatedTimestamp": made["CreationTimestamp"],
        "ImageStats": {"Total": 0, "Labeled": 0, "Normal": 0, "Anomaly": 0},
    }
    assert lab.entries() == []


def test_a_dataset_from_a_manifest(lab: Lab) -> None:
    content = manifest(
        line("1.png", "normal"),
        line("2.png", "normal"),
        line("3.png", "anomaly"),
        masked("4.png"),
        line("5.png", None),
        line("6.png", "dented"),
    )
    made = lab.create(content)
    assert made["Status"] == "CREATE_IN_PROGRESS"
    assert made["StatusMessage"]
    described = lab.settled()
    assert (described["Status"], described["StatusMessage"]) == ("CREATE_COMPLETE", CREATED)
    assert statistics(described) == (6, 4, 2, 2)
    assert described["CreationTimestamp"] == made["CreationTimestamp"]
    assert described["LastUpdatedTimestamp"] >= made["CreationTimestamp"]
    assert len(lab.entries()) == 6


def test_members_that_programs_read_without_looking_are_there_while_it_is_in_progress(
    lab: Lab, service: Service, storage: Storage
) -> None:
    with paused(service, storage):
        made = lab.create(manifest(line()))
        assert {"DatasetType", "CreationTimestamp", "Status", "StatusMessage"} == set(made)
        described = lab.describe()
        assert described["Status"] == "CREATE_IN_PROGRESS"
        assert described["StatusMessage"] == "The dataset is being created."
        assert statistics(described) == (0, 0, 0, 0)
        assert {"ProjectName", "DatasetType", "CreationTimestamp", "LastUpdatedTimestamp"} < set(described)
        assert lab.client.list_dataset_entries(ProjectName="p", DatasetType="train")["DatasetEntries"] == []
        [listed] = lab.client.describe_project(ProjectName="p")["ProjectDescription"]["Datasets"]
        assert listed == made
    assert lab.settled()["Status"] == "CREATE_COMPLETE"


def test_in_progress_a_dataset_can_be_neither_changed_nor_deleted_nor_created_again(
    lab: Lab, service: Service, storage: Storage
) -> None:
    of = {"ProjectName": "p", "DatasetType": "train"}
    with paused(service, storage):
        lab.create(manifest(line()))
        for call, members in (
            (lab.client.delete_dataset, of),
            (lab.client.update_dataset_entries, {**of, "Changes": manifest(line("2.png"))}),
            (lab.client.create_dataset, of),
        ):
            error = refusal(call, **members)
            assert error["Error"]["Code"] == "ConflictException"
            assert "CREATE_IN_PROGRESS" in error["Error"]["Message"]
            assert (error["ResourceId"], error["ResourceType"]) == ("p/train", "DATASET")
    assert lab.settled()["Status"] == "CREATE_COMPLETE"
    with paused(service, storage):
        lab.client.update_dataset_entries(**of, Changes=manifest(line("2.png")))
        assert (lab.describe()["Status"], statistics(lab.describe())) == ("UPDATE_IN_PROGRESS", (1, 1, 1, 0))
        for call, members in (
            (lab.client.delete_dataset, of),
            (lab.client.update_dataset_entries, {**of, "Changes": manifest(line("3.png"))}),
        ):
            error = refusal(call, **members)
            assert error["Error"]["Code"] == "ConflictException"
            assert "UPDATE_IN_PROGRESS" in error["Error"]["Message"]
        assert len(lab.entries()) == 1  # as before, until it is complete
    assert lab.settled()["Status"] == "UPDATE_COMPLETE"
    assert len(lab.entries()) == 2


def test_a_type_is_taken_once(lab: Lab) -> None:
    lab.create()
    error = refusal(lab.client.create_dataset, ProjectName="p", DatasetType="train")
    assert error["Error"]["Code"] == "ConflictException"
    assert error["Error"]["Message"] == (
        "The project 'p' already has a train dataset (CREATE_COMPLETE): to replace it, delete it first"
    )
    assert (error["ResourceId"], error["ResourceType"]) == ("p/train", "DATASET")


def test_test_may_come_before_train_and_both_are_listed_train_first(lab: Lab) -> None:
    project = lambda: lab.client.describe_project(ProjectName="p")["ProjectDescription"]["Datasets"]  # noqa: E731
    test = lab.create(dataset="test")
    assert project() == [test]
    train = lab.create(dataset="train")
    assert project() == [train, test]
    lab.delete("test")
    assert project() == [train]


@pytest.mark.parametrize("dataset", ["train", "test"])
def test_a_dataset_that_is_not_there(dataset: str, lab: Lab) -> None:
    lab.create(dataset="test" if dataset == "train" else "train")
    of = {"ProjectName": "p", "DatasetType": dataset}
    for call, more in (
        (lab.client.describe_dataset, {}),
        (lab.client.delete_dataset, {}),
        (lab.client.list_dataset_entries, {}),
        (lab.client.update_dataset_entries, {"Changes": b"{}"}),
    ):
        error = refusal(call, **of, **more)
        assert error["Error"] == {
            "Code": "ResourceNotFoundException",
            "Message": f"The project 'p' has no {dataset} dataset",
        }
        assert (error["ResourceId"], error["ResourceType"]) == (f"p/{dataset}", "DATASET")


def test_a_project_that_is_not_there(client: Any) -> None:
    of = {"ProjectName": "nothing", "DatasetType": "train"}
    for call, more in (
        (client.create_dataset, {}),
        (client.describe_dataset, {}),
        (client.delete_dataset, {}),
        (client.list_dataset_entries, {}),
        (client.update_dataset_entries, {"Changes": b"{}"}),
    ):
        error = refusal(call, **of, **more)
        assert error["Error"]["Code"] == "ResourceNotFoundException"
        assert (error["ResourceId"], error["ResourceType"]) == ("nothing", "PROJECT")


def test_other_types_and_names_break_the_model(lab: Lab) -> None:
    for members in (
        {"DatasetType": "validation"},
        {"DatasetType": "Train"},
        {"DatasetType": "train", "DatasetSource": lab.source(key="/absolute")},
        {"DatasetType": "train", "DatasetSource": lab.source(key="a b")},
        {"DatasetType": "train", "DatasetSource": lab.source(key="k" * 1025)},
        {
            "DatasetType": "train",
            "DatasetSource": {"GroundTruthManifest": {"S3Object": {"Bucket": "a/b", "Key": "k"}}},
        },
    ):
        error = refusal(lab.client.create_dataset, ProjectName="p", **members)
        assert error["Error"]["Code"] == "ValidationException"


def test_deletion_is_effective_before_its_answer(lab: Lab) -> None:
    # Programs create a dataset again at once, without asking whether the old one has gone.
    for number in range(5):
        lab.create(manifest(*(line(f"{number}-{i}.png") for i in range(number + 1))))
        assert statistics(lab.settled())[0] == number + 1
        lab.delete()
        assert lab.client.describe_project(ProjectName="p")["ProjectDescription"]["Datasets"] == []
    lab.create()
    lab.delete()
    error = refusal(lab.client.describe_dataset, ProjectName="p", DatasetType="train")
    assert error["Error"]["Code"] == "ResourceNotFoundException"
    lab.create()
    lab.delete()
    described = lab.created(manifest(line("1.png")))
    assert (described["Status"], lab.entries(SourceRefContains="-")) == ("CREATE_COMPLETE", [])
    assert refusal(lab.client.delete_dataset, ProjectName="p", DatasetType="test")["ResourceId"] == "p/test"


def test_deletion_leaves_the_bucket_alone(lab: Lab) -> None:
    lab.created(manifest(line()))
    lab.delete()
    assert [path.name for path in lab.folder.iterdir()] == ["x.manifest"]


def test_a_project_with_datasets_stays(lab: Lab) -> None:
    lab.create(dataset="test")
    lab.create(dataset="train")
    for left, message in (
        ("train", "The project 'p' still has its train dataset, its test dataset: delete the models and"),
        ("test", "The project 'p' still has its test dataset: delete the models and"),
    ):
        error = refusal(lab.client.delete_project, ProjectName="p")
        assert error["Error"]["Code"] == "ConflictException"
        assert error["Error"]["Message"].startswith(message)
        assert (error["ResourceId"], error["ResourceType"]) == ("p", "PROJECT")
        lab.delete(left)
    lab.client.delete_project(ProjectName="p")
    lab.client.create_project(ProjectName="p")
    assert lab.client.describe_project(ProjectName="p")["ProjectDescription"]["Datasets"] == []


def test_a_failed_dataset_keeps_its_place_until_it_is_deleted(lab: Lab) -> None:
    described = lab.created(b"no JSON\n")
    assert described["Status"] == "CREATE_FAILED"
    assert statistics(described) == (0, 0, 0, 0)
    [listed] = lab.client.describe_project(ProjectName="p")["ProjectDescription"]["Datasets"]
    assert (listed["Status"], listed["StatusMessage"]) == (described["Status"], described["StatusMessage"])
    assert lab.entries() == []
    of = {"ProjectName": "p", "DatasetType": "train"}
    error = refusal(lab.client.create_dataset, **of)
    assert "(CREATE_FAILED): to replace it, delete it first" in error["Error"]["Message"]
    error = refusal(lab.client.update_dataset_entries, **of, Changes=manifest(line()))
    assert error["Error"]["Code"] == "ConflictException"
    assert "is CREATE_FAILED: delete it" in error["Error"]["Message"]
    lab.delete()
    assert lab.created(manifest(line()))["Status"] == "CREATE_COMPLETE"


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
            manifest(r'{"source-ref":"s3://images/1.png","\u0000\ud800-metadata":{"type":"groundtruth/image-classification"}}'),
            r"has 1 invalid line: line 1: its '\x00\ud800'-metadata has no class-name",
        ),
        ("\n".join(["{}"] * 2).encode("utf-16"), "it is not UTF-8 (byte 1)"),
    ],
    ids=["empty", "blank", "one", "ten", "many", "late", "buckets", "unprintable", "utf-16"],
)  # fmt: skip
def test_a_manifest_that_can_not_be_used(content: bytes, message: str, lab: Lab) -> None:
    described = lab.created(content)
    assert described["Status"] == "CREATE_FAILED"
    assert described["StatusMessage"].startswith(f"Invalid input: the manifest s3://{lab.bucket}/x.manifest ")
    assert message in described["StatusMessage"]
    assert statistics(described) == (0, 0, 0, 0)
    assert lab.entries() == []


def test_a_manifest_as_windows_writes_it_with_the_same_image_twice(lab: Lab) -> None:
    content = b"\xef\xbb\xbf" + b"\r\n".join(
        manifest(document).strip()
        for document in (
            {"source-ref": "1.png"},
            line("2.png", "normal", bucket=lab.bucket),
            line("1.png", "normal", bucket=lab.bucket),
            line("3.png", "anomaly", bucket=lab.bucket),
            line("1.png", "anomaly", bucket=lab.bucket),
        )
    )
    described = lab.created(content)
    assert (described["Status"], statistics(described)) == ("CREATE_COMPLETE", (3, 3, 1, 2))
    entries = lab.entries()
    assert len(entries) == 3
    [last] = [entry for entry in entries if "/1.png" in entry]
    assert '"anomaly-label":1' in last


def test_the_same_image_again_thousands_of_lines_later(lab: Lab) -> None:
    described = lab.created(
        manifest(*(line(f"{n % 1500}.png", "normal" if n < 1500 else "anomaly") for n in range(3000)))
    )
    assert (described["Status"], statistics(described)) == ("CREATE_COMPLETE", (1500, 1500, 0, 1500))
    entries = lab.entries()
    assert len(entries) == len(set(entries)) == 1500


def test_keys_of_1024_bytes_that_no_index_can_shorten(lab: Lab) -> None:
    from random import Random

    names = Random(7)
    keys = ["".join(chr(names.randrange(0x20000, 0x2A6D0)) for _ in range(256)) for _ in range(20)]
    described = lab.created(manifest(*(line(key) for key in keys)))
    assert (described["Status"], statistics(described)[0]) == ("CREATE_COMPLETE", 20)
    assert len(lab.entries(SourceRefContains=keys[3])) == 1


def test_more_images_than_a_dataset_may_have(lab: Lab) -> None:
    # 4,000 in a test dataset; an image's second line is no image more.
    lines = [line(f"{n}.png", None) for n in range(4000)]
    described = lab.created(manifest(*lines, line("7.png")), "test")
    assert (described["Status"], statistics(described)) == ("CREATE_COMPLETE", (4000, 1, 1, 0))
    lab.delete("test")
    described = lab.created(manifest(*lines, line("4000.png")), "test")
    assert described["Status"] == "CREATE_FAILED"
    assert re.fullmatch(
        r"Invalid input: .* has more than 4000 images, .*max_test_images.*", described["StatusMessage"]
    )


def test_a_file_that_is_no_manifest_at_all_is_not_read_to_its_end(lab: Lab) -> None:
    described = lab.created(b"x\n" * 10_000, "test")
    assert "/x.manifest has more than 4000 invalid lines: line 1: it is not" in described["StatusMessage"]
    assert described["StatusMessage"].endswith("; and 3991 more")


def test_a_single_line_of_300_million_bytes_costs_no_memory(lab: Lab, service: Service) -> None:
    lab.created(manifest(line()), "test")
    with (lab.folder / "x.manifest").open("wb") as file:
        file.truncate(300_000_000)  # all of it zeros, and none of it on the disk
    worker = Path(f"/proc/{worker_of(service)}")
    (worker / "clear_refs").write_text("5")  # the peak begins anew
    before = _kilobytes(worker, "VmRSS")
    described = lab.created(DatasetSource=lab.source())
    assert described["StatusMessage"] == (
        f"Invalid input: the manifest s3://{lab.bucket}/x.manifest has 1 invalid line: line 1: "
        "it has more than 8192 characters"
    )
    assert _kilobytes(worker, "VmHWM") < before + 20_000


def _kilobytes(process: Path, name: str) -> int:
    return next(
        int(text.split()[1])
        for text in (process / "status").read_text().splitlines()
        if text.startswith(name + ":")
    )


def test_a_manifest_that_is_too_large_is_not_read(lab: Lab) -> None:
    with (lab.folder / "x.manifest").open("wb") as file:
        file.truncate(1_000_000_001)
    described = lab.created(DatasetSource=lab.source())
    assert described["StatusMessage"] == (
        f"Invalid input: s3://{lab.bucket}/x.manifest has 1000000001 bytes; the most is 1000000000"
    )


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
def test_a_manifest_that_can_not_be_had(key: str, reason: str, lab: Lab) -> None:
    (lab.folder / "folder").mkdir()
    (lab.folder / "x.manifest").write_bytes(manifest(line()))
    (lab.folder / "link").symlink_to("x.manifest")
    described = lab.created(DatasetSource=lab.source(key=key))
    assert described["Status"] == "CREATE_FAILED"
    assert described["StatusMessage"].startswith(f"Invalid input: s3://{lab.bucket}/{key} {reason}")


def test_a_version_where_there_are_none(lab: Lab) -> None:
    described = lab.created(DatasetSource=lab.source(manifest(line()), VersionId="v1"))
    assert described["Status"] == "CREATE_FAILED"
    assert "(version v1) names a version, but directories keep none" in described["StatusMessage"]


@pytest.fixture
def limited(service: Service, storage: Storage, account: str, lab: Lab) -> Any:
    """A client that may use some buckets only."""
    with storage.database.write() as connection:
        key, secret = access.create_key(
            connection, storage.cipher, account_id=account, allowed_buckets=["images-*", "?ther"]
        )
    return client_of(service.endpoint_url, Key(key.access_key_id, secret, account))


@pytest.mark.parametrize("bucket", ["parts", "Images-1", "my-images-1", "another"])
def test_a_key_may_use_its_buckets_only(bucket: str, limited: Any, lab: Lab) -> None:
    source = {"GroundTruthManifest": {"S3Object": {"Bucket": bucket, "Key": "x.manifest"}}}
    error = refusal(limited.create_dataset, ProjectName="p", DatasetType="train", DatasetSource=source)
    assert error["Error"]["Code"] == "AccessDeniedException"
    assert re.fullmatch(
        r"User: arn:aws:iam::\d{12}:user/AKIA\w+ is not authorized to perform: lookoutvision:CreateDataset "
        f"on resource: arn:aws:s3:::{bucket}",
        error["Error"]["Message"],
    )
    # Nothing came of it; and what needs no bucket is allowed.
    assert lab.client.describe_project(ProjectName="p")["ProjectDescription"]["Datasets"] == []
    limited.create_dataset(ProjectName="p", DatasetType="train")


def test_a_key_may_use_the_buckets_that_its_patterns_name(limited: Any, lab: Lab) -> None:
    limited.create_dataset(ProjectName="p", DatasetType="train", DatasetSource=lab.source(manifest(line())))
    assert lab.settled()["Status"] == "CREATE_COMPLETE"


def test_datasets_of_other_accounts_and_regions(make_client: MakeClient, lab: Lab, new_key: Any) -> None:
    lab.create()
    key = new_key()
    there = make_client(key=key, region="us-west-2")
    there.create_project(ProjectName="p")
    theirs = make_client(account="000000000001")
    try:
        theirs.create_project(ProjectName=f"p-{lab.bucket}")
        for client, project in ((there, "p"), (theirs, f"p-{lab.bucket}")):
            error = refusal(client.describe_dataset, ProjectName=project, DatasetType="train")
            assert error["ResourceType"] == "DATASET"
            client.create_dataset(ProjectName=project, DatasetType="train")
            client.delete_dataset(ProjectName=project, DatasetType="train")
    finally:
        theirs.delete_project(ProjectName=f"p-{lab.bucket}")
    assert lab.describe()["Status"] == "CREATE_COMPLETE"


def test_deletion_answers_with_an_empty_object(wire: Wire) -> None:
    wire.send("POST", "/2020-11-20/projects", body=b'{"ProjectName":"w"}')
    created = wire.send("POST", "/2020-11-20/projects/w/datasets", body=b'{"DatasetType":"train"}')
    assert (created.status, created.json["DatasetMetadata"]["Status"]) == (202, "CREATE_COMPLETE")
    deleted = wire.send("DELETE", "/2020-11-20/projects/w/datasets/train")
    assert (deleted.status, deleted.json) == (202, {})
