"""An import that is begun again: nothing is done twice, nothing of others is changed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from drawn_parts import drawn
from lookout import Lookout
from manifest_lines import line, manifest

from airflow_provider_lookoutvision.testing.lossy_proxy import Exchange, LossyProxy


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images of each label."""
    for label in ("normal", "anomaly"):
        (tmp_path / label).mkdir()
        for number in range(3):
            (tmp_path / label / f"{number}.jpg").write_bytes(drawn(number, scratched=label == "anomaly")[0])
    return tmp_path


def written(lookout: Lookout) -> dict[str, Any]:
    """When each object of the bucket was written."""
    listed = lookout.s3.list_objects_v2(Bucket=lookout.bucket).get("Contents", ())
    return {each["Key"]: each["LastModified"] for each in listed if "/manifests/" not in each["Key"]}


def run(lookout: Lookout, folder: Path, *more: str) -> Any:
    return lookout("import", folder, "--project", "p", *lookout.to, *more)


def test_a_second_import_does_nothing(lookout: Lookout, folder: Path) -> None:
    dry = run(lookout, folder, "--dry-run", "--json")
    assert json.loads(dry.out) == {"p/train": 6}
    assert "p/train: 6 images, 3 anomaly, 3 normal" in dry.err
    assert "6 files to upload" in dry.err
    assert lookout.client.list_projects()["Projects"] == []
    first = run(lookout, folder, "--json")
    before = written(lookout), lookout.client.describe_dataset(ProjectName="p", DatasetType="train")
    second = run(lookout, folder, "--json")
    assert json.loads(first.out) == json.loads(second.out)
    assert "0 files to upload" in second.err
    after = written(lookout), lookout.client.describe_dataset(ProjectName="p", DatasetType="train")
    assert before[0] == after[0]
    assert before[1]["DatasetDescription"] == after[1]["DatasetDescription"]


def test_an_import_that_was_cut_off_goes_on(lookout: Lookout, folder: Path) -> None:
    uploads: list[str] = []

    def later(exchange: Exchange) -> bool:
        # Each upload but the first two is lost, and so is what the client sends again.
        if exchange.method == "PUT" and exchange.path.endswith(".jpg"):
            uploads.append(exchange.path)
        return exchange.method == "PUT" and len(uploads) > 2

    with LossyProxy(lookout.service.endpoint_url, later) as proxy:
        cut = lookout(
            "import", folder, "--project", "p", *lookout.to, "--s3-endpoint-url", proxy.endpoint_url
        )
    assert cut.status == 2
    assert "The same command goes on where this one was" in cut.err
    assert "Traceback" not in cut.err
    before = written(lookout)
    assert before
    assert run(lookout, folder).status == 0
    assert before.items() <= written(lookout).items()
    assert len(lookout.entries("p")) == 6


def test_a_lost_answer_makes_nothing_twice(lookout: Lookout, folder: Path) -> None:
    lost: set[str] = set()

    def first_of_each(exchange: Exchange) -> bool:
        if exchange.client_token is None or exchange.path in lost:
            return False
        lost.add(exchange.path)
        return True

    with LossyProxy(lookout.service.endpoint_url, first_of_each) as proxy:
        lookout.service, direct = type("Proxied", (), {"endpoint_url": proxy.endpoint_url})(), lookout.service
        done = run(lookout, folder)
        lookout.service = direct
    assert done.status == 0, done.err
    assert "p: created\np/train: imported" in done.err
    assert len(lost) == 2


def test_other_content_is_not_overwritten(lookout: Lookout, folder: Path) -> None:
    assert run(lookout, folder).status == 0
    image = folder / "normal" / "0.jpg"
    before = image.read_bytes()
    image.write_bytes(drawn(9)[0])
    refused = run(lookout, folder)
    assert refused.status == 2
    assert "has other objects under these names: line-1/normal/0.jpg" in refused.err
    uri = f"s3://{lookout.bucket}/line-1/normal/0.jpg"
    assert lookout.read(uri) == before
    assert run(lookout, folder, "--overwrite").status == 0
    assert lookout.read(uri) == drawn(9)[0]


def test_a_dataset_with_other_entries(lookout: Lookout, folder: Path) -> None:
    assert run(lookout, folder).status == 0
    (folder / "anomaly" / "1.jpg").rename(folder / "normal" / "moved.jpg")
    (folder / "normal" / "new.jpg").write_bytes(drawn(7)[0])
    refused = run(lookout, folder)
    assert refused.status == 2
    assert "p/train is there, and of these 7 images it lacks 2" in refused.err
    assert run(lookout, folder, "--if-exists", "skip").status == 0
    assert len(lookout.entries("p")) == 6
    updated = run(lookout, folder, "--if-exists", "update")
    assert "2 entries added or replaced" in updated.err
    assert len(lookout.entries("p")) == 8  # one of which is gone from the source, but not from the dataset
    assert "has all these entries" in run(lookout, folder, "--if-exists", "update").err


def test_what_is_changed_back_is_changed_again(lookout: Lookout, tmp_path: Path) -> None:
    file = tmp_path / "train.manifest"
    lookout.s3.create_bucket(Bucket=lookout.bucket)
    lookout.s3.put_object(Bucket=lookout.bucket, Key="a.jpg", Body=drawn(1)[0])
    for label in ("normal", "anomaly", "normal", "anomaly"):
        file.write_bytes(manifest(line("a.jpg", label, bucket=lookout.bucket)))
        done = lookout("import", file, "--project", "p", "--if-exists", "update")
        assert done.status == 0, done.err
        assert lookout.entries("p")[0]["anomaly-label-metadata"]["class-name"] == label


def test_an_import_that_failed_is_mended(lookout: Lookout, tmp_path: Path) -> None:
    file = tmp_path / "train.manifest"
    lookout.s3.create_bucket(Bucket=lookout.bucket)
    lookout.s3.put_object(Bucket=lookout.bucket, Key="a.jpg", Body=drawn(1)[0])
    good = line("a.jpg", bucket=lookout.bucket)
    bad = {**line("a.jpg", bucket=lookout.bucket), "x-ref": f"s3://{lookout.bucket}/a.jpg"}
    bad["x-ref-metadata"] = {"type": "groundtruth/semantic-segmentation"}
    file.write_bytes(manifest(bad))
    refused = lookout("import", file, "--project", "p")
    assert refused.status == 2
    assert "p/train is CREATE_FAILED: Invalid input" in refused.err
    assert "line 1" in refused.err
    file.write_bytes(manifest(good))
    assert lookout("import", file, "--project", "p").status == 0
    assert lookout.entries("p") == [good]


def test_missing_images_are_left_out_if_that_is_wanted(lookout: Lookout, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(drawn(1)[0])
    lines = [{**line(), "source-ref": name} for name in ("a.jpg", "gone.jpg")]
    (tmp_path / "train.manifest").write_bytes(manifest(*lines))
    done = run(lookout, tmp_path, "--skip-missing")
    assert done.status == 0, done.err
    assert done.out == f"{tmp_path}/gone.jpg  ({tmp_path}/train.manifest, line 2)\n"
    assert len(lookout.entries("p")) == 1


def test_what_is_not_configured_is_named(
    lookout: Lookout, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = "Some of it is not in S3 yet"
    assert local in lookout("import", folder, "--project", "p").err
    assert "Which project is it for?" in lookout("import", folder, *lookout.to).err
    no_bucket = lookout("import", folder, "--project", "p", "--to", f"s3://{lookout.bucket}/")
    assert f"There is no bucket {lookout.bucket}: --create-bucket" in no_bucket.err
    for name in ("Not A Bucket", "b"):
        no_name = lookout("import", folder, "--project", "p", "--to", f"s3://{name}/", "--create-bucket")
        assert no_name.status == 2
        assert "goes on" not in no_name.err
    lookout.service = type("Aws", (), {"endpoint_url": "https://lookoutvision.us-east-1.amazonaws.com"})()
    assert "AWS's is gone" in run(lookout, folder).err
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    assert "No region is configured" in run(lookout, folder).err
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "AWS_SHARED_CREDENTIALS_FILE" in run(lookout, folder).err


def test_the_other_commands_need_nothing_of_it() -> None:
    # Where the agent of a device is, there is no botocore.
    program = (
        "import sys; from airflow_provider_lookoutvision.server import cli; "
        "cli._parser(); sys.exit({'botocore', 'numpy', 'PIL', 'tqdm'} & set(sys.modules) != set())"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
