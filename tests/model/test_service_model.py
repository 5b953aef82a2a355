"""The service model says what the API is: operations, shapes, constraints, places on the wire, words."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import pytest
from botocore.model import ServiceModel

ALL_ERRORS = {
    "AccessDeniedException": 403,
    "ConflictException": 409,
    "InternalServerException": 500,
    "ResourceNotFoundException": 404,
    "ServiceQuotaExceededException": 402,
    "ThrottlingException": 429,
    "ValidationException": 400,
}

PROJECT = "/2020-11-20/projects/{projectName}"
DATASET = PROJECT + "/datasets/{datasetType}"
MODEL = PROJECT + "/models/{modelVersion}"
JOBS = PROJECT + "/modelpackagingjobs"
TAGS = "/2020-11-20/tags/{resourceArn}"
OPERATIONS = {
    "CreateProject": ("POST", "/2020-11-20/projects", 200),
    "DescribeProject": ("GET", PROJECT, 200),
    "ListProjects": ("GET", "/2020-11-20/projects", 200),
    "DeleteProject": ("DELETE", PROJECT, 200),
    "CreateDataset": ("POST", PROJECT + "/datasets", 202),
    "DescribeDataset": ("GET", DATASET, 200),
    "DeleteDataset": ("DELETE", DATASET, 202),
    "ListDatasetEntries": ("GET", DATASET + "/entries", 200),
    "UpdateDatasetEntries": ("PATCH", DATASET + "/entries", 202),
    "CreateModel": ("POST", PROJECT + "/models", 202),
    "DescribeModel": ("GET", MODEL, 200),
    "ListModels": ("GET", PROJECT + "/models", 200),
    "DeleteModel": ("DELETE", MODEL, 202),
    "StartModel": ("POST", MODEL + "/start", 202),
    "StopModel": ("POST", MODEL + "/stop", 202),
    "DetectAnomalies": ("POST", MODEL + "/detect", 200),
    "StartModelPackagingJob": ("POST", JOBS, 200),
    "DescribeModelPackagingJob": ("GET", JOBS + "/{jobName}", 200),
    "ListModelPackagingJobs": ("GET", JOBS, 200),
    "TagResource": ("POST", TAGS, 200),
    "UntagResource": ("DELETE", TAGS, 200),
    "ListTagsForResource": ("GET", TAGS, 200),
}
WITH_TOKEN = {
    "CreateProject",
    "DeleteProject",
    "CreateDataset",
    "DeleteDataset",
    "UpdateDatasetEntries",
    "CreateModel",
    "DeleteModel",
    "StartModel",
    "StopModel",
    "StartModelPackagingJob",
}
WITH_QUOTA = {
    "CreateProject",
    "CreateDataset",
    "CreateModel",
    "StartModel",
    "StartModelPackagingJob",
    "TagResource",
}
WITHOUT_CONFLICT = {"DescribeModelPackagingJob", "ListModelPackagingJobs"}

KEY_PATTERN = r"^([a-zA-Z0-9!_.*'()-][/a-zA-Z0-9!_.*'()-]*)?$"
TAG_PATTERN = r"^([\p{L}\p{Z}\p{N}_.:/=+\-@]*)$"
TEXT_PATTERN = r"[a-zA-Z0-9-_. ()':,;?]+"
CONSTRAINTS: dict[str, tuple[int | None, int | None, str | None]] = {
    "AnomalyClassFilter": (1, 10, "(normal|anomaly)"),
    "AnomalyMask": (1, 5 * 2**20, None),
    "AnomalyName": (1, 256, "[a-zA-Z0-9]*"),
    "ClientToken": (1, 64, "^[a-zA-Z0-9-]+$"),
    "Color": (7, 7, r"\#[a-zA-Z0-9]{6}"),
    "CompilerOptions": (3, 1024, ".*"),
    "ComponentDescription": (1, 256, TEXT_PATTERN),
    "ComponentName": (1, 128, "[a-zA-Z0-9-_.]+"),
    "ComponentVersion": (1, 64, r"^([0-9]{1,6})\.([0-9]{1,6})\.([0-9]{1,6})$"),
    "ComponentVersionArn": (None, None, "arn:[^:]*:greengrass:[^:]*:aws:components:[^:]+"),
    "ContentType": (1, 255, ".*"),
    "DatasetChanges": (1, 10 * 2**20, None),
    "DatasetEntry": (2, 8192, r"^\{.*\}$"),
    "DatasetType": (1, 10, "train|test"),
    "ImageSourceType": (None, None, "direct"),
    "InferenceUnits": (1, None, None),
    "KmsKeyId": (1, 2048, "^[A-Za-z0-9][A-Za-z0-9:_/+=,@.-]{0,2048}$"),
    # AWS's has no spaces, and AWS's own samples do.
    "ModelDescriptionMessage": (1, 500, r"[\p{L}\p{M}\p{N}\p{P}\p{S}\p{Zs}]*"),
    "ModelPackagingJobDescription": (1, 256, TEXT_PATTERN),
    "ModelPackagingJobName": (1, 64, "[a-zA-Z0-9-]+"),
    "ModelPackagingMethod": (1, 32, "^[a-zA-Z0-9]+"),
    "ModelVersion": (1, 10, "([1-9][0-9]*|latest)"),
    "ModelVersionNoLatest": (1, 10, "([1-9][0-9]*)"),
    "PageSize": (1, 100, None),
    "PaginationToken": (None, 2048, r"^[a-zA-Z0-9\/\+\=]{0,2048}$"),
    "ProjectName": (1, 255, r"[a-zA-Z0-9][a-zA-Z0-9_\-]*"),
    "QueryString": (1, 2048, r".*\S.*"),
    "S3BucketName": (3, 63, r"[0-9A-Za-z\.\-_]*"),
    "S3KeyPrefix": (None, 1024, KEY_PATTERN),
    "S3ObjectKey": (1, 1024, KEY_PATTERN),
    "S3ObjectVersion": (1, 1024, ".*"),
    "TagArn": (1, 1011, None),
    "TagKey": (1, 128, TAG_PATTERN),
    "TagKeyList": (0, 200, None),
    "TagList": (0, 200, None),
    "TagValue": (0, 256, TAG_PATTERN),
}
ENUMS = {
    "DatasetStatus": "CREATE_IN_PROGRESS CREATE_COMPLETE CREATE_FAILED UPDATE_IN_PROGRESS UPDATE_COMPLETE "
    "UPDATE_FAILED_ROLLBACK_IN_PROGRESS UPDATE_FAILED_ROLLBACK_COMPLETE DELETE_IN_PROGRESS DELETE_COMPLETE "
    "DELETE_FAILED",
    "ModelHostingStatus": "STARTING_HOSTING HOSTED HOSTING_FAILED STOPPING_HOSTING SYSTEM_UPDATING",
    "ModelPackagingJobStatus": "CREATED RUNNING SUCCEEDED FAILED",
    "ModelStatus": "TRAINING TRAINED TRAINING_FAILED STARTING_HOSTING HOSTED HOSTING_FAILED STOPPING_HOSTING "
    "SYSTEM_UPDATING DELETING",
    "ResourceType": "PROJECT DATASET MODEL TRIAL MODEL_PACKAGE_JOB",
    "TargetDevice": "jetson_xavier",
    "TargetPlatformAccelerator": "NVIDIA",
    "TargetPlatformArch": "ARM64 X86_64",
    "TargetPlatformOs": "LINUX",
}


@pytest.fixture(scope="module")
def data(model_data: dict[str, Any]) -> dict[str, Any]:
    return model_data["service-2"]


@pytest.fixture(scope="module")
def model(data: dict[str, Any]) -> ServiceModel:
    return ServiceModel(data, "lookoutvision")


def test_the_service_is_named_and_signed_as_it_always_was(model: ServiceModel) -> None:
    assert model.metadata == {
        "apiVersion": "2020-11-20",
        "auth": ["aws.auth#sigv4"],
        "endpointPrefix": "lookoutvision",
        "jsonVersion": "1.1",
        "protocol": "rest-json",
        "protocols": ["rest-json"],
        "serviceFullName": "Amazon Lookout for Vision",
        "serviceId": "LookoutVision",
        "signatureVersion": "v4",
        "signingName": "lookoutvision",
        "uid": "lookoutvision-2020-11-20",
    }


def test_there_are_22_operations(model: ServiceModel) -> None:
    assert len(OPERATIONS) == 22
    assert set(model.operation_names) == set(OPERATIONS)


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_has_its_method_path_status_token_and_errors(model: ServiceModel, name: str) -> None:
    operation = model.operation_model(name)
    http = operation.http
    assert (http["method"], http["requestUri"], http.get("responseCode", 200)) == OPERATIONS[name]
    assert operation.idempotent_members == (["ClientToken"] if name in WITH_TOKEN else [])
    expected = set(ALL_ERRORS)
    if name not in WITH_QUOTA:
        expected.remove("ServiceQuotaExceededException")
    if name in WITHOUT_CONFLICT:
        expected.remove("ConflictException")
    assert {error.name for error in operation.error_shapes} == expected


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_labels_of_the_path_are_required_members(model: ServiceModel, name: str) -> None:
    operation = model.operation_model(name)
    shape = operation.input_shape
    in_path = {
        member.serialization["name"]: member_name
        for member_name, member in shape.members.items()
        if member.serialization.get("location") == "uri"
    }
    assert set(in_path) == set(re.findall(r"{(\w+)}", operation.http["requestUri"]))
    assert set(in_path.values()) <= set(shape.required_members)
    assert set(shape.required_members) <= set(shape.members)


def test_a_token_travels_in_its_header(model: ServiceModel) -> None:
    for name in WITH_TOKEN:
        token = model.operation_model(name).input_shape.members["ClientToken"]
        assert token.serialization == {"location": "header", "name": "X-Amzn-Client-Token"}


def test_an_image_is_the_whole_body_and_its_length_is_known(model: ServiceModel) -> None:
    shape = model.operation_model("DetectAnomalies").input_shape
    assert shape.serialization["payload"] == "Body"
    assert shape.members["Body"].serialization["streaming"] is True
    assert shape.members["Body"].metadata["requiresLength"] is True


def test_the_errors_have_their_statuses(model: ServiceModel) -> None:
    assert {
        shape.name: shape.metadata["error"]["httpStatusCode"] for shape in model.error_shapes
    } == ALL_ERRORS
    assert [shape.name for shape in model.error_shapes if shape._shape_model.get("fault")] == [
        "InternalServerException"
    ]


def references(shape: dict[str, Any]) -> set[str]:
    members = [*shape.get("members", {}).values(), *([shape["member"]] if "member" in shape else [])]
    return {member["shape"] for member in members}


def test_every_shape_is_used_and_none_is_missing(data: dict[str, Any]) -> None:
    reached: set[str] = set()
    ahead = {
        reference["shape"]
        for operation in data["operations"].values()
        for reference in [operation["input"], operation["output"], *operation["errors"]]
    }
    while ahead:
        name = ahead.pop()
        reached.add(name)
        ahead |= references(data["shapes"][name]) - reached
    assert reached == set(data["shapes"])


def test_every_constraint_is_in_the_model_and_no_other(data: dict[str, Any]) -> None:
    found = {
        name: (shape.get("min"), shape.get("max"), shape.get("pattern"))
        for name, shape in data["shapes"].items()
        if {"min", "max", "pattern"} & set(shape)
    }
    assert found == CONSTRAINTS


def test_every_enumeration_is_in_the_model_and_no_other(data: dict[str, Any]) -> None:
    found = {name: shape["enum"] for name, shape in data["shapes"].items() if "enum" in shape}
    assert found == {name: values.split() for name, values in ENUMS.items()}


def documentation(data: dict[str, Any]) -> dict[str, str]:
    """Every text a reader may meet; a member without its own shows that of its shape."""
    texts = {"the service": data.get("documentation", "")}
    for name, operation in data["operations"].items():
        texts[name] = operation.get("documentation", "")
    for name, shape in data["shapes"].items():
        texts[name] = shape.get("documentation", "")
        for member, reference in shape.get("members", {}).items():
            inherited = data["shapes"][reference["shape"]].get("documentation", "")
            texts[f"{name}.{member}"] = reference.get("documentation", inherited)
    return texts


def test_everything_is_documented_in_well_formed_text(data: dict[str, Any]) -> None:
    texts = documentation(data)
    assert [name for name, text in texts.items() if not text.strip()] == []
    for name, text in texts.items():
        root = ElementTree.fromstring(f"<text>{text}</text>")
        assert {element.tag for element in root.iter()} <= {"text", "p", "code", "a"}, name
        assert {link.text for link in root.iter("a")} <= set(OPERATIONS), name


@pytest.mark.parametrize("name", OPERATIONS)
def test_help_shows_what_an_operation_does(client: Any, data: dict[str, Any], name: str) -> None:
    from botocore import xform_name

    text = " ".join(
        ElementTree.fromstring(f"<text>{data['operations'][name]['documentation']}</text>").itertext()
    )
    first_words = text.split()[:4]
    assert " ".join(first_words) in " ".join(str(getattr(client, xform_name(name)).__doc__).split())
