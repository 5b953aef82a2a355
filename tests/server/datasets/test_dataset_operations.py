"""CreateDataset, DescribeDataset, DeleteDataset, and datasets in DescribeProject and DeleteProject."""

from __future__ import annotations

from typing import Any

import pytest
from dataset_projects import DatasetProject, statistics
from held_worker import paused_worker
from manifest_lines import line, manifest, masked
from sdk_errors import error_response
from services import Storage
from signed_http import SignedHttpClient

from airflow_provider_lookoutvision.testing.service import Service

CREATED = "The dataset was created successfully."


def test_an_empty_dataset_is_there_at_once(project: DatasetProject) -> None:
    made = project.create()
    assert made["DatasetType"] == "train"
    assert (made["Status"], made["StatusMessage"]) == ("CREATE_COMPLETE", CREATED)
    described = project.describe()
    assert statistics(described) == (0, 0, 0, 0)
    assert described == {
        **made,
        "ProjectName": "p",
        "LastUpdatedTimestamp": made["CreationTimestamp"],
        "ImageStats": {"Total": 0, "Labeled": 0, "Normal": 0, "Anomaly": 0},
    }
    assert project.entries() == []


def test_a_dataset_from_a_manifest(project: DatasetProject) -> None:
    content = manifest(
        line("1.png", "normal"),
        line("2.png", "normal"),
        line("3.png", "anomaly"),
        masked("4.png"),
        line("5.png", None),
        line("6.png", "dented"),
    )
    made = project.create(content)
    assert made["Status"] == "CREATE_IN_PROGRESS"
    assert made["StatusMessage"]
    described = project.settled()
    remark = "1 image has a class that is neither normal nor anomaly, and no label for that: 'dented' (1)."
    assert (described["Status"], described["StatusMessage"]) == ("CREATE_COMPLETE", f"{CREATED} {remark}")
    assert statistics(described) == (6, 4, 2, 2)
    assert described["CreationTimestamp"] == made["CreationTimestamp"]
    assert described["LastUpdatedTimestamp"] >= made["CreationTimestamp"]
    assert len(project.entries()) == 6


def test_members_that_programs_read_without_looking_are_there_while_it_is_in_progress(
    project: DatasetProject, service: Service, storage: Storage
) -> None:
    with paused_worker(service, storage):
        made = project.create(manifest(line()))
        assert {"DatasetType", "CreationTimestamp", "Status", "StatusMessage"} == set(made)
        described = project.describe()
        assert described["Status"] == "CREATE_IN_PROGRESS"
        assert described["StatusMessage"] == "The dataset is being created."
        assert statistics(described) == (0, 0, 0, 0)
        assert {"ProjectName", "DatasetType", "CreationTimestamp", "LastUpdatedTimestamp"} < set(described)
        assert (
            project.client.list_dataset_entries(ProjectName="p", DatasetType="train")["DatasetEntries"] == []
        )
        [listed] = project.client.describe_project(ProjectName="p")["ProjectDescription"]["Datasets"]
        assert listed == made
    assert project.settled()["Status"] == "CREATE_COMPLETE"


def test_in_progress_a_dataset_can_be_neither_changed_nor_deleted_nor_created_again(
    project: DatasetProject, service: Service, storage: Storage
) -> None:
    of = {"ProjectName": "p", "DatasetType": "train"}
    with paused_worker(service, storage):
        project.create(manifest(line()))
        for call, members in (
            (project.client.delete_dataset, of),
            (project.client.update_dataset_entries, {**of, "Changes": manifest(line("2.png"))}),
            (project.client.create_dataset, of),
        ):
            error = error_response(call, **members)
            assert error["Error"]["Code"] == "ConflictException"
            assert "CREATE_IN_PROGRESS" in error["Error"]["Message"]
            assert (error["ResourceId"], error["ResourceType"]) == ("p/train", "DATASET")
    assert project.settled()["Status"] == "CREATE_COMPLETE"
    with paused_worker(service, storage):
        project.client.update_dataset_entries(**of, Changes=manifest(line("2.png")))
        assert (project.describe()["Status"], statistics(project.describe())) == (
            "UPDATE_IN_PROGRESS",
            (1, 1, 1, 0),
        )
        for call, members in (
            (project.client.delete_dataset, of),
            (project.client.update_dataset_entries, {**of, "Changes": manifest(line("3.png"))}),
        ):
            error = error_response(call, **members)
            assert error["Error"]["Code"] == "ConflictException"
            assert "UPDATE_IN_PROGRESS" in error["Error"]["Message"]
        assert len(project.entries()) == 1  # as before, until it is complete
    assert project.settled()["Status"] == "UPDATE_COMPLETE"
    assert len(project.entries()) == 2


def test_a_type_is_taken_once(project: DatasetProject) -> None:
    project.create()
    error = error_response(project.client.create_dataset, ProjectName="p", DatasetType="train")
    assert error["Error"]["Code"] == "ConflictException"
    assert error["Error"]["Message"] == (
        "The project 'p' already has a train dataset (CREATE_COMPLETE): to replace it, delete it first"
    )
    assert (error["ResourceId"], error["ResourceType"]) == ("p/train", "DATASET")


def test_test_may_come_before_train_and_both_are_listed_train_first(project: DatasetProject) -> None:
    listed = lambda: project.client.describe_project(ProjectName="p")["ProjectDescription"]["Datasets"]  # noqa: E731
    test = project.create(dataset="test")
    assert listed() == [test]
    train = project.create(dataset="train")
    assert listed() == [train, test]
    project.delete("test")
    assert listed() == [train]


@pytest.mark.parametrize("dataset", ["train", "test"])
def test_a_dataset_that_is_not_there(dataset: str, project: DatasetProject) -> None:
    project.create(dataset="test" if dataset == "train" else "train")
    of = {"ProjectName": "p", "DatasetType": dataset}
    for call, more in (
        (project.client.describe_dataset, {}),
        (project.client.delete_dataset, {}),
        (project.client.list_dataset_entries, {}),
        (project.client.update_dataset_entries, {"Changes": b"{}"}),
    ):
        error = error_response(call, **of, **more)
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
        error = error_response(call, **of, **more)
        assert error["Error"]["Code"] == "ResourceNotFoundException"
        assert (error["ResourceId"], error["ResourceType"]) == ("nothing", "PROJECT")


def test_other_types_and_names_break_the_model(project: DatasetProject) -> None:
    for members in (
        {"DatasetType": "validation"},
        {"DatasetType": "Train"},
        {"DatasetType": "train", "DatasetSource": project.source(key="/absolute")},
        {"DatasetType": "train", "DatasetSource": project.source(key="a b")},
        {"DatasetType": "train", "DatasetSource": project.source(key="k" * 1025)},
        {
            "DatasetType": "train",
            "DatasetSource": {"GroundTruthManifest": {"S3Object": {"Bucket": "a/b", "Key": "k"}}},
        },
    ):
        error = error_response(project.client.create_dataset, ProjectName="p", **members)
        assert error["Error"]["Code"] == "ValidationException"


def test_deletion_is_effective_before_its_answer(project: DatasetProject) -> None:
    # Programs create a dataset again at once, without asking whether the old one has gone.
    for number in range(5):
        project.create(manifest(*(line(f"{number}-{i}.png") for i in range(number + 1))))
        assert statistics(project.settled())[0] == number + 1
        project.delete()
        assert project.client.describe_project(ProjectName="p")["ProjectDescription"]["Datasets"] == []
    project.create()
    project.delete()
    error = error_response(project.client.describe_dataset, ProjectName="p", DatasetType="train")
    assert error["Error"]["Code"] == "ResourceNotFoundException"
    project.create()
    project.delete()
    described = project.created(manifest(line("1.png")))
    assert (described["Status"], project.entries(SourceRefContains="-")) == ("CREATE_COMPLETE", [])
    assert (
        error_response(project.client.delete_dataset, ProjectName="p", DatasetType="test")["ResourceId"]
        == "p/test"
    )


def test_deletion_leaves_the_bucket_alone(project: DatasetProject) -> None:
    project.created(manifest(line()))
    project.delete()
    assert [path.name for path in project.folder.iterdir()] == ["x.manifest"]


def test_a_project_with_datasets_stays(project: DatasetProject) -> None:
    project.create(dataset="test")
    project.create(dataset="train")
    for left, message in (
        ("train", "The project 'p' still has its train dataset, its test dataset: delete the models and"),
        ("test", "The project 'p' still has its test dataset: delete the models and"),
    ):
        error = error_response(project.client.delete_project, ProjectName="p")
        assert error["Error"]["Code"] == "ConflictException"
        assert error["Error"]["Message"].startswith(message)
        assert (error["ResourceId"], error["ResourceType"]) == ("p", "PROJECT")
        project.delete(left)
    project.client.delete_project(ProjectName="p")
    project.client.create_project(ProjectName="p")
    assert project.client.describe_project(ProjectName="p")["ProjectDescription"]["Datasets"] == []


def test_a_failed_dataset_keeps_its_place_until_it_is_deleted(project: DatasetProject) -> None:
    described = project.created(b"no JSON\n")
    assert described["Status"] == "CREATE_FAILED"
    assert statistics(described) == (0, 0, 0, 0)
    [listed] = project.client.describe_project(ProjectName="p")["ProjectDescription"]["Datasets"]
    assert (listed["Status"], listed["StatusMessage"]) == (described["Status"], described["StatusMessage"])
    assert project.entries() == []
    of = {"ProjectName": "p", "DatasetType": "train"}
    error = error_response(project.client.create_dataset, **of)
    assert "(CREATE_FAILED): to replace it, delete it first" in error["Error"]["Message"]
    error = error_response(project.client.update_dataset_entries, **of, Changes=manifest(line()))
    assert error["Error"]["Code"] == "ConflictException"
    assert "is CREATE_FAILED: delete it" in error["Error"]["Message"]
    project.delete()
    assert project.created(manifest(line()))["Status"] == "CREATE_COMPLETE"


def test_deletion_answers_with_an_empty_object(signed_http: SignedHttpClient) -> None:
    signed_http.send("POST", "/2020-11-20/projects", body=b'{"ProjectName":"w"}')
    created = signed_http.send("POST", "/2020-11-20/projects/w/datasets", body=b'{"DatasetType":"train"}')
    assert (created.status, created.json["DatasetMetadata"]["Status"]) == (202, "CREATE_COMPLETE")
    deleted = signed_http.send("DELETE", "/2020-11-20/projects/w/datasets/train")
    assert (deleted.status, deleted.json) == (202, {})
