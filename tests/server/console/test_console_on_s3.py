"""The console of a service whose buckets are S3."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from dataset_projects import DatasetProject
from drawn_parts import drawn, encoded
from moto_s3 import running_s3, running_service_on
from PIL import Image
from polling import until
from services import client_of, first_key_of
from signed_in import Session

from airflow_provider_lookoutvision.testing.service import Service

TRAIN = "/projects/p/datasets/train"


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    with running_s3("castings") as s3:
        yield s3


@pytest.fixture(scope="module")
def s3_console(s3: Any) -> Iterator[tuple[Service, Session]]:
    """The service, and somebody who is signed in."""
    with running_service_on(s3) as service:
        yield service, Session(service, first_key_of(service))


def test_images_masks_and_reviews_are_in_s3(s3: Any, s3_console: tuple[Service, Session]) -> None:
    service, session = s3_console
    client = client_of(service.endpoint_url, first_key_of(service))
    project = DatasetProject.make(service, client)
    client.create_dataset(ProjectName="p", DatasetType="train")
    project.settled()

    # An upload, into the only bucket there is.
    assert 'id="bucket" value="castings"' in session.page(f"{TRAIN}/add")
    image = drawn(0)[0]
    session.ask(f"{TRAIN}/file?bucket=castings&key=a.jpg", image, method="PUT")
    assert s3.get_object(Bucket="castings", Key="a.jpg")["Body"].read() == image
    wanted = {"key": "a.jpg", "size": len(image), "crc32": 0}
    assert session.ask(f"{TRAIN}/uploaded", {"bucket": "castings", "files": [wanted]}) == {"there": []}
    refused = session.ask(f"{TRAIN}/uploaded", {"bucket": "no-bucket", "files": []}, 400)
    assert "There is no bucket 'no-bucket' in S3" in refused["message"]
    session.ask(f"{TRAIN}/entries", {"refs": ["s3://castings/a.jpg"], "label": "normal", "token": "a"})

    # What is there already.
    for number in range(3):
        key = f"line-3/anomaly/{number}.jpg"
        s3.put_object(Bucket="castings", Key=key, Body=drawn(number + 1)[0])
    until(lambda: project.describe()["Status"], lambda status: "IN_PROGRESS" not in status)
    from_prefix = {"prefix": "s3://castings/line-3/", "label": "folder", "token": "b"}
    assert session.ask(f"{TRAIN}/prefix", from_prefix)["added"] == 3
    project.settled()
    gallery = session.page(f"{TRAIN}?label=anomaly")
    assert gallery.count('class="tile"') == 3

    # Pictures.
    picture = session.http.get("/pictures/thumbnail?uri=s3://castings/a.jpg")
    assert picture.content.startswith(b"\xff\xd8")
    tag = {"If-None-Match": picture.headers["etag"]}
    assert session.http.get("/pictures/thumbnail?uri=s3://castings/a.jpg", headers=tag).status_code == 304
    assert session.http.get("/pictures/original?uri=s3://castings/a.jpg").content == image
    assert session.http.get("/pictures/original?uri=s3://castings/b.jpg").status_code == 400

    # A mask.
    reference = "s3://castings/line-3/anomaly/0.jpg"
    (version,) = re.findall(f'data-ref="{reference}" data-version="(\\w+)"', gallery)
    png = encoded(Image.new("RGB", (8, 8), "#2CA02C"), "PNG")
    query = urlencode({"ref": reference, "version": version, "class": "scratch", "color": "#2CA02C"})
    session.ask(f"{TRAIN}/mask?{query}", png)
    project.settled()
    (key,) = (
        each["Key"]
        for each in s3.list_objects_v2(Bucket="castings", Prefix="line-3/anomaly/masks/")["Contents"]
    )
    assert s3.get_object(Bucket="castings", Key=key)["Body"].read() == png
    assert session.page(f"{TRAIN}?class=scratch").count('class="tile"') == 1

    # The results of a batch.
    result = {"source-ref": reference, "IsAnomalous": True, "Confidence": 0.5}
    s3.put_object(Bucket="castings", Key="results.jsonl", Body=json.dumps(result).encode())
    assert f'data-ref="{reference}"' in session.page("/review?results=s3://castings/results.jsonl")
    gone = session.page("/review?results=s3://castings/none.jsonl", 400)
    assert "s3://castings/none.jsonl does not exist" in gone
    assert 'value="s3://castings/none.jsonl"' in gone, "to be mended"
