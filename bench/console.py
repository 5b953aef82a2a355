"""How long pages of the console take, with 1,000 projects and a dataset of 16,000 images.

Run it with ``python -m bench.console``. It prints, in milliseconds, the processor time of a request of each
page, and the median and the slowest of some, over one connection to a service on SQLite of its own.
"""

from __future__ import annotations

import json
import re
import statistics
import time
from typing import Any

import boto3
import httpx

from airflow_provider_lookoutvision.model import teach
from airflow_provider_lookoutvision.testing.s3 import s3_client
from airflow_provider_lookoutvision.testing.service import Service, running_service
from bench.processes import cpu_seconds

PROJECTS, IMAGES, REQUESTS = 1000, 16_000, 20
REGION = "us-east-1"
PAGES = {
    "projects, first page": "/",
    "projects, last page": "/?page=10",
    "projects, by name": "/?name=part-99",
    "gallery, first page": "/projects/part-0/datasets/train",
    "gallery, last page": "/projects/part-0/datasets/train?page=167",
    "gallery, unlabelled": "/projects/part-0/datasets/train?label=none",
    "gallery, unlabelled, after an image": (
        "/projects/part-0/datasets/train?label=none&after=s3://images/8000.jpg"
    ),
    "gallery, by class": "/projects/part-0/datasets/train?class=scratch",
    "gallery, by name": "/projects/part-0/datasets/train?name=15999",
    "one image": "/projects/part-0/datasets/train/image?ref=s3://images/8000.jpg",
    "state of a page that stays open": "/projects/part-0/datasets/train/state",
    "adding images": "/projects/part-0/datasets/train/add",
    "review, before results are named": "/review",
}


def main() -> None:
    """Fill a service, and measure."""
    with running_service() as service:
        fill(service)
        with httpx.Client(base_url=f"{service.endpoint_url}/console", timeout=60) as http:
            fields = {
                "access_key_id": service.access_key_id,
                "secret_access_key": service.secret_access_key,
                "region": REGION,
            }
            http.post("/sign-in", data=fields)
            for name, path in PAGES.items():
                http.get(path)  # what is kept from one to the next
                took, before = [], cpu_seconds(service.process.pid)
                for _ in range(REQUESTS):
                    begin = time.perf_counter()
                    answer = http.get(path)
                    took.append((time.perf_counter() - begin) * 1000)
                    assert answer.status_code == 200, answer.text
                cost = (cpu_seconds(service.process.pid) - before) * 1000 / REQUESTS
                middle, size = statistics.median(took), len(answer.content) / 1024
                print(
                    f"{name:34} processor {cost:5.1f}  median {middle:6.1f}  slowest {max(took):6.1f}"
                    f"  {size:3.0f} kB"
                )
            tiles = len(re.findall('class="tile"', http.get("/projects/part-0/datasets/train").text))
            print(f"a page of the gallery has {tiles} of {IMAGES} images")


def fill(service: Service) -> None:
    """Make the projects and the dataset."""
    client: Any = teach(boto3.Session()).client(
        "lookoutvision",
        region_name=REGION,
        endpoint_url=service.endpoint_url,
        aws_access_key_id=service.access_key_id,
        aws_secret_access_key=service.secret_access_key,
    )
    for number in range(PROJECTS):
        client.create_project(ProjectName=f"part-{number}")
    lines = "".join(json.dumps(line(number)) + "\n" for number in range(IMAGES))
    s3_client(service, "images").put_object(Bucket="images", Key="train.manifest", Body=lines.encode())
    source = {"GroundTruthManifest": {"S3Object": {"Bucket": "images", "Key": "train.manifest"}}}
    of = {"ProjectName": "part-0", "DatasetType": "train"}
    client.create_dataset(**of, DatasetSource=source)
    while "IN_PROGRESS" in client.describe_dataset(**of)["DatasetDescription"]["Status"]:
        time.sleep(0.2)


def line(number: int) -> dict[str, Any]:
    """A third each without a label, normal, and anomalous with a mask."""
    document: dict[str, Any] = {"source-ref": f"s3://images/{number}.jpg"}
    if label := (None, "normal", "anomaly")[number % 3]:
        document["anomaly-label"] = int(label == "anomaly")
        document["anomaly-label-metadata"] = {
            "class-name": label,
            "type": "groundtruth/image-classification",
            "confidence": 1,
            "human-annotated": "yes",
            "creation-date": "2026-01-01T00:00:00",
            "job-name": "label",
        }
    if label == "anomaly":
        name, color = (("scratch", "#2CA02C"), ("dent", "#1F77B4"))[number % 2]
        document["anomaly-mask-ref"] = f"s3://images/masks/{number}.png"
        document["anomaly-mask-ref-metadata"] = {
            "internal-color-map": {"1": {"class-name": name, "hex-color": color, "confidence": 1}},
            "type": "groundtruth/semantic-segmentation",
            "human-annotated": "yes",
            "creation-date": "2026-01-01T00:00:00",
            "job-name": "mask",
        }
    return document


if __name__ == "__main__":
    main()
