"""Tags of models: TagResource, UntagResource, ListTagsForResource, and those that a model is made with."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import pytest
from botocore.exceptions import ClientError
from dataset_fixtures import refusal
from manifest_lines import line
from model_fixtures import ModelLab, Studio
from services import REGION
from signed_http import Wire
from training_processes import paused

pytest_plugins = ["model_fixtures"]


@pytest.fixture
def tagged(lab: ModelLab) -> str:
    """The ARN of a model."""
    lab.put(1)
    return lab.describe("1")["ModelArn"]  # type: ignore[no-any-return]


def tags(**values: str) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in values.items()]


def tags_of(lab: ModelLab, arn: str) -> dict[str, str]:
    found = lab.client.list_tags_for_resource(ResourceArn=arn)["Tags"]
    return {tag["Key"]: tag["Value"] for tag in found}


def test_tags_come_and_go(lab: ModelLab, tagged: str) -> None:
    assert lab.client.list_tags_for_resource(ResourceArn=tagged)["Tags"] == []
    lab.client.tag_resource(ResourceArn=tagged, Tags=tags(line="7", owner="Zoë Ölund", empty=""))
    lab.client.tag_resource(ResourceArn=tagged, Tags=tags(line="8"))
    assert list(tags_of(lab, tagged).items()) == [("empty", ""), ("line", "8"), ("owner", "Zoë Ölund")]
    lab.client.tag_resource(ResourceArn=tagged, Tags=[])
    lab.client.untag_resource(ResourceArn=tagged, TagKeys=["owner", "empty", "never there"])
    assert tags_of(lab, tagged) == {"line": "8"}
    # Another model's are another's.
    lab.put(2)
    assert tags_of(lab, tagged[:-1] + "2") == {}


def test_tags_that_a_model_is_made_with(lab: ModelLab, studio: Studio) -> None:
    lab.dataset([line("nothing.jpg", bucket=lab.bucket)])
    members = {**lab.of, "OutputConfig": lab.output}
    with paused(studio):
        error = refusal(lab.client.create_model, **members, Tags=[*tags(a="1", b="2"), *tags(a="3")])
        assert (error["Error"]["Code"], error["Error"]["Message"]) == (
            "ValidationException",
            "Tags names the key 'a' twice",
        )
        arn = lab.create(Tags=tags(a="1", b="2"))["ModelArn"]
        assert tags_of(lab, arn) == {"a": "1", "b": "2"}
        lab.client.delete_model(**lab.of, ModelVersion="1")
    assert refusal(lab.client.list_tags_for_resource, ResourceArn=arn)["ResourceType"] == "MODEL"


def test_a_model_has_at_most_200_tags(lab: ModelLab, tagged: str) -> None:
    first = {f"k{number}": "v" for number in range(199)}
    lab.client.tag_resource(ResourceArn=tagged, Tags=tags(**first))
    error = refusal(lab.client.tag_resource, ResourceArn=tagged, Tags=tags(k0="new", x="1", y="2"))
    assert (error["Error"]["Code"], error["QuotaCode"]) == ("ServiceQuotaExceededException", "tags_per_model")
    assert tags_of(lab, tagged) == first  # all or nothing
    lab.client.tag_resource(ResourceArn=tagged, Tags=tags(k0="new", x="1"))
    assert len(tags_of(lab, tagged)) == 200
    # Of many at one instant no more get in than there is room for.
    lab.client.untag_resource(ResourceArn=tagged, TagKeys=["x", "k0"])

    def tag(number: int) -> bool:
        try:
            lab.client.tag_resource(ResourceArn=tagged, Tags=tags(**{f"t{number}": ""}))
        except ClientError:
            return False
        return True

    with ThreadPoolExecutor(6) as threads:
        assert sum(threads.map(tag, range(6))) == 2
    assert len(tags_of(lab, tagged)) == 200


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
def test_what_is_no_models_arn(change: Any, lab: ModelLab, tagged: str) -> None:
    for call, more in (
        (lab.client.list_tags_for_resource, {}),
        (lab.client.tag_resource, {"Tags": tags(a="1")}),
        (lab.client.untag_resource, {"TagKeys": ["a"]}),
    ):
        error = refusal(call, ResourceArn=change(tagged), **more)
        assert error["Error"]["Code"] == "ValidationException"
        assert "only models have tags" in error["Error"]["Message"]


def test_no_tags_of_what_is_not_there_or_anothers(
    lab: ModelLab, tagged: str, studio: Studio, other_account: str
) -> None:
    for arn in (tagged[:-1] + "2", tagged.replace("/p/", "/q/")):
        error = refusal(lab.client.list_tags_for_resource, ResourceArn=arn)
        assert (error["Error"]["Code"], error["ResourceType"]) == ("ResourceNotFoundException", "MODEL")
        assert error["ResourceId"] == arn.partition("model/")[2]
    stranger = studio.client(other_account)
    assert (
        refusal(stranger.list_tags_for_resource, ResourceArn=tagged)["Error"]["Code"] == "ValidationException"
    )


def test_an_arn_in_the_path_encoded_or_not(lab: ModelLab, tagged: str, studio: Studio) -> None:
    lab.client.tag_resource(ResourceArn=tagged, Tags=tags(a="1"))
    wire = Wire(studio.service.endpoint_url, studio.new_key(lab.account))
    encoded = wire.send("GET", f"/2020-11-20/tags/{quote(tagged, safe='')}")
    assert (encoded.status, encoded.json) == (200, {"Tags": tags(a="1")})
    # An open slash is a path's, and no operation has such a path.
    assert (
        wire.send("GET", f"/2020-11-20/tags/{quote(tagged, safe=':/')}").code == "UnknownOperationException"
    )
    removed = wire.send("DELETE", f"/2020-11-20/tags/{quote(tagged, safe='')}", "tagKeys=a&tagKeys=b%20c")
    assert (removed.status, removed.json) == (200, {})
    assert tags_of(lab, tagged) == {}
