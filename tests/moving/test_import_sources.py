"""What each kind of source becomes, as the service has it afterwards."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from drawn_parts import drawn
from lookout import Lookout
from manifest_lines import line, manifest, masked
from source_files import image, labels, masks, pixels, png, rgb, write

from airflow_provider_lookoutvision.manifests import WHITE


def test_folders_become_two_datasets_with_masks(lookout: Lookout, tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "train/normal/a.jpg": image(1),
            "train/anomaly/b.jpg": image(2, True),
            "train/masks/scratch/b.png": drawn(2, scratched=True)[1],
            "train/notes.txt": b"",
            "test/normal/c.jpg": image(3),
            "test/anomaly/d.bmp": b"no format of the service's",
            ".DS_Store": b"",
        },
    )
    done = lookout("import", tmp_path, "--project", "p", *lookout.to, "--json")
    assert done.status == 0, done.err
    assert json.loads(done.out) == {
        "p/train": {"Total": 2, "Labeled": 2, "Normal": 1, "Anomaly": 1},
        "p/test": {"Total": 1, "Labeled": 1, "Normal": 1, "Anomaly": 0},
    }
    assert "1 pictures are left out: test/anomaly/d.bmp" in done.err
    train = lookout.entries("p")
    assert labels(train) == {"a.jpg": "normal", "b.jpg": "anomaly"}
    assert masks(train) == {"b.jpg": {"scratch": WHITE}}
    assert train[0]["source-ref"] == f"s3://{lookout.bucket}/line-1/train/normal/a.jpg"
    assert lookout.read(train[0]["source-ref"]) == image(1)


def test_colours_in_one_folder_of_masks_are_classes(lookout: Lookout, tmp_path: Path) -> None:
    two = np.full((64, 64, 3), 255)
    two[:8], two[8:16] = rgb("#FF0000"), rgb("#0000FF")
    one = np.full((64, 64, 3), 255)
    one[:8] = rgb("#FF0000")
    write(
        tmp_path,
        {f"anomaly/{name}.jpg": image(1, True) for name in "ab"}
        | {"masks/a.png": png(two), "masks/b.png": png(one), "normal/c.jpg": image(3)},
    )
    refused = lookout("import", tmp_path, "--project", "p", *lookout.to)
    assert refused.status == 2
    assert "--mask-color scratch=#FF0000" in refused.err
    colors = [f"--mask-color={name}={color}" for name, color in (("cut", "#ff0000"), ("dent", "#0000FF"))]
    done = lookout("import", tmp_path, "--project", "p", *lookout.to, *colors)
    assert done.status == 0, done.err
    assert masks(lookout.entries("p")) == {
        "a.jpg": {"cut": "#FF0000", "dent": "#0000FF"},
        "b.jpg": {"cut": "#FF0000"},
    }


def test_a_bucket_of_the_console_becomes_its_projects(lookout: Lookout) -> None:
    lookout.s3.create_bucket(Bucket=lookout.bucket)
    put = lookout.s3.put_object
    for name in ("a.jpg", "b.jpg", "masks/b.jpg"):
        put(Bucket=lookout.bucket, Key=name, Body=image(1))
    lines = manifest(line("a.jpg", bucket="gone"), masked("b.jpg", bucket="gone"))
    place = "datasets/{}/{}/manifests/output/output.manifest"
    put(Bucket=lookout.bucket, Key=place.format("boards", "train"), Body=lines)
    put(
        Bucket=lookout.bucket, Key=place.format("boards", "test"), Body=manifest(line("a.jpg", bucket="gone"))
    )
    put(Bucket=lookout.bucket, Key=place.format("lids", "train"), Body=lines)
    missing = lookout("import", f"s3://{lookout.bucket}/")
    assert missing.status == 2
    assert missing.out.splitlines()[0].startswith("s3://gone/a.jpg  (")
    assert "3 images or masks are missing" in missing.err
    mapping = f"s3://gone/=s3://{lookout.bucket}/"
    done = lookout("import", f"s3://{lookout.bucket}/", "--map", mapping)
    assert done.status == 0, done.err
    found = {project: lookout.entries(project) for project in ("boards", "lids")}
    assert found["boards"] == found["lids"]
    # All that the line had is still there, with the references mapped.
    assert found["lids"][1] == {**masked("b.jpg", bucket=lookout.bucket)}
    assert labels(lookout.entries("boards", "test")) == {"a.jpg": "normal"}
    one = lookout("import", f"s3://{lookout.bucket}/datasets/lids/", "--map", mapping, "--dry-run")
    assert "lids/train: 2 images, 1 anomaly, 1 normal" in one.err


@pytest.mark.parametrize("form", ["manifest", "answer", "list of lines"])
def test_what_list_dataset_entries_returned(lookout: Lookout, tmp_path: Path, form: str) -> None:
    write(tmp_path / "photos", {"a.jpg": image(1), "deep/b.jpg": image(2)})
    documents = [line("a.jpg", bucket="old"), line("deep/b.jpg", "anomaly", bucket="old")]
    lines = [json.dumps(each) for each in documents]
    name = "train.manifest" if form == "manifest" else "train.json"
    content = {
        "manifest": manifest(*documents),
        "answer": json.dumps({"DatasetEntries": lines}, indent=2).encode(),
        "list of lines": json.dumps(lines).encode(),
    }[form]
    file = write(tmp_path, {name: content}) / name
    mapping = ["--map", f"s3://old/={tmp_path}/photos/"]
    done = lookout("import", file, "--project", "p", *mapping, *lookout.to)
    assert done.status == 0, done.err
    assert labels(lookout.entries("p")) == {"a.jpg": "normal", "b.jpg": "anomaly"}
    assert lookout.read(f"s3://{lookout.bucket}/line-1/deep/b.jpg") == image(2)


def test_mvtec_becomes_a_project_for_each_product(lookout: Lookout, tmp_path: Path) -> None:
    white = np.zeros((64, 64))
    white[10:20, 10:20] = 255
    files = {}
    for product in ("bottle", "cable"):
        files |= {
            f"{product}/train/good/000.png": image(1),
            f"{product}/test/good/000.png": image(2),
            f"{product}/test/cut/000.png": image(3, True),
            f"{product}/test/hole/000.png": image(4, True),
            f"{product}/ground_truth/cut/000_mask.png": png(white),
            f"{product}/ground_truth/hole/000_mask.png": png(white),
        }
    write(tmp_path, files)
    done = lookout("import", tmp_path, *lookout.to)
    assert done.status == 0, done.err
    assert labels(lookout.entries("cable")) == {"000.png": "normal"}
    tested = {each["source-ref"].split("/")[-2]: each for each in lookout.entries("cable", "test")}
    assert tested["good"]["anomaly-label"] == 0
    assert "anomaly-mask-ref" not in tested["good"]
    colors = {kind: masks([tested[kind]])["000.png"] for kind in ("cut", "hole")}
    assert colors["cut"].keys() == {"cut"}
    assert colors["cut"]["cut"] != colors["hole"]["hole"]
    painted = pixels(lookout, tested["hole"])
    assert painted[15, 15].tolist() == rgb(colors["hole"]["hole"])
    assert painted[0, 0].tolist() == rgb(WHITE)
    again = lookout("import", tmp_path / "bottle", "--project", "one", *lookout.to, "--mask-class", "defect")
    assert again.status == 0, again.err
    assert {tuple(each) for each in masks(lookout.entries("one", "test")).values()} == {("defect",)}


def table(*rows: list[str]) -> bytes:
    stream = io.StringIO()
    csv.writer(stream).writerows(rows)
    return stream.getvalue().encode()


@pytest.mark.parametrize("header", [["image", "label"], None])
def test_a_table_with_and_without_a_line_of_columns(
    lookout: Lookout, tmp_path: Path, header: list[str] | None
) -> None:
    rows = [["a.jpg", "OK"], ["b.jpg", "anomaly"]]
    file = write(
        tmp_path,
        {"a.jpg": image(1), "b.jpg": image(2), "images.csv": table(*([header] if header else []), *rows)},
    )
    done = lookout("import", file / "images.csv", "--project", "p", "--dataset", "test", *lookout.to)
    assert done.status == 0, done.err
    assert labels(lookout.entries("p", "test")) == {"a.jpg": "normal", "b.jpg": "anomaly"}


def test_a_label_that_means_nothing_is_asked_for(lookout: Lookout, tmp_path: Path) -> None:
    rows = [["image", "label"], ["a.jpg", "fine"], ["b.jpg", "rust"], ["c.jpg", "rust"]]
    write(tmp_path, {**{f"{name}.jpg": image(1) for name in "abc"}, "images.csv": table(*rows)})
    refused = lookout("import", tmp_path, "--project", "p", *lookout.to)
    assert refused.status == 2
    assert "the labels 'rust' (2 images), 'fine' (1 images)" in refused.err
    meant = ["--label", "fine=normal", "--label", "Rust=anomaly"]
    assert lookout("import", tmp_path, "--project", "p", *lookout.to, *meant).status == 0
    assert list(labels(lookout.entries("p")).values()) == ["normal", "anomaly", "anomaly"]


def test_images_are_divided_anew_and_alike(lookout: Lookout, tmp_path: Path) -> None:
    write(
        tmp_path,
        {f"{kind}/{number}.jpg": image(number) for kind in ("normal", "anomaly") for number in range(10)},
    )
    done = lookout("import", tmp_path, "--project", "p", *lookout.to, "--test-size", "0.3", "--json")
    assert json.loads(done.out)["p/test"] == {"Total": 6, "Labeled": 6, "Normal": 3, "Anomaly": 3}
    again = lookout("import", tmp_path, "--project", "p", *lookout.to, "--test-size", "0.3")
    assert "p/train: imported" in again.err
    assert not lookout("import", tmp_path, "--project", "p", *lookout.to, "--test-size", "3").out


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.txt": b""}, "has a.txt, and is none of these"),
        ({"a.json": b"{"}, "is not JSON"),
        ({"a.manifest": b"[1]"}, "neither a manifest nor"),
        ({"a.manifest": b'{"source-ref": "../secret.jpg"}'}, "line 1: "),
        ({"a.manifest": b'{"source-ref": "https://host/a.jpg"}'}, "neither in S3 nor a file"),
        ({"a.manifest": b'{"source-ref": 3}'}, "line 1: it is no object with a source-ref"),
        ({"a.json": b'{"images": [{}], "annotations": [], "categories": []}'}, "not in the format of COCO"),
        ({"a.json": b'[{"data": {"image": "a.jpg"}, "annotations": [{}]}]'}, "not an export of Label Studio"),
        ({"normal/a.jpg": b"", "masks/cut/b.png": b""}, "have no image in anomaly/"),
    ],
)
def test_what_is_no_source_is_refused(
    lookout: Lookout, tmp_path: Path, files: dict[str, bytes], message: str
) -> None:
    write(tmp_path, files)
    refused = lookout("import", tmp_path, "--project", "p", *lookout.to)
    assert refused.status == 2
    assert message in refused.err
    assert "Traceback" not in refused.err
    assert lookout.client.list_projects()["Projects"] == []
    assert lookout.bucket not in [each["Name"] for each in lookout.s3.list_buckets()["Buckets"]]


def test_an_archive_that_is_none_is_refused(lookout: Lookout, tmp_path: Path) -> None:
    file = tmp_path / "a.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("../../a.manifest", "{}")
    assert "leads out of it" in lookout("import", file, "--project", "p", *lookout.to).err
    file.write_bytes(b"no archive")
    assert "can't be read as a ZIP archive" in lookout("import", file, "--project", "p", *lookout.to).err
