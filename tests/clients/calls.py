"""One round of calls with a plain boto3, whatever its version and wherever its model comes from.

``python calls.py`` finds its endpoint, key and model in the environment, and prints as JSON what it saw; it
imports nothing but boto3.
"""

import json
import sys
from datetime import datetime

import boto3
from botocore.exceptions import ClientError, ParamValidationError


def outcome(call, **members):
    """What a call returned or was refused with, without what differs from run to run."""
    try:
        answer = call(**members)
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        told = {k: v for k, v in error.response.items() if k not in ("ResponseMetadata", "message")}
        return [type(error).__name__, status, told]
    except ParamValidationError as error:
        return [type(error).__name__, str(error)]
    assert answer["ResponseMetadata"]["RequestId"]
    status = answer["ResponseMetadata"]["HTTPStatusCode"]
    return [status, plain({k: v for k, v in answer.items() if k != "ResponseMetadata"})]


def plain(value):
    """The value as JSON has it; moments are all the same."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [plain(v) for v in value]
    if isinstance(value, datetime):
        assert value.tzinfo
        assert value.year > 2020
        return "a moment"
    return value


def calls(client):
    """All calls, in their order; what each came to."""
    token = "a-token"
    yield outcome(client.list_projects)
    yield outcome(client.create_project, ProjectName="p-0", ClientToken=token)
    yield outcome(client.create_project, ProjectName="p-0", ClientToken=token)
    yield outcome(client.create_project, ProjectName="p-1", ClientToken=token)
    yield outcome(client.create_project, ProjectName="p-0")
    for number in range(1, 7):
        yield outcome(client.create_project, ProjectName=f"p-{number}")
    yield outcome(client.describe_project, ProjectName="p-0")
    yield outcome(client.describe_project, ProjectName="p-9")
    yield outcome(client.describe_project, ProjectName="no name")
    yield outcome(client.describe_project, ProjectName="")
    yield outcome(client.describe_project)
    yield outcome(client.list_projects, MaxResults=101)
    yield outcome(client.list_projects, MaxResults=0)
    yield outcome(client.list_projects, NextToken="AAAA")
    yield outcome(client.list_projects)
    paginator = client.get_paginator("list_projects")
    for page_size in (1, 3, 7, 100):
        pages = list(paginator.paginate(PaginationConfig={"PageSize": page_size}))
        yield [[project["ProjectName"] for project in page["Projects"]] for page in pages]
    result = paginator.paginate(PaginationConfig={"MaxItems": 4, "PageSize": 3}).build_full_result()
    yield [project["ProjectName"] for project in result["Projects"]]
    rest = {"MaxItems": 4, "PageSize": 3, "StartingToken": result["NextToken"]}
    yield [
        p["ProjectName"] for p in paginator.paginate(PaginationConfig=rest).build_full_result()["Projects"]
    ]
    yield outcome(client.create_dataset, ProjectName="p-0", DatasetType="train")
    yield outcome(client.create_dataset, ProjectName="p-0", DatasetType="other")
    yield outcome(client.describe_dataset, ProjectName="p-0", DatasetType="train")
    yield outcome(client.describe_dataset, ProjectName="p-0", DatasetType="test")
    yield outcome(
        client.list_dataset_entries,
        ProjectName="p-0",
        DatasetType="train",
        Labeled=True,
        AnomalyClass="normal",
        BeforeCreationDate=datetime(2020, 1, 1),  # noqa: DTZ001 (as naive as programs are)
        SourceRefContains="a b/+",
    )
    yield from calls_about_models(client, "p-0")
    yield outcome(client.delete_project, ProjectName="p-0")
    yield outcome(client.delete_dataset, ProjectName="p-0", DatasetType="train", ClientToken=token)
    yield outcome(client.delete_dataset, ProjectName="p-0", DatasetType="train", ClientToken=token)
    for number in range(7):
        yield outcome(client.delete_project, ProjectName=f"p-{number}")
    yield outcome(client.delete_project, ProjectName="p-0")
    yield outcome(client.create_project, ProjectName="p-0", ClientToken=token)
    try:
        client.describe_project(ProjectName="p-0")
    except client.exceptions.ResourceNotFoundException as error:
        yield error.response["ResourceType"]
    try:
        client.describe_project(ProjectName="p-0")
    except client.exceptions.from_code("ResourceNotFoundException") as error:
        yield error.response["ResourceId"]
    yield outcome(client.list_projects)


def calls_about_models(client, project):
    """All calls about models whose training has not begun, in their order; what each came to."""
    output = {"S3Location": {"Bucket": "some-bucket", "Prefix": "evaluations/"}}
    first = {"ProjectName": project, "OutputConfig": output, "Tags": [], "ClientToken": "first"}
    model = {"ProjectName": project, "ModelVersion": "1"}
    yield outcome(client.list_models, ProjectName=project)
    yield outcome(client.create_model, ProjectName="p-1", OutputConfig=output)
    yield outcome(client.create_model, **first)
    yield outcome(client.create_model, **first)
    yield outcome(
        client.create_model,
        ProjectName=project,
        OutputConfig={"S3Location": {"Bucket": "some-bucket"}},
        Description="the-second",
        Tags=[{"Key": "stage", "Value": ""}, {"Key": "line:1/a", "Value": "a b"}],
    )
    yield outcome(client.create_model, ProjectName=project, OutputConfig=output)
    yield outcome(client.create_model, ProjectName=project, OutputConfig=output, Description="two\nlines")
    yield outcome(client.describe_model, **model)
    described = client.describe_model(ProjectName=project, ModelVersion="latest")["ModelDescription"]
    yield plain(described)
    yield outcome(client.describe_model, ProjectName=project, ModelVersion="9999999999")
    arn = described["ModelArn"]
    yield outcome(client.list_tags_for_resource, ResourceArn=arn)
    yield outcome(client.tag_resource, ResourceArn=arn, Tags=[{"Key": "ümlaut", "Value": "€ 1"}])
    yield outcome(client.untag_resource, ResourceArn=arn, TagKeys=["stage", "none such"])
    yield outcome(client.list_tags_for_resource, ResourceArn=arn)
    yield outcome(client.list_tags_for_resource, ResourceArn=arn.replace("/2", "/3"))
    yield outcome(client.start_model, MinInferenceUnits=1, **model)
    yield outcome(client.start_model, MinInferenceUnits=0, **model)
    yield outcome(client.stop_model, **model)
    yield outcome(client.detect_anomalies, Body=b"no image", ContentType="image/jpeg", **model)
    yield outcome(
        client.detect_anomalies, Body=bytearray(b"none"), ContentType="binary/octet-stream", **model
    )
    pages = client.get_paginator("list_models").paginate(
        ProjectName=project, PaginationConfig={"PageSize": 1}
    )
    yield [[found["ModelVersion"] for found in page["Models"]] for page in pages]
    yield outcome(client.delete_model, ClientToken="delete", **model)
    yield outcome(client.delete_model, ClientToken="delete", **model)
    yield outcome(client.delete_model, ProjectName=project, ModelVersion="latest")
    yield outcome(client.delete_project, ProjectName=project)
    yield outcome(client.delete_model, ProjectName=project, ModelVersion="2")
    yield outcome(client.list_models, ProjectName=project)


def main():
    client = boto3.client("lookoutvision")
    json.dump({"boto3": boto3.__version__, "calls": list(calls(client))}, sys.stdout)


if __name__ == "__main__":
    main()
