"""Tags of models: TagResource, UntagResource, ListTagsForResource, and those that a model is made with."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import pytest
from botocore.exceptions import ClientError
from command_line import run_command
from manifest_lines import line
from model_fixtures import ModelProject, TrainingService
from sdk_errors import error_response
from services import REGION
from signed_http import SignedHttpClient

from airflow_provider_lookoutvision.server.settings import has_torch

THRESHOLD, EFFORT = "lookoutvision:threshold", "lookoutvision:effort"

pytest_plugins = ["model_fixtures"]


@pytest.fixture
def model_arn(project: ModelProject) -> str:
    """The ARN of a model."""
    project.put(1)
    return project.describe("1")["ModelArn"]  # type: ignore[no-any-return]


def tags(**values: str) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in values.items()]


def tags_of(project: ModelProject, arn: str) -> dict[str, str]:
    found = project.client.list_tags_for_resource(ResourceArn=arn)["Tags"]
    return {tag["Key"]: tag["Value"] for tag in found}


def test_tags_come_and_go(project: ModelProject, model_arn: str) -> None:
    assert project.client.list_tags_for_resource(ResourceArn=model_arn)["Tags"] == []
    project.client.tag_resource(ResourceArn=model_arn, Tags=tags(line="7", owner="Zoë Ölund", empty=""))
    project.client.tag_resource(ResourceArn=model_arn, Tags=tags(line="8"))
    assert list(tags_of(project, model_arn).items()) == [("empty", ""), ("line", "8"), ("owner", "Zoë Ölund")]
    project.client.tag_resource(ResourceArn=model_arn, Tags=[])
    project.client.untag_resource(ResourceArn=model_arn, TagKeys=["owner", "empty", "never there"])
    assert tags_of(project, model_arn) == {"line": "8"}
    # Another model's are another's.
    project.put(2)
    assert tags_of(project, model_arn[:-1] + "2") == {}


def test_tags_that_a_model_is_made_with(project: ModelProject, training_service: TrainingService) -> None:
    project.dataset([line("nothing.jpg", bucket=project.bucket)])
    members = {**project.of, "OutputConfig": project.output}
    with training_service.paused_worker():
        error = error_response(
            project.client.create_model, **members, Tags=[*tags(a="1", b="2"), *tags(a="3")]
        )
        assert (error["Error"]["Code"], error["Error"]["Message"]) == (
            "ValidationException",
            "Tags names the key 'a' twice",
        )
        arn = project.create(Tags=tags(a="1", b="2"))["ModelArn"]
        assert tags_of(project, arn) == {"a": "1", "b": "2"}
        project.client.delete_model(**project.of, ModelVersion="1")
    assert error_response(project.client.list_tags_for_resource, ResourceArn=arn)["ResourceType"] == "MODEL"


def test_a_threshold_is_a_tag_and_in_the_status_message(project: ModelProject, model_arn: str) -> None:
    before = project.describe("1")["StatusMessage"]
    project.client.tag_resource(ResourceArn=model_arn, Tags=[{"Key": THRESHOLD, "Value": "0.25"}])
    said = project.describe("1")["StatusMessage"]
    assert said == f"{before}. Its threshold is 0.25 instead of 0.5."
    assert project.client.list_models(**project.of)["Models"][0]["StatusMessage"] == said
    project.client.untag_resource(ResourceArn=model_arn, TagKeys=[THRESHOLD])
    assert project.describe("1")["StatusMessage"] == before


@pytest.mark.parametrize("value", ["0", "1", "-0.5", "nan", "inf", "", "high"])
def test_what_is_no_threshold(value: str, project: ModelProject, model_arn: str) -> None:
    error = error_response(
        project.client.tag_resource, ResourceArn=model_arn, Tags=[{"Key": THRESHOLD, "Value": value}]
    )
    assert error["Error"]["Code"] == "ValidationException"
    assert f"{THRESHOLD} is {value!r}; it must be" in error["Error"]["Message"]
    assert tags_of(project, model_arn) == {}


def test_a_setting_that_is_none(project: ModelProject, model_arn: str) -> None:
    misspelt = [{"Key": "lookoutvision:treshold", "Value": "0.3"}]
    error = error_response(project.client.tag_resource, ResourceArn=model_arn, Tags=misspelt)
    assert error["Error"]["Code"] == "ValidationException"
    assert THRESHOLD in error["Error"]["Message"]


def test_an_effort_that_is_none(project: ModelProject, model_arn: str) -> None:
    tag = {"Key": EFFORT, "Value": "most"}
    error = error_response(project.client.tag_resource, ResourceArn=model_arn, Tags=[tag])
    assert error["Error"]["Code"] == "ValidationException"
    assert "it must be one of quick, thorough" in error["Error"]["Message"]


@pytest.mark.skipif(has_torch(), reason="torch is installed")
def test_a_thorough_training_is_refused_where_there_is_no_torch(project: ModelProject) -> None:
    project.dataset([line("nothing.jpg", bucket=project.bucket)])
    members = {**project.of, "OutputConfig": project.output, "Tags": [{"Key": EFFORT, "Value": "thorough"}]}
    error = error_response(project.client.create_model, **members)
    assert error["Error"]["Code"] == "ValidationException"
    assert "pip install 'airflow-provider-lookoutvision[finetune]'" in error["Error"]["Message"]
    assert project.versions() == []


def test_the_command_reads_and_sets_a_threshold(
    project: ModelProject, model_arn: str, training_service: TrainingService
) -> None:
    at = ["--account", project.account, "--region", REGION]
    service = training_service.service
    at += ["--data-dir", str(service.data_dir), *service.flags]
    assert run_command("threshold", project.name, "1", *at).out == "0.5\n"
    assert run_command("threshold", project.name, "1", "0.25", *at).out == "0.25\n"
    assert tags_of(project, model_arn) == {THRESHOLD: "0.25"}
    assert "it must be a number between 0 and 1" in run_command("threshold", project.name, "1", "2", *at).err
    assert "There is no model 7" in run_command("threshold", project.name, "7", *at).err


def test_a_model_has_at_most_200_tags(project: ModelProject, model_arn: str) -> None:
    first = {f"k{number}": "v" for number in range(199)}
    project.client.tag_resource(ResourceArn=model_arn, Tags=tags(**first))
    error = error_response(
        project.client.tag_resource, ResourceArn=model_arn, Tags=tags(k0="new", x="1", y="2")
    )
    assert (error["Error"]["Code"], error["QuotaCode"]) == ("ServiceQuotaExceededException", "tags_per_model")
    assert tags_of(project, model_arn) == first  # all or nothing
    project.client.tag_resource(ResourceArn=model_arn, Tags=tags(k0="new", x="1"))
    assert len(tags_of(project, model_arn)) == 200
    # Of many at one instant no more get in than there is room for.
    project.client.untag_resource(ResourceArn=model_arn, TagKeys=["x", "k0"])

    def tag(number: int) -> bool:
        try:
            project.client.tag_resource(ResourceArn=model_arn, Tags=tags(**{f"t{number}": ""}))
        except ClientError:
            return False
        return True

    with ThreadPoolExecutor(6) as threads:
        assert sum(threads.map(tag, range(6))) == 2
    assert len(tags_of(project, model_arn)) == 200


@pytest.mark.parametrize(
    "change",
    [
        lambda arn: arn.replace("model/p/1", "project/p"),
        lambda arn: arn.replace(REGION, "us-east-1"),
        lambda arn: arn.replace("/1", "/latest"),
        lambda arn: arn.replace("/1", "/01"),
        lambda arn: arn.replace("/1", "/9999999999"),
        lambda arn: arn + "/",
        lambda arn: arn + "\n",
        lambda arn: arn.replace("model/p", "model/p/p"),
        lambda arn: "model/p/1",
        lambda arn: "arn:aws:s3:::p",
    ],
)
def test_what_is_no_models_arn(change: Any, project: ModelProject, model_arn: str) -> None:
    for call, more in (
        (project.client.list_tags_for_resource, {}),
        (project.client.tag_resource, {"Tags": tags(a="1")}),
        (project.client.untag_resource, {"TagKeys": ["a"]}),
    ):
        error = error_response(call, ResourceArn=change(model_arn), **more)
        assert error["Error"]["Code"] == "ValidationException"
        assert "only models have tags" in error["Error"]["Message"]


def test_no_tags_of_what_is_not_there_or_anothers(
    project: ModelProject, model_arn: str, training_service: TrainingService, other_account: str
) -> None:
    for arn in (model_arn[:-1] + "2", model_arn.replace("/p/", "/q/")):
        error = error_response(project.client.list_tags_for_resource, ResourceArn=arn)
        assert (error["Error"]["Code"], error["ResourceType"]) == ("ResourceNotFoundException", "MODEL")
        assert error["ResourceId"] == arn.partition("model/")[2]
    stranger = training_service.client(other_account)
    assert (
        error_response(stranger.list_tags_for_resource, ResourceArn=model_arn)["Error"]["Code"]
        == "ValidationException"
    )


def test_an_arn_in_the_path_encoded_or_not(
    project: ModelProject, model_arn: str, training_service: TrainingService
) -> None:
    project.client.tag_resource(ResourceArn=model_arn, Tags=tags(a="1"))
    signed_http = SignedHttpClient(
        training_service.service.endpoint_url, training_service.new_key(project.account)
    )
    encoded = signed_http.send("GET", f"/2020-11-20/tags/{quote(model_arn, safe='')}")
    assert (encoded.status, encoded.json) == (200, {"Tags": tags(a="1")})
    # An open slash is a path's, and no operation has such a path.
    assert (
        signed_http.send("GET", f"/2020-11-20/tags/{quote(model_arn, safe=':/')}").code
        == "UnknownOperationException"
    )
    removed = signed_http.send(
        "DELETE", f"/2020-11-20/tags/{quote(model_arn, safe='')}", "tagKeys=a&tagKeys=b%20c"
    )
    assert (removed.status, removed.json) == (200, {})
    assert tags_of(project, model_arn) == {}
