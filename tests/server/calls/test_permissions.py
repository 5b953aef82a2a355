"""What a key may do: actions and project names, by IAM's wildcards."""

from __future__ import annotations

import pytest
from model_requests import OPERATIONS, Case, minimal
from project_calls import names
from sdk_errors import error_response
from services import REGION, MakeClient, NewKey
from signed_http import SignedHttpClient

from airflow_provider_lookoutvision.testing.service import Service


def denied(call, **members) -> str:
    error = error_response(call, **members)
    assert error["Error"]["Code"] == "AccessDeniedException"
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 403
    return str(error["Error"]["Message"])


def test_only_what_is_allowed(make_client: MakeClient) -> None:
    reader = make_client(allow=["lookoutvision:Describe*", "lookoutvision:ListProjects"])
    make_client().create_project(ProjectName="p")
    assert reader.describe_project(ProjectName="p")
    assert names(reader) == ["p"]
    denied(reader.create_project, ProjectName="q")
    denied(reader.delete_project, ProjectName="p")
    denied(reader.list_models, ProjectName="p")
    assert names(reader) == ["p"]


def test_the_refusal_names_who_what_and_where(make_client: MakeClient, new_key: NewKey, account) -> None:
    key = new_key(allow=["lookoutvision:List*"])
    client = make_client(key=key)
    user = f"arn:aws:iam::{account}:user/{key.access_key_id}"
    project = f"arn:aws:lookoutvision:{REGION}:{account}:project/p"
    assert denied(client.create_project, ProjectName="p") == (
        f"User: {user} is not authorized to perform: lookoutvision:CreateProject on resource: {project}"
    )
    refusal = denied(client.stop_model, ProjectName="p", ModelVersion="3")
    assert refusal.endswith(f"arn:aws:lookoutvision:{REGION}:{account}:model/p/3")
    nobody = new_key(allow=["lookoutvision:StartModel"])
    assert denied(make_client(key=nobody).list_projects) == (
        f"User: arn:aws:iam::{account}:user/{nobody.access_key_id} is not authorized to perform: "
        "lookoutvision:ListProjects on resource: *"
    )


def test_the_conflict_of_a_token_names_no_project_that_the_key_may_not_see(make_client: MakeClient) -> None:
    make_client().create_project(ProjectName="secret-line", ClientToken="t")
    error = error_response(
        make_client(project=["open-*"]).create_project, ProjectName="open-line", ClientToken="t"
    )
    assert error["Error"]["Code"] == "ConflictException"
    assert (error["ResourceId"], error["ResourceType"]) == ("open-line", "PROJECT")
    assert "secret" not in str(error)
    # Who may see it learns what it was.
    error = error_response(make_client().create_project, ProjectName="open-line", ClientToken="t")
    assert error["ResourceId"] == "secret-line"


@pytest.mark.parametrize(
    "pattern",
    ["*", "lookoutvision:*", "LookoutVision:describeproject", "lookoutvision:D*e?roject", "lookoutvision:*t"],
)
def test_patterns_that_allow_describing(pattern: str, make_client: MakeClient) -> None:
    assert (
        error_response(make_client(allow=[pattern]).describe_project, ProjectName="p")["ResourceType"]
        == "PROJECT"
    )


@pytest.mark.parametrize(
    "pattern",
    [
        "lookoutvision:describe",
        "lookoutvision:describeprojects",
        "lookoutvision:describe?",
        "lookoutvision:?escribe?roject?",
        "lookoutvision:[Dd]escribeProject",
        "lookoutvision:DescribeProject.",
        "lookoutvision:DescribeProject\n",
    ],
)
def test_patterns_that_do_not(pattern: str, make_client: MakeClient) -> None:
    denied(make_client(allow=[pattern]).describe_project, ProjectName="p")


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_needs_permission(name: str, service: Service, new_key: NewKey) -> None:
    others = [f"lookoutvision:{other}" for other in OPERATIONS if other != name]
    request = Case(name, minimal(OPERATIONS[name])).request()
    answer = SignedHttpClient(service.endpoint_url, new_key(allow=others)).send(
        request.method, request.path, request.query, request.body, request.headers
    )
    assert (answer.status, answer.code) == (403, "AccessDeniedException")
    assert f"perform: lookoutvision:{name} on" in answer.message


@pytest.mark.parametrize(
    ("patterns", "seen"),
    [
        (["line-*"], ["line-", "line-1", "line-1a", "line-2"]),
        (["line-?"], ["line-1", "line-2"]),
        (["Line-1"], ["Line-1"]),
        (["*-1*", "p"], ["Line-1", "line-1", "line-1a", "p"]),
        (["*"], ["Line-1", "line-", "line-1", "line-1a", "line-2", "line_1", "p"]),
        (["line_*"], ["line_1"]),
        (["%"], []),
        (["line%"], []),
        (["line[-]1"], []),
        (["line\\-1"], []),
        (["?"], ["p"]),
    ],
)
def test_a_key_sees_the_projects_of_its_patterns(
    patterns: list[str], seen: list[str], make_client: MakeClient
) -> None:
    everyone = ["Line-1", "line-", "line-1", "line-1a", "line-2", "line_1", "p"]
    owner, client = make_client(), make_client(project=patterns)
    for name in everyone:
        owner.create_project(ProjectName=name)
    # A list shows them, and a description exactly those of the list.
    assert names(client) == seen
    for name in everyone:
        if name in seen:
            assert client.describe_project(ProjectName=name)
        else:
            denied(client.describe_project, ProjectName=name)
            denied(client.create_project, ProjectName=name)
            denied(client.delete_project, ProjectName=name)
            denied(client.list_models, ProjectName=name)
    assert names(owner) == everyone


def test_pages_are_full_for_who_sees_little(make_client: MakeClient) -> None:
    owner, client = make_client(), make_client(project=["b*"])
    for name in ("a1", "a2", "b1", "b2", "b3", "c1"):
        owner.create_project(ProjectName=name)
    page = client.list_projects(MaxResults=2)
    assert [project["ProjectName"] for project in page["Projects"]] == ["b1", "b2"]
    last = client.list_projects(MaxResults=2, NextToken=page["NextToken"])
    assert [project["ProjectName"] for project in last["Projects"]] == ["b3"]
    assert "NextToken" not in last


def test_the_error_does_not_show_whether_a_hidden_project_exists(make_client: MakeClient) -> None:
    make_client().create_project(ProjectName="secret")
    client = make_client(project=["public-*"])
    there, not_there = (denied(client.describe_project, ProjectName=name) for name in ("secret", "nothing"))
    assert there.replace("secret", "nothing") == not_there


def test_names_are_validated_before_permissions(make_client: MakeClient) -> None:
    client = make_client(project=["public-*"])
    assert (
        error_response(client.describe_project, ProjectName="a b")["Error"]["Code"] == "ValidationException"
    )
