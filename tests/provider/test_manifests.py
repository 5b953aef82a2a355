"""Manifests of folders and tables: what they hold, how they are divided, and that the service takes them."""

from __future__ import annotations

import json
import secrets
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from botocore.exceptions import ClientError

from airflow_provider_lookoutvision import manifests
from airflow_provider_lookoutvision.operators.datasets import LookoutVisionUpdateDatasetEntriesOperator
from airflow_provider_lookoutvision.operators.manifests import LookoutVisionBuildManifestOperator
from airflow_provider_lookoutvision.operators.s3 import no_retry_for_faults_of_s3, s3_hook
from airflow_provider_lookoutvision.server.datasets import manifest as service_manifest
from airflow_provider_lookoutvision.testing.s3 import running_s3

WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ROOT = "s3://images/line-1/"


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


def names(*patterns: str) -> dict[str, datetime]:
    return dict.fromkeys(patterns, WHEN)


def test_folders_say_the_labels_and_the_masks() -> None:
    found = manifests.from_folders(
        ROOT, names("normal/b.PNG", "normal/sub/a.jpg", "anomaly/c.jpeg", "masks/crack/c.png", "README.txt")
    )
    assert [(image.source_ref, image.label, image.mask_class) for image in found] == [
        (f"{ROOT}normal/b.PNG", "normal", None),
        (f"{ROOT}normal/sub/a.jpg", "normal", None),
        (f"{ROOT}anomaly/c.jpeg", "anomaly", "crack"),
    ]
    assert found[2].mask_ref == f"{ROOT}masks/crack/c.png"


@pytest.mark.parametrize(
    ("objects", "match"),
    [
        (["other/a.png"], "no images in normal/ or anomaly/, only other/a.png"),
        ([], "only nothing"),
        (["anomaly/a.png", "masks/x/b.png"], "masks have no image in anomaly/: masks/x/b.png; the mask of"),
        (
            ["anomaly/a.png", "masks/a.png"],
            "masks/a.png is in no class's folder: .* is masks/<class>/<name>.png",
        ),
        (
            ["anomaly/a.jpg", "anomaly/a.png", "masks/x/a.png"],
            "masks/x/a.png is the mask of anomaly/a.jpg and of anomaly/a.png",
        ),
        (["anomaly/a.png", "masks/x/a.png", "masks/y/a.png"], "masks of 'x' and 'y'"),
        (["normal/a.png", "masks/x/a.png"], "no image in anomaly/: masks/x/a.png"),
    ],
)
def test_folders_of_which_no_manifest_can_be_made(objects: list[str], match: str) -> None:
    with pytest.raises(manifests.InvalidLayout, match=match):
        manifests.from_folders(ROOT, names(*objects))


@pytest.mark.parametrize(
    ("table", "match"),
    [
        ("picture,label\na,normal", "needs the columns image and label"),
        ("", "needs the columns image and label"),
        ("image,label", "lists no images"),
        ("image,label\na.png,good", "line 2 of the table has the image 'a.png' and the label 'good'"),
        ("image,label\na.png,normal\na.png,anomaly", "line 3 of the table repeats"),
        ("image,label,mask,class\na.png,anomaly,m.png,", "line 2 of the table has a mask without a class"),
        ("image,label\n,normal", "line 2"),
    ],
)
def test_tables_of_which_no_manifest_can_be_made(table: str, match: str) -> None:
    with pytest.raises(manifests.InvalidLayout, match=match):
        manifests.from_table(table.splitlines(), ROOT, WHEN)


def test_a_table_may_name_places_and_masks() -> None:
    table = "label,image,class,mask\nNormal,a.png,,\nanomaly,s3://images/x.png,dent,m/x.png\n"
    normal, anomaly = manifests.from_table(table.splitlines(), ROOT, WHEN)
    assert (normal.source_ref, normal.label) == (f"{ROOT}a.png", "normal")
    assert (anomaly.source_ref, anomaly.mask_ref) == ("s3://images/x.png", f"{ROOT}m/x.png")


def test_the_split_has_its_share_of_each_and_keeps_to_its_seed() -> None:
    objects = names(*(f"normal/{n}.png" for n in range(100)), *(f"anomaly/{n}.png" for n in range(40)))
    objects |= names(*(f"masks/crack/{n}.png" for n in range(20)))
    images = manifests.from_folders(ROOT, objects)
    train, test = manifests.split(images, 0.25, seed=1)
    assert Counter((image.label, image.mask_class) for image in test) == {
        ("normal", None): 25,
        ("anomaly", None): 5,
        ("anomaly", "crack"): 5,
    }
    assert sorted([*train, *test], key=images.index) == images
    assert manifests.split(images[::-1], 0.25, seed=1)[1][::-1] == test
    assert manifests.split(images, 0.25, seed=2)[1] != test
    more = manifests.from_folders(ROOT, objects | names("normal/new.png"))
    moved = set(manifests.split(more, 0.25, seed=1)[1]) ^ set(test)
    assert len(moved) <= 2
    assert manifests.split(images, 0, seed=1) == (images, [])


@pytest.mark.parametrize(
    ("share", "match"),
    [
        (
            0.1,
            "0.1 of 3 normal and 1 anomaly images, .* leaves none to test with: add images, or set a larger",
        ),
        (0.95, "0.95 of 3 normal and 1 anomaly images, .* leaves none to train with: .* set a smaller"),
    ],
)
def test_a_split_leaves_no_side_empty(share: float, match: str) -> None:
    images = manifests.from_folders(
        ROOT, names("normal/a.png", "normal/b.png", "normal/c.png", "anomaly/a.png")
    )
    with pytest.raises(manifests.InvalidLayout, match=match):
        manifests.split(images, share, seed=0)


@pytest.mark.parametrize(
    ("classes", "given", "expected"),
    [
        (["a"], {}, {"a": "#FFFFFF"}),
        (["a", "b"], {"a": "#ff0000", "b": "#00ff00"}, {"a": "#FF0000", "b": "#00FF00"}),
        ([], {"a": "#ff0000"}, {}),
        (["a", "b"], {"a": "#FF0000"}, "which colour have b in"),
        (["a", "b"], {"a": "#FF0000", "b": "#ff0000"}, "#FF0000 for several classes"),
    ],
)
def test_each_class_has_its_colour(classes: list[str], given: dict[str, str], expected: Any) -> None:
    images = [manifests.LabelledImage("r", "anomaly", WHEN, "m", name) for name in classes]
    if isinstance(expected, dict):
        assert manifests.colors_of(images, given) == expected
    else:
        with pytest.raises(manifests.InvalidLayout, match=expected):
            manifests.colors_of(images, given)


def test_the_operator_writes_what_the_service_reads(bucket: Any, build: Any) -> None:
    for number in range(10):
        bucket.put_object(Key=f"in/normal/{number}.png", Body=b"-")
        bucket.put_object(Key=f"in/anomaly/{number}.png", Body=b"-")
        bucket.put_object(Key=f"in/masks/dent/{number}.png", Body=b"-")
    arguments = {
        "images": f"s3://{bucket.name}/in",
        "destination": f"s3://{bucket.name}/out",
        "test_share": 0.3,
    }
    result = build(**arguments)
    train, test = (bucket.Object(f"out/{name}.manifest").get()["Body"].read() for name in ("train", "test"))
    assert result == {
        "train": f"s3://{bucket.name}/out/train.manifest",
        "test": f"s3://{bucket.name}/out/test.manifest",
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
    result = build(images=f"s3://{bucket.name}/in/list.csv", destination=f"s3://{bucket.name}/")
    assert result["train"] == f"s3://{bucket.name}/train.manifest"
    assert "test" not in result
    lines = bucket.Object("train.manifest").get()["Body"].read().splitlines()
    assert [json.loads(line)["source-ref"] for line in lines] == [
        f"s3://{bucket.name}/in/a.png",
        f"s3://{bucket.name}/in/b.png",
    ]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"images": "s3://{bucket}/nothing/"}, "has no images"),
        ({"images": "/tmp/images"}, "it must be s3://bucket/prefix/"),
        ({"test_share": 1}, "test_share is 1"),
        ({"test_share": "{{ half }}"}, "test_share is '{{ half }}'"),
        ({"seed": "seven"}, "seed is 'seven'"),
        ({"mask_colors": "{'dent': '#FF0000'}"}, "mask_colors is .* it must be a dict"),
        ({"images": "s3://{bucket}/nothing.csv"}, r"^s3://images-\w+/nothing.csv: .*NoSuchKey"),
        ({"images": "s3://nowhere-at-all/"}, "^s3://nowhere-at-all/: .*NoSuchBucket"),
        ({"images": "s3://not a bucket/"}, "Invalid bucket name"),
        (
            {"destination": "s3://nowhere-at-all/out/"},
            "^s3://nowhere-at-all/out/train.manifest: .*NoSuchBucket",
        ),
        ({"images": "s3://{bucket}/latin-1.csv"}, "latin-1.csv is not UTF-8 in line 3: .*Save it as UTF-8"),
        ({"images": "s3://{bucket}/endless.csv"}, "endless.csv is not a CSV file: .*limit"),
    ],
)
def test_the_operator_says_what_is_wrong(bucket: Any, build: Any, arguments: Any, match: str) -> None:
    bucket.put_object(Key="normal/0.png", Body=b"-")
    table = "image,label\na.png,normal\nschön.png,anomaly\n"
    bucket.put_object(Key="latin-1.csv", Body=table.encode("latin-1"))
    bucket.put_object(Key="endless.csv", Body=b'image,label\n"' + b"a" * 200_000)
    given = {"images": "s3://{bucket}/", "destination": "s3://{bucket}/out/", **arguments}
    places = {name: given[name].format(bucket=bucket.name) for name in ("images", "destination")}
    with pytest.raises(AirflowFailException, match=match):
        build(**{**given, **places})


def test_values_that_templates_render_are_understood(bucket: Any, build: Any) -> None:
    for number in range(4):
        bucket.put_object(Key=f"normal/{number}.png", Body=b"-")
    places = {"images": f"s3://{bucket.name}/", "destination": f"s3://{bucket.name}/out/"}
    assert build(**places, test_share="0.5", seed="7") == build(**places, test_share=0.5, seed=7)


def test_names_in_a_table_may_hold_what_splits_lines_elsewhere(bucket: Any, build: Any) -> None:
    names = ["a\u2028b.png", "two\nlines.png"]
    table = "image,label\r\n" + "".join(f'"{name}",normal\r\n' for name in names)
    bucket.put_object(Key="list.csv", Body=table.encode())
    build(images=f"s3://{bucket.name}/list.csv", destination=f"s3://{bucket.name}/")
    lines = bucket.Object("train.manifest").get()["Body"].read().splitlines()
    assert [json.loads(line)["source-ref"] for line in lines] == [f"s3://{bucket.name}/{n}" for n in names]


# -- S3, for all operators -------------------------------------------------------------------------------


def test_changes_that_are_not_there_are_not_asked_for_again(bucket: Any, conn_id: str) -> None:
    update = LookoutVisionUpdateDatasetEntriesOperator(
        task_id="update",
        aws_conn_id=conn_id,
        project_name="p",
        dataset_type="train",
        changes_s3_uri=f"s3://{bucket.name}/missing.jsonl",
    )
    with pytest.raises(AirflowFailException, match=r"^s3://images-\w+/missing.jsonl: .*NoSuchKey"):
        update.execute({})


@pytest.mark.parametrize(
    ("code", "raised"),
    [
        ("AccessDenied", AirflowFailException),
        ("InvalidAccessKeyId", AirflowFailException),
        ("SignatureDoesNotMatch", AirflowFailException),
        ("404", AirflowFailException),
        ("SlowDown", ClientError),
        ("InternalError", ClientError),
    ],
)
def test_what_may_pass_is_left_to_the_retries(code: str, raised: type[Exception]) -> None:
    refusal = ClientError({"Error": {"Code": code, "Message": "no"}}, "GetObject")
    with pytest.raises(raised, match=rf"\({code}\)"), no_retry_for_faults_of_s3():
        raise refusal


def test_s3_is_asked_as_the_operator_says_unless_it_has_a_connection(
    conn_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = {"region_name": "eu-west-3"}
    other = {"conn_type": "aws", "login": "AKIDOTHER", "password": "secret", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", json.dumps(other))
    operator = LookoutVisionBuildManifestOperator(
        task_id="build",
        images="s3://images/",
        destination="s3://images/",
        aws_conn_id=conn_id,
        region_name="eu-west-1",
        verify=False,
        botocore_config={"read_timeout": 7},
    )

    def settings(s3_conn_id: str | None) -> tuple[Any, ...]:
        hook = s3_hook(operator, s3_conn_id)
        timeout = hook.conn.meta.config.read_timeout
        return hook.get_credentials().access_key, hook.conn.meta.region_name, hook.verify, timeout

    assert settings(None) == ("AKIDEXAMPLE", "eu-west-1", False, 7)
    assert settings("other") == ("AKIDOTHER", "eu-west-3", None, 60)
