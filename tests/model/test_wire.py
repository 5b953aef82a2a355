"""What a client sends and understands. The requests are those of botocore 1.40.59 with its own model."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

ARN = "arn:aws:lookoutvision:us-east-1:123456789012:model/p_1/1"
ARN_IN_PATH = "/2020-11-20/tags/arn%3Aaws%3Alookoutvision%3Aus-east-1%3A123456789012%3Amodel%2Fp_1%2F1"
P1 = {"ProjectName": "p_1"}
TRAIN = {**P1, "DatasetType": "train"}
MODEL = {**P1, "ModelVersion": "1"}
SOURCE = {"GroundTruthManifest": {"S3Object": {"Bucket": "bkt", "Key": "k.manifest"}}}
OUTPUT = {"S3Location": {"Bucket": "bkt", "Prefix": "pre/"}}
GREENGRASS = {"Greengrass": {"S3OutputLocation": {"Bucket": "bkt"}, "ComponentName": "c"}}
PROJECT_PATH = "/2020-11-20/projects/p_1"
ENTRIES = {
    **TRAIN,
    "Labeled": True,
    "AnomalyClass": "normal",
    "BeforeCreationDate": datetime(2020, 6, 23, 1, 2, 3, 456789, tzinfo=UTC),
    "AfterCreationDate": datetime(2020, 1, 1, tzinfo=UTC),
    "MaxResults": 5,
    "NextToken": "ab/+=",
    "SourceRefContains": "IMG 1/7",
}
ENTRIES_QUERY = (
    "labeled=true&anomalyClass=normal&createdBefore=2020-06-23T01%3A02%3A03.456789Z"
    "&createdAfter=2020-01-01T00%3A00%3A00Z&maxResults=5&nextToken=ab%2F%2B%3D&sourceRefContains=IMG%201%2F7"
)
JOB = {**MODEL, "Configuration": GREENGRASS}
TAGGED = {"ResourceArn": ARN}
TAGS = [{"Key": "k", "Value": "v"}]

# operation, arguments, request line, whether it carries a client token, body
REQUESTS: list[tuple[str, dict[str, Any], str, bool, Any]] = [
    ("create_project", P1, "POST /2020-11-20/projects", True, P1),
    ("describe_project", P1, f"GET {PROJECT_PATH}", False, None),
    ("list_projects", {"MaxResults": 100}, "GET /2020-11-20/projects?maxResults=100", False, None),
    ("delete_project", P1, f"DELETE {PROJECT_PATH}", True, None),
    ("create_dataset", TRAIN, f"POST {PROJECT_PATH}/datasets", True, {"DatasetType": "train"}),
    (
        "create_dataset",
        {**TRAIN, "DatasetSource": SOURCE},
        f"POST {PROJECT_PATH}/datasets",
        True,
        {"DatasetType": "train", "DatasetSource": SOURCE},
    ),
    ("describe_dataset", TRAIN, f"GET {PROJECT_PATH}/datasets/train", False, None),
    ("delete_dataset", TRAIN, f"DELETE {PROJECT_PATH}/datasets/train", True, None),
    (
        "update_dataset_entries",
        {**TRAIN, "Changes": b'{"source-ref": "s3://b/1"}'},
        f"PATCH {PROJECT_PATH}/datasets/train/entries",
        True,
        {"Changes": base64.b64encode(b'{"source-ref": "s3://b/1"}').decode()},
    ),
    (
        "list_dataset_entries",
        ENTRIES,
        f"GET {PROJECT_PATH}/datasets/train/entries?{ENTRIES_QUERY}",
        False,
        None,
    ),
    (
        "create_model",
        {**P1, "OutputConfig": OUTPUT, "Tags": []},
        f"POST {PROJECT_PATH}/models",
        True,
        {"OutputConfig": OUTPUT, "Tags": []},
    ),
    ("describe_model", {**P1, "ModelVersion": "latest"}, f"GET {PROJECT_PATH}/models/latest", False, None),
    ("list_models", P1, f"GET {PROJECT_PATH}/models", False, None),
    (
        "start_model",
        {**MODEL, "MinInferenceUnits": 1, "MaxInferenceUnits": 2},
        f"POST {PROJECT_PATH}/models/1/start",
        True,
        {"MinInferenceUnits": 1, "MaxInferenceUnits": 2},
    ),
    ("stop_model", MODEL, f"POST {PROJECT_PATH}/models/1/stop", True, None),
    ("delete_model", MODEL, f"DELETE {PROJECT_PATH}/models/1", True, None),
    (
        "start_model_packaging_job",
        JOB,
        f"POST {PROJECT_PATH}/modelpackagingjobs",
        True,
        {"ModelVersion": "1", "Configuration": GREENGRASS},
    ),
    (
        "describe_model_packaging_job",
        {**P1, "JobName": "j-1"},
        f"GET {PROJECT_PATH}/modelpackagingjobs/j-1",
        False,
        None,
    ),
    ("list_model_packaging_jobs", P1, f"GET {PROJECT_PATH}/modelpackagingjobs", False, None),
    ("tag_resource", {**TAGGED, "Tags": TAGS}, f"POST {ARN_IN_PATH}", False, {"Tags": TAGS}),
    (
        "untag_resource",
        {**TAGGED, "TagKeys": ["a", "b c"]},
        f"DELETE {ARN_IN_PATH}?tagKeys=a&tagKeys=b%20c",
        False,
        None,
    ),
    ("list_tags_for_resource", TAGGED, f"GET {ARN_IN_PATH}", False, None),
]


@pytest.mark.parametrize(
    ("operation", "arguments", "line", "has_token", "body"), REQUESTS, ids=[case[2][:70] for case in REQUESTS]
)
def test_a_request_looks_as_it_always_did(
    client: Any,
    service: Any,
    operation: str,
    arguments: dict[str, Any],
    line: str,
    has_token: bool,
    body: Any,
) -> None:
    service.answer({})
    getattr(client, operation)(**arguments)
    (request,) = service.requests
    assert f"{request.method} {request.target}" == line
    token = request.headers.get("X-Amzn-Client-Token")
    assert (UUID(token).version == 4) if has_token else (token is None)
    assert request.body == b"" if body is None else json.loads(request.body) == body
    assert request.headers.get("Content-Type") == (None if body is None else "application/json")
    assert "/eu-central-1/lookoutvision/aws4_request" in request.headers["Authorization"]


def test_the_table_has_every_operation_but_detection(client: Any) -> None:
    assert {case[0] for case in REQUESTS} | {"detect_anomalies"} == set(client.meta.method_to_api_mapping)


def test_an_image_is_sent_as_it_is_and_the_verdict_is_read(client: Any, service: Any) -> None:
    mask = b"\x89PNG mask"
    result = {
        "Source": {"Type": "direct"},
        "IsAnomalous": True,
        "Confidence": 0.9996867775917053,
        "Anomalies": [
            {"Name": "background", "PixelAnomaly": {"TotalPercentageArea": 0.98, "Color": "#FFFFFF"}}
        ],
        "AnomalyMask": base64.b64encode(mask).decode(),
    }
    service.answer({"DetectAnomalyResult": result})
    image = b"\x89PNG\r\n\x1a\n not really"
    answer = client.detect_anomalies(**MODEL, Body=image, ContentType="image/png")
    (request,) = service.requests
    assert (request.method, request.target) == ("POST", f"{PROJECT_PATH}/models/1/detect")
    assert request.body == image
    assert request.headers["Content-Type"] == "image/png"
    assert request.headers["Content-Length"] == str(len(image))
    assert answer["DetectAnomalyResult"] == {**result, "AnomalyMask": mask}


def test_a_token_that_the_caller_gives_is_sent(client: Any, service: Any) -> None:
    service.answer({})
    client.create_project(ProjectName="p_1", ClientToken="mine-1")
    assert service.requests[0].headers["X-Amzn-Client-Token"] == "mine-1"


def test_a_timestamp_is_read_with_its_milliseconds(client: Any, service: Any) -> None:
    service.answer({"ProjectMetadata": {"ProjectName": "p_1", "CreationTimestamp": 1607277318.389}})
    created = client.create_project(ProjectName="p_1")["ProjectMetadata"]["CreationTimestamp"]
    assert created == datetime(2020, 12, 6, 17, 55, 18, 389000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("code", "status", "members"),
    [
        ("AccessDeniedException", 403, {}),
        ("ConflictException", 409, {"ResourceId": "p_1", "ResourceType": "PROJECT"}),
        ("ResourceNotFoundException", 404, {"ResourceId": "p_1", "ResourceType": "PROJECT"}),
        ("ServiceQuotaExceededException", 402, {"QuotaCode": "L-1", "ServiceCode": "lookoutvision"}),
        ("ValidationException", 400, {}),
        ("ThrottlingException", 429, {"QuotaCode": "L-1"}),
        ("InternalServerException", 500, {}),
    ],
)
def test_an_error_is_raised_as_its_own_class(
    client: Any, service: Any, code: str, status: int, members: dict[str, str]
) -> None:
    service.fail(code, status, members)
    with pytest.raises(client.exceptions.from_code(code)) as raised:
        client.describe_project(ProjectName="p_1")
    assert type(raised.value).__name__ == code
    response = raised.value.response
    assert {name: response[name] for name in members} == members
    assert (response["Error"]["Message"], response["Error"]["Code"]) == ("refused", code)


@pytest.mark.parametrize(("code", "status"), [("ThrottlingException", 429), ("InternalServerException", 500)])
def test_the_time_to_wait_comes_in_a_header(client: Any, service: Any, code: str, status: int) -> None:
    service.fail(code, status, **{"Retry-After": "7"})
    with pytest.raises(client.exceptions.from_code(code)) as raised:
        client.describe_project(ProjectName="p_1")
    assert raised.value.response["RetryAfterSeconds"] == 7
