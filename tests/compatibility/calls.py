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


def main():
    client = boto3.client("lookoutvision")
    json.dump({"boto3": boto3.__version__, "calls": list(calls(client))}, sys.stdout)


if __name__ == "__main__":
    main()
