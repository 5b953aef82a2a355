"""Each operation of the API is within reach of an operator or of a method of the hook."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore import xform_name
from botocore.stub import Stubber
from trained_models import Account

import airflow_provider_lookoutvision
from airflow_provider_lookoutvision.hooks.lookoutvision import LookoutVisionHook
from airflow_provider_lookoutvision.testing.service import Service, running_service

PACKAGE = Path(airflow_provider_lookoutvision.__file__).parent


def called(operations: set[str]) -> Iterator[str]:
    """The operations that hook, operators and batches call, by name or as a client's method."""
    by_method = {xform_name(operation): operation for operation in operations}
    for file in (file for room in ("hooks", "operators", "batches") for file in PACKAGE.glob(f"{room}/*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.Call(func=ast.Attribute(attr="call"), args=[ast.Constant(value=str(name)), *_]):
                    yield name
                case ast.Call(
                    func=ast.Attribute(attr="get_paginator"), args=[ast.Constant(value=str(name))]
                ) if name in by_method:
                    yield by_method[name]
                case ast.Call(func=ast.Attribute(attr=str(name))) if name in by_method:
                    yield by_method[name]


def test_each_operation_is_called(connect: Any) -> None:
    hook = LookoutVisionHook(aws_conn_id=connect(endpoint_url="http://127.0.0.1:9"))
    operations = set(hook.conn.meta.service_model.operation_names)
    assert len(operations) == 22
    assert set(called(operations)) == operations


# -- what the hook adds to the client --------------------------------------------------------------------


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running_service() as service:
        yield service


@pytest.fixture
def account(service: Service) -> Account:
    return Account.of(service)


@pytest.fixture
def hook(account: Account, connect: Any) -> LookoutVisionHook:
    key = {"login": account.key.access_key_id, "password": account.key.secret_access_key}
    return LookoutVisionHook(aws_conn_id=connect(**key, endpoint_url=account.service.endpoint_url))


def test_projects_are_listed_page_by_page(account: Account, hook: LookoutVisionHook) -> None:
    names = [f"p-{number:03}" for number in range(120)]  # a page has 100 at most
    for name in names:
        account.client.create_project(ProjectName=name)
    assert sorted(project["ProjectName"] for project in hook.iter_projects()) == names


def test_tags_are_plain_values(account: Account, hook: LookoutVisionHook) -> None:
    account.project()
    account.begin_training()
    (model,) = hook.iter_models("plates")
    arn = model["ModelArn"]
    assert hook.tags(arn) == {}
    hook.tag(arn, {"stage": "candidate", "line": "7"})
    hook.tag(arn, {"stage": "production"})
    assert hook.tags(arn) == {"stage": "production", "line": "7"}
    hook.untag(arn, "line", "missing")
    assert hook.tags(arn) == {"stage": "production"}


def test_packaging_jobs_are_listed_page_by_page(connect: Any) -> None:
    hook = LookoutVisionHook(aws_conn_id=connect(endpoint_url="http://127.0.0.1:9"))
    with Stubber(hook.conn) as answers:
        for name, token in (("first", {}), ("second", {"NextToken": "more"})):
            page = {"ModelPackagingJobs": [{"JobName": name}], **({} if token else {"NextToken": "more"})}
            answers.add_response("list_model_packaging_jobs", page, {"ProjectName": "p", **token})
        assert [job["JobName"] for job in hook.iter_model_packaging_jobs("p")] == ["first", "second"]
        answers.assert_no_pending_responses()
