"""CreateModel, DescribeModel, ListModels: what they answer, what they refuse, and who may ask."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from drawn_parts import drawn
from manifest_lines import line
from model_fixtures import ModelProject, TrainingService
from polling import until
from sdk_errors import error_response
from services import REGION

pytest_plugins = ["model_fixtures"]


@pytest.fixture
def untrainable_project(project: ModelProject) -> ModelProject:
    """A project with a training dataset that is too small: each training fails at once."""
    project.dataset([line("nothing.jpg", bucket=project.bucket)])
    return project


def arn(project: ModelProject, version: int) -> str:
    return f"arn:aws:lookoutvision:{REGION}:{project.account}:model/p/{version}"


def test_the_description_of_a_training(
    untrainable_project: ModelProject, training_service: TrainingService
) -> None:
    with training_service.paused_worker():
        made = untrainable_project.create(
            Description="Line 7.2, größer als 3 µm (new!)", KmsKeyId="alias/k", Tags=[]
        )
        described = untrainable_project.describe("1")
        [listed] = untrainable_project.client.list_models(**untrainable_project.of)["Models"]
    assert isinstance(made.pop("CreationTimestamp"), datetime)
    assert made == {
        "ModelVersion": "1",
        "ModelArn": arn(untrainable_project, 1),
        "Description": "Line 7.2, größer als 3 µm (new!)",
        "Status": "TRAINING",
        "StatusMessage": "The model is being trained.",
    }
    # While a model is in training there are no performance, and nothing stands for them.
    assert {name: listed[name] for name in made} == made
    assert set(listed) == {*made, "CreationTimestamp"}
    assert described == {**listed, "OutputConfig": untrainable_project.output, "KmsKeyId": "alias/k"}


def test_the_description_of_a_trained_model(project: ModelProject) -> None:
    project.put(7, output_prefix="k_fold_", description="d")
    performance = {"F1Score": 0.75, "Recall": 0.6, "Precision": 1.0}
    described = project.describe("7")
    assert (
        described["Performance"]
        == project.client.list_models(**project.of)["Models"][0]["Performance"]
        == performance
    )
    assert described["EvaluationEndTimestamp"].timestamp() == 1_600_000_060
    # The prefix is put before the names as it is.
    for kind in ("EvaluationManifest", "EvaluationResult"):
        assert described[kind] == {"Bucket": project.bucket, "Key": f"k_fold_{kind}-p-7.json"}
    assert described["OutputConfig"] == {"S3Location": {"Bucket": project.bucket, "Prefix": "k_fold_"}}
    assert "MinInferenceUnits" not in described
    project.put(8, "TRAINING_FAILED")
    assert not {"Performance", "EvaluationResult", "EvaluationEndTimestamp"} & set(project.describe("8"))


def test_an_output_without_prefix(
    untrainable_project: ModelProject, training_service: TrainingService
) -> None:
    with training_service.paused_worker():
        untrainable_project.create(OutputConfig={"S3Location": {"Bucket": untrainable_project.bucket}})
        assert untrainable_project.describe()["OutputConfig"] == {
            "S3Location": {"Bucket": untrainable_project.bucket, "Prefix": ""}
        }
        untrainable_project.client.delete_model(**untrainable_project.of, ModelVersion="1")


def test_versions_are_never_used_again(untrainable_project: ModelProject) -> None:
    assert [untrainable_project.train()["ModelVersion"] for _ in range(2)] == ["1", "2"]
    assert untrainable_project.describe("latest")["ModelVersion"] == "2"
    untrainable_project.client.delete_model(**untrainable_project.of, ModelVersion="2")
    # The latest is the highest that is there.
    assert untrainable_project.describe("latest")["ModelVersion"] == "1"
    untrainable_project.client.delete_model(**untrainable_project.of, ModelVersion="1")
    assert untrainable_project.train()["ModelVersion"] == "3"
    assert untrainable_project.versions() == ["3"]


def test_pages_of_models(project: ModelProject, training_service: TrainingService) -> None:
    assert project.client.list_models(**project.of)["Models"] == []
    for version in (2, 1, 10, 3, 9):
        project.put(version)
    pages = []
    token: dict[str, str] = {}
    while token is not None:
        answer = project.client.list_models(**project.of, MaxResults=2, **token)
        pages.append([model["ModelVersion"] for model in answer["Models"]])
        token = {"NextToken": answer["NextToken"]} if "NextToken" in answer else None
    # The oldest first, by number.
    assert pages == [["1", "2"], ["3", "9"], ["10"]]
    found = project.client.list_models(**project.of, MaxResults=1)["NextToken"]
    project.client.create_project(ProjectName="q")
    for members in ({"ProjectName": "q", "NextToken": found}, {**project.of, "NextToken": "YWJj"}):
        assert error_response(project.client.list_models, **members)["Error"]["Code"] == "ValidationException"
    assert (
        error_response(project.client.list_models, **project.of, MaxResults=101)["Error"]["Code"]
        == "ValidationException"
    )
    assert error_response(project.client.list_models, ProjectName="none")["ResourceType"] == "PROJECT"
    # A page goes on where the last one ended, whatever was deleted meanwhile.
    found = project.client.list_models(**project.of, MaxResults=2)["NextToken"]
    project.client.delete_model(**project.of, ModelVersion="2")
    assert project.client.list_models(**project.of, NextToken=found)["Models"][0]["ModelVersion"] == "3"


def test_a_training_needs_a_training_dataset(project: ModelProject) -> None:
    def refused() -> dict[str, Any]:
        return error_response(project.client.create_model, **project.of, OutputConfig=project.output)

    error = error_response(project.client.create_model, ProjectName="none", OutputConfig=project.output)
    assert (error["Error"]["Code"], error["ResourceType"]) == ("ResourceNotFoundException", "PROJECT")
    for kind in ("none", "test"):
        if kind == "test":
            project.client.create_dataset(**project.of, DatasetType="test")
        error = refused()
        assert error["Error"]["Code"] == "ResourceNotFoundException"
        assert (error["ResourceId"], error["ResourceType"]) == ("p/train", "DATASET")
    assert project.versions() == []


def test_a_training_from_a_dataset_that_failed(project: ModelProject) -> None:
    project.write("x", b"no JSON")
    source = {"GroundTruthManifest": {"S3Object": {"Bucket": project.bucket, "Key": "x"}}}
    project.client.create_dataset(**project.of, DatasetType="train", DatasetSource=source)
    until(
        lambda: project.client.describe_dataset(**project.of, DatasetType="train")["DatasetDescription"],
        lambda found: found["Status"] == "CREATE_FAILED",
    )
    error = error_response(project.client.create_model, **project.of, OutputConfig=project.output)
    assert error["Error"]["Code"] == "ConflictException"
    assert "CREATE_FAILED: delete it" in error["Error"]["Message"]


def test_a_prefix_that_makes_the_key_too_long(
    untrainable_project: ModelProject, training_service: TrainingService
) -> None:
    output = {"S3Location": {"Bucket": untrainable_project.bucket, "Prefix": "x" * 1000}}
    error = error_response(
        untrainable_project.client.create_model, **untrainable_project.of, OutputConfig=output
    )
    assert error["Error"]["Code"] == "ValidationException"
    assert "a key of 1027 characters" in error["Error"]["Message"]
    with training_service.paused_worker():
        assert untrainable_project.create()["ModelVersion"] == "1"


@pytest.mark.parametrize("prefix", ["./out/", "a/../b/"])
def test_a_prefix_that_makes_no_key(prefix: str, untrainable_project: ModelProject) -> None:
    output = {"S3Location": {"Bucket": untrainable_project.bucket, "Prefix": prefix}}
    error = error_response(
        untrainable_project.client.create_model, **untrainable_project.of, OutputConfig=output
    )
    assert error["Error"]["Code"] == "ValidationException"
    assert repr(prefix) in error["Error"]["Message"]


def test_the_output_bucket_must_be_one_of_the_keys(
    untrainable_project: ModelProject, training_service: TrainingService
) -> None:
    limited = training_service.client(untrainable_project.account, buckets=["parts-*"])
    output = {"S3Location": {"Bucket": "secrets", "Prefix": ""}}
    error = error_response(limited.create_model, **untrainable_project.of, OutputConfig=output)
    assert error["Error"]["Code"] == "AccessDeniedException"
    assert error["Error"]["Message"].endswith("lookoutvision:CreateModel on resource: arn:aws:s3:::secrets")
    assert untrainable_project.versions() == []


def test_a_project_with_models_stays(project: ModelProject) -> None:
    for version in range(1, 8):
        project.put(version)
    error = error_response(project.client.delete_project, **project.of)
    assert error["Error"]["Code"] == "ConflictException"
    assert "still has its model 1, its model 2" in error["Error"]["Message"]
    for version in range(1, 8):
        project.client.delete_model(**project.of, ModelVersion=str(version))
    project.client.delete_project(**project.of)


def requests(project: ModelProject) -> dict[str, dict[str, Any]]:
    of = {**project.of, "ModelVersion": "1"}
    tagged = {"ResourceArn": arn(project, 1)}
    return {
        "CreateModel": {**project.of, "OutputConfig": project.output},
        "DescribeModel": of,
        "ListModels": project.of,
        "StartModel": {**of, "MinInferenceUnits": 1},
        "DetectAnomalies": {**of, "Body": drawn(0)[0], "ContentType": "image/jpeg"},
        "StopModel": of,
        "TagResource": {**tagged, "Tags": [{"Key": "a", "Value": "b"}]},
        "ListTagsForResource": tagged,
        "UntagResource": {**tagged, "TagKeys": ["a"]},
        "DeleteModel": of,
    }


def method_of(client: Any, operation: str) -> Any:
    names = {name: method for method, name in client.meta.method_to_api_mapping.items()}
    return getattr(client, names[operation])


@pytest.mark.parametrize("permissions", [{"project": ["q*", "P"]}, {"allow": ["lookoutvision:*Project*"]}])
def test_who_may_do_nothing_with_models(
    permissions: dict[str, list[str]], project: ModelProject, training_service: TrainingService
) -> None:
    project.put(1)
    client = training_service.client(project.account, **permissions)
    for operation, members in requests(project).items():
        error = error_response(method_of(client, operation), **members)
        assert error["Error"]["Code"] == "AccessDeniedException"
        assert f"lookoutvision:{operation} on resource: " in error["Error"]["Message"]
    # The error doesn't show whether there is such a model.
    tagged = {"ResourceArn": arn(project, 9)}
    assert error_response(client.list_tags_for_resource, **tagged)["Error"]["Code"] == "AccessDeniedException"
    assert project.versions() == ["1"]


def test_who_may_train_but_not_tag(
    untrainable_project: ModelProject, training_service: TrainingService
) -> None:
    client = training_service.client(untrainable_project.account, allow=["lookoutvision:CreateModel"])
    members = {
        **untrainable_project.of,
        "OutputConfig": untrainable_project.output,
        "Tags": [{"Key": "a", "Value": "b"}],
    }
    error = error_response(client.create_model, **members)
    assert error["Error"]["Code"] == "AccessDeniedException"
    assert "lookoutvision:TagResource" in error["Error"]["Message"]
    assert untrainable_project.versions() == []


def test_who_may_do_one_thing_with_models(
    untrainable_project: ModelProject, training_service: TrainingService
) -> None:
    untrainable_project.put(1)
    with training_service.paused_worker():
        for operation, members in requests(untrainable_project).items():
            allow = [f"lookoutvision:{operation}"]
            call = method_of(
                training_service.client(untrainable_project.account, allow=allow, project=["p"]), operation
            )
            if operation in {"DetectAnomalies", "StopModel"}:
                untrainable_project.put(
                    1, "TRAINED"
                )  # which isn't hosted: the right is there, the state isn't
                assert error_response(call, **members)["Error"]["Code"] == "ConflictException"
            else:
                assert call(**members)
    assert untrainable_project.versions() == ["2"]
