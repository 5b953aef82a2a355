"""CreateProject, DescribeProject, ListProjects, DeleteProject, as an SDK sees them."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

import pytest
from project_calls import names
from sdk_errors import error_response
from services import REGION, MakeClient
from signed_http import SignedHttpClient


def test_create_returns_the_project(client, account) -> None:
    before = datetime.now(UTC)
    made = client.create_project(ProjectName="Line-7_a")["ProjectMetadata"]
    assert made["ProjectArn"] == f"arn:aws:lookoutvision:{REGION}:{account}:project/Line-7_a"
    assert made["ProjectName"] == "Line-7_a"
    # Whole milliseconds, so the first moment may be a fraction of one earlier.
    assert before.timestamp() - 0.001 <= made["CreationTimestamp"].timestamp() <= time.time()
    assert set(made) == {"ProjectArn", "ProjectName", "CreationTimestamp"}


def test_describe_and_list_tell_the_same(client) -> None:
    made = client.create_project(ProjectName="p")["ProjectMetadata"]
    described = client.describe_project(ProjectName="p")["ProjectDescription"]
    assert described == {**made, "Datasets": []}
    assert client.list_projects()["Projects"] == [made]


def test_timestamps_are_seconds_with_milliseconds(signed_http: SignedHttpClient) -> None:
    answer = signed_http.send("POST", "/2020-11-20/projects", body=b'{"ProjectName":"p"}')
    assert re.search(rb'"CreationTimestamp":[0-9]{10}\.[0-9]{1,3}[,}]', answer.body)


def test_members_that_programs_read_without_looking_are_always_there(
    client, signed_http: SignedHttpClient
) -> None:
    # Old scripts index these; a member that is missing when it is empty breaks them.
    assert client.list_projects()["Projects"] == []
    client.create_project(ProjectName="p")
    assert client.describe_project(ProjectName="p")["ProjectDescription"]["Datasets"] == []
    assert client.delete_project(ProjectName="p")["ProjectArn"].endswith(":project/p")
    assert signed_http.send("GET", "/2020-11-20/projects").json == {"Projects": []}


def test_a_name_is_taken_once(client) -> None:
    made = client.create_project(ProjectName="p")["ProjectMetadata"]
    error = error_response(client.create_project, ProjectName="p")
    assert error["Error"] == {"Code": "ConflictException", "Message": "The project 'p' already exists"}
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 409
    assert (error["ResourceId"], error["ResourceType"]) == ("p", "PROJECT")
    assert client.list_projects()["Projects"] == [made]


@pytest.mark.parametrize("operation", ["describe_project", "delete_project"])
def test_a_project_that_is_not_there(operation: str, client) -> None:
    error = error_response(getattr(client, operation), ProjectName="p")
    assert error["Error"] == {
        "Code": "ResourceNotFoundException",
        "Message": "The project 'p' does not exist",
    }
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 404
    assert (error["ResourceId"], error["ResourceType"]) == ("p", "PROJECT")


def test_delete_is_complete_before_its_answer(client) -> None:
    made = client.create_project(ProjectName="p")["ProjectMetadata"]
    assert client.delete_project(ProjectName="p")["ProjectArn"] == made["ProjectArn"]
    assert (
        error_response(client.describe_project, ProjectName="p")["Error"]["Code"]
        == "ResourceNotFoundException"
    )
    assert names(client) == []
    again = client.create_project(ProjectName="p")["ProjectMetadata"]
    assert again["CreationTimestamp"] >= made["CreationTimestamp"]


def test_names_differ_by_case_and_sort_by_their_bytes(client) -> None:
    expected = ["0", "9z", "A", "B", "Z_", "Za", "a", "a-", "a0", "aB", "a_", "aa", "b"]
    for name in reversed(expected):
        client.create_project(ProjectName=name)
    assert names(client) == expected
    assert (
        error_response(client.describe_project, ProjectName="ZA")["Error"]["Code"]
        == "ResourceNotFoundException"
    )


def test_the_longest_name(client) -> None:
    name = "n" * 255
    client.create_project(ProjectName=name)
    assert client.describe_project(ProjectName=name)["ProjectDescription"]["ProjectName"] == name
    assert names(client) == [name]
    client.delete_project(ProjectName=name)


def test_accounts_know_nothing_of_each_other(make_client: MakeClient, other_account: str) -> None:
    ours, theirs = make_client(), make_client(account=other_account)
    ours.create_project(ProjectName="p")
    assert names(theirs) == []
    assert (
        error_response(theirs.describe_project, ProjectName="p")["Error"]["Code"]
        == "ResourceNotFoundException"
    )
    assert (
        error_response(theirs.delete_project, ProjectName="p")["Error"]["Code"] == "ResourceNotFoundException"
    )
    arn = theirs.create_project(ProjectName="p")["ProjectMetadata"]["ProjectArn"]
    assert arn.split(":")[4] == other_account
    theirs.delete_project(ProjectName="p")
    assert names(ours) == ["p"]


def test_regions_know_nothing_of_each_other(make_client: MakeClient, new_key) -> None:
    key = new_key()
    here, there = make_client(key=key), make_client(key=key, region="us-west-2")
    here.create_project(ProjectName="p")
    assert names(there) == []
    assert (
        error_response(there.describe_project, ProjectName="p")["Error"]["Code"]
        == "ResourceNotFoundException"
    )
    assert (
        error_response(there.delete_project, ProjectName="p")["Error"]["Code"] == "ResourceNotFoundException"
    )
    arn = there.create_project(ProjectName="p")["ProjectMetadata"]["ProjectArn"]
    assert arn.split(":")[3] == "us-west-2"
    there.delete_project(ProjectName="p")
    assert names(here) == ["p"]


@pytest.mark.parametrize(
    ("region", "partition"),
    [("cn-north-1", "aws-cn"), ("us-gov-west-1", "aws-us-gov"), ("eu-west-1", "aws"), ("my-factory", "aws")],
)
def test_arns_carry_the_partition_of_the_region(
    region: str, partition: str, make_client: MakeClient, account: str
) -> None:
    client = make_client(region=region)
    arn = f"arn:{partition}:lookoutvision:{region}:{account}:project/p"
    assert client.create_project(ProjectName="p")["ProjectMetadata"]["ProjectArn"] == arn
    assert client.describe_project(ProjectName="p")["ProjectDescription"]["ProjectArn"] == arn
    assert client.delete_project(ProjectName="p")["ProjectArn"] == arn
