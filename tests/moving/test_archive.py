"""A project as an archive: out of one service, into another one, and archives that nobody should trust."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import boto3
import pytest
from drawn_parts import drawn
from lookout import Lookout
from manifest_lines import line, manifest, masked
from services import client_of, first_key_of

from airflow_provider_lookoutvision.testing.service import running_service


@pytest.fixture
def project(lookout: Lookout) -> str:
    """A project with two datasets, a mask, and a model whose training fails for want of images."""
    lookout.s3.create_bucket(Bucket=lookout.bucket)

    def put(key: str, content: bytes) -> None:
        lookout.s3.put_object(Bucket=lookout.bucket, Key=key, Body=content)

    for name in ("a.jpg", "ü/b c.jpg"):
        put(name, drawn(1)[0])
    put("masks/ü/b c.jpg", drawn(2, scratched=True)[1])
    train = manifest(line("a.jpg", bucket=lookout.bucket), masked("ü/b c.jpg", bucket=lookout.bucket))
    lookout.client.create_project(ProjectName="lids")
    for kind, content in (("train", train), ("test", manifest(line("a.jpg", bucket=lookout.bucket)))):
        put(f"{kind}.manifest", content)
        place = {"S3Object": {"Bucket": lookout.bucket, "Key": f"{kind}.manifest"}}
        of = {"ProjectName": "lids", "DatasetType": kind}
        lookout.client.create_dataset(**of, DatasetSource={"GroundTruthManifest": place})
        lookout.client.get_waiter("dataset_created").wait(
            **of, WaiterConfig={"Delay": 0.2, "MaxAttempts": 99}
        )
    lookout.client.create_model(
        ProjectName="lids",
        OutputConfig={"S3Location": {"Bucket": lookout.bucket, "Prefix": "out/"}},
        Tags=[{"Key": "line", "Value": "7"}],
    )
    return "lids"


def test_a_project_goes_to_another_service(
    lookout: Lookout, project: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "lids.zip"
    done = lookout("export", project, "--output", file)
    assert done.status == 0, done.err
    assert "2 entries of train, 1 entries of test, 3 images and masks, the models 1" in done.err.replace(
        "1 entries of test, 2 entries of train", "2 entries of train, 1 entries of test"
    )
    assert "--overwrite it" in lookout("export", project, "--output", file).err
    with zipfile.ZipFile(file) as archive:
        model = json.loads(archive.read("models/1/model.json"))
    assert model["Tags"] == [{"Key": "line", "Value": "7"}]
    before = {kind: lookout.entries(project, kind) for kind in ("train", "test")}
    with running_service() as other:
        key = first_key_of(other)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key.access_key_id)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key.secret_access_key)
        session = boto3.Session(key.access_key_id, key.secret_access_key)
        s3 = session.client("s3", endpoint_url=other.endpoint_url)
        there = Lookout(other, key, client_of(other.endpoint_url, key), s3)
        imported = there("import", file, "--to", "s3://moved/in/", "--create-bucket")
        assert imported.status == 0, imported.err
        assert "The models 1 stay in the archive" in imported.err
        text = json.dumps(before, ensure_ascii=False)
        moved = json.loads(text.replace(f"s3://{lookout.bucket}/", f"s3://moved/in/images/{lookout.bucket}/"))
        assert {kind: there.entries(project, kind) for kind in ("train", "test")} == moved
        assert there.read(moved["train"][1]["anomaly-mask-ref"]) == drawn(2, scratched=True)[1]
        # Exported there, it is the same project.
        again = tmp_path / "again.zip"
        assert there("export", project, "--output", again).status == 0
        with zipfile.ZipFile(again) as archive:
            assert json.loads(archive.read("lookoutvision-export.json"))["datasets"] == ["train", "test"]


def test_what_is_missing_is_listed(lookout: Lookout, project: str, tmp_path: Path) -> None:
    lookout.s3.delete_object(Bucket=lookout.bucket, Key="masks/ü/b c.jpg")
    file = tmp_path / "lids.zip"
    refused = lookout("export", project, "--output", file)
    assert refused.status == 2
    assert refused.out == f"s3://{lookout.bucket}/masks/ü/b c.jpg  (train, entry 2)\n"
    assert list(tmp_path.iterdir()) == []
    assert lookout("export", project, "--output", file, "--skip-missing").status == 0
    with zipfile.ZipFile(file) as archive:
        assert len(archive.read("train.manifest").splitlines()) == 1
    assert (
        "ResourceNotFoundException" in lookout("export", "there-is-none", "--output", tmp_path / "b.zip").err
    )


CONTENTS = {"format": 1, "project": "p", "datasets": ["train"]}


@pytest.mark.parametrize(
    ("contents", "train", "message"),
    [
        ({**CONTENTS, "format": 2}, "", "of another version"),
        ({**CONTENTS, "project": ["p"]}, "", "doesn't say which project"),
        ({**CONTENTS, "datasets": ["../train"]}, "", "doesn't say which project"),
        ({**CONTENTS, "project": "../p"}, '{"source-ref": "a.jpg"}', "breaks the API's rule"),
        (CONTENTS, '{"source-ref": "/etc/passwd"}', "leads out of it"),
        (CONTENTS, '{"source-ref": "images/../../a.jpg"}', "leads out of it"),
        (CONTENTS, '{"source-ref": "file:///etc/passwd"}', "neither in S3 nor a file"),
    ],
)
def test_an_archive_reads_nothing_but_itself(
    lookout: Lookout, tmp_path: Path, contents: dict[str, Any], train: str, message: str
) -> None:
    file = tmp_path / "a.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("lookoutvision-export.json", json.dumps(contents))
        archive.writestr("train.manifest", train)
        archive.writestr("a.jpg", drawn(1)[0])
    refused = lookout("import", file, *lookout.to)
    assert refused.status == 2
    assert message in refused.err
    assert lookout.client.list_projects()["Projects"] == []
