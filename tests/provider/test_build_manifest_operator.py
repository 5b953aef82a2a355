"""The operator that builds manifests: it writes what the service reads, and says what is wrong."""

from __future__ import annotations

import json
import secrets
from collections import Counter
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from moto_s3 import running_s3

from airflow_provider_lookoutvision.operators.manifests import LookoutVisionBuildManifestOperator
from airflow_provider_lookoutvision.server.datasets import manifest as service_manifest


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    with running_s3() as s3:
        yield s3.meta.endpoint_url


@pytest.fixture
def bucket(s3_url: str) -> Any:
    s3 = boto3.resource(
        "s3", endpoint_url=s3_url, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
    )
    return s3.create_bucket(Bucket=f"images-{secrets.token_hex(6)}")


@pytest.fixture
def conn_id(s3_url: str, connect: Any) -> str:
    return str(connect(service_config={"s3": {"endpoint_url": s3_url}}, region_name="us-east-1"))


@pytest.fixture
def build(conn_id: str) -> Any:
    def build(**arguments: Any) -> dict[str, Any]:
        operator = LookoutVisionBuildManifestOperator(task_id="build", aws_conn_id=conn_id, **arguments)
        return operator.execute({})

    return build


def test_the_operator_writes_what_the_service_reads(bucket: Any, build: Any) -> None:
    for number in range(10):
        bucket.put_object(Key=f"in/normal/{number}.png", Body=b"-")
        bucket.put_object(Key=f"in/anomaly/{number}.png", Body=b"-")
        bucket.put_object(Key=f"in/masks/dent/{number}.png", Body=b"-")
    arguments = {
        "images_s3_prefix": f"s3://{bucket.name}/in",
        "manifests_s3_prefix": f"s3://{bucket.name}/out",
        "test_size": 0.3,
    }
    result = build(**arguments)
    train, test = (bucket.Object(f"out/{name}.manifest").get()["Body"].read() for name in ("train", "test"))
    assert result == {
        "train_manifest_s3_uri": f"s3://{bucket.name}/out/train.manifest",
        "test_manifest_s3_uri": f"s3://{bucket.name}/out/test.manifest",
        "train_normal": 7,
        "train_anomaly": 7,
        "test_normal": 3,
        "test_anomaly": 3,
    }
    entries = [service_manifest.read(line) for line in train.splitlines()]
    assert Counter(entry.label for entry in entries) == {"normal": 7, "anomaly": 7}
    painted = [mask for entry in entries if (mask := service_manifest.mask_of(entry.line))]
    assert [mask.colors for mask in painted] == [{"dent": "#FFFFFF"}] * 7
    assert build(**arguments) == result
    assert bucket.Object("out/train.manifest").get()["Body"].read() == train
    assert json.loads(test.splitlines()[0])["anomaly-label"] in (0, 1)


def test_the_operator_reads_a_table(bucket: Any, build: Any) -> None:
    bucket.put_object(Key="in/list.csv", Body="\ufeffimage,label\na.png,normal\nb.png,anomaly\n".encode())
    result = build(table_s3_uri=f"s3://{bucket.name}/in/list.csv", manifests_s3_prefix=f"s3://{bucket.name}/")
    assert result["train_manifest_s3_uri"] == f"s3://{bucket.name}/train.manifest"
    assert "test_manifest_s3_uri" not in result
    lines = bucket.Object("train.manifest").get()["Body"].read().splitlines()
    assert [json.loads(line)["source-ref"] for line in lines] == [
        f"s3://{bucket.name}/in/a.png",
        f"s3://{bucket.name}/in/b.png",
    ]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"images_s3_prefix": "s3://{bucket}/nothing/"}, "has no images"),
        (
            {"images_s3_prefix": "/tmp/images"},
            "images_s3_prefix is '/tmp/images'; it must be s3://bucket/prefix/",
        ),
        ({"test_size": 1}, "test_size is 1"),
        ({"test_size": "{{ half }}"}, "test_size is '{{ half }}'"),
        ({"seed": "seven"}, "seed is 'seven'"),
        ({"mask_colors": "{'dent': '#FF0000'}"}, "mask_colors is .* it must be a dict"),
        ({"table_s3_uri": "s3://{bucket}/nothing.csv"}, r"^s3://images-\w+/nothing.csv: .*NoSuchKey"),
        ({"images_s3_prefix": "s3://nowhere-at-all/"}, "^s3://nowhere-at-all/: .*NoSuchBucket"),
        ({"images_s3_prefix": "s3://not a bucket/"}, "Invalid bucket name"),
        (
            {"manifests_s3_prefix": "s3://nowhere-at-all/out/"},
            "^s3://nowhere-at-all/out/train.manifest: .*NoSuchBucket",
        ),
        ({"manifests_s3_prefix": "s3://{bucket}/line 1/"}, "the manifest below manifests_s3_prefix 'line 1/"),
        (
            {"manifests_s3_prefix": "s3://{bucket}/ds=2026-11-30/"},
            "'ds=2026-11-30/train.manifest' breaks the",
        ),
        (
            {"table_s3_uri": "s3://{bucket}/latin-1.csv"},
            "latin-1.csv is not UTF-8 in line 3: .*Save it as UTF-8",
        ),
        ({"table_s3_uri": "list.csv"}, "table_s3_uri is 'list.csv'; it must be s3://bucket/key"),
        ({"table_s3_uri": "s3://{bucket}/endless.csv"}, "endless.csv is not a CSV file: .*limit"),
    ],
)
def test_the_operator_says_what_is_wrong(bucket: Any, build: Any, arguments: Any, match: str) -> None:
    bucket.put_object(Key="normal/0.png", Body=b"-")
    table = "image,label\na.png,normal\nschön.png,anomaly\n"
    bucket.put_object(Key="latin-1.csv", Body=table.encode("latin-1"))
    bucket.put_object(Key="endless.csv", Body=b'image,label\n"' + b"a" * 200_000)
    source = {} if "table_s3_uri" in arguments else {"images_s3_prefix": "s3://{bucket}/"}
    given = {**source, "manifests_s3_prefix": "s3://{bucket}/out/", **arguments}
    before = {each.key for each in bucket.objects.all()}
    with pytest.raises(AirflowFailException, match=match):
        build(**{name: in_bucket(value, bucket.name) for name, value in given.items()})
    assert {each.key for each in bucket.objects.all()} == before


def in_bucket(value: Any, bucket: str) -> Any:
    return value.replace("{bucket}", bucket) if isinstance(value, str) else value


@pytest.mark.parametrize(
    "source",
    [{}, {"images_s3_prefix": "s3://images/", "table_s3_uri": "s3://images/list.csv"}],
    ids=["none", "both"],
)
def test_there_is_one_source_of_images(build: Any, source: dict[str, str]) -> None:
    with pytest.raises(AirflowFailException, match="Set either images_s3_prefix or table_s3_uri"):
        build(**source, manifests_s3_prefix="s3://images/out/")


def test_values_that_templates_render_are_understood(bucket: Any, build: Any) -> None:
    for number in range(4):
        bucket.put_object(Key=f"normal/{number}.png", Body=b"-")
    places = {"images_s3_prefix": f"s3://{bucket.name}/", "manifests_s3_prefix": f"s3://{bucket.name}/out/"}
    assert build(**places, test_size="0.5", seed="7") == build(**places, test_size=0.5, seed=7)


def test_names_in_a_table_may_hold_what_splits_lines_elsewhere(bucket: Any, build: Any) -> None:
    names = ["a\u2028b.png", "two\nlines.png"]
    table = "image,label\r\n" + "".join(f'"{name}",normal\r\n' for name in names)
    bucket.put_object(Key="list.csv", Body=table.encode())
    build(table_s3_uri=f"s3://{bucket.name}/list.csv", manifests_s3_prefix=f"s3://{bucket.name}/")
    lines = bucket.Object("train.manifest").get()["Body"].read().splitlines()
    assert [json.loads(line)["source-ref"] for line in lines] == [f"s3://{bucket.name}/{n}" for n in names]
