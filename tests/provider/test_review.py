"""A night in Airflow: people label what the model is unsure of, and approve the model of these labels."""

from __future__ import annotations

import json
import re
from urllib.parse import quote
from urllib.request import urlopen

import pytest
from airflow_and_service import Deployment
from airflow_instance import AirflowInstance, Run
from airflow_rest import REST
from trained_models import BUCKET, Account, plate

from airflow_provider_lookoutvision.review import _flat, _labels

pytestmark = [
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not REST.has_hitl, reason="people in the loop need Airflow 3.1"),
]

PROJECT = "machined-parts"  # of the examples
CHOICES = {"a (1).png": "anomaly", "b.png": "normal", "c.png": "unsure"}


@pytest.fixture(scope="module")
def account(deployment: Deployment) -> Account:
    """An account with the examples' project, a hosted model in use, and three images of the night."""
    account = Account.of(deployment.service)
    account.project(PROJECT)
    account.start(PROJECT, account.train(PROJECT))
    model = account.client.describe_model(ProjectName=PROJECT, ModelVersion="1")["ModelDescription"]
    in_use = [{"Key": "stage", "Value": "production"}]
    account.client.tag_resource(ResourceArn=model["ModelArn"], Tags=in_use)
    folder = deployment.service.data_dir / "buckets" / BUCKET / "night"
    folder.mkdir(parents=True)
    for number, name in enumerate(CHOICES):
        (folder / name).write_bytes(plate(number, spotted=number == 0))
    return account


@pytest.fixture(scope="module")
def run(deployment: Deployment, account: Account) -> Run:
    airflow: AirflowInstance = deployment.airflow
    url = deployment.service.endpoint_url
    services = {name: {"endpoint_url": url} for name in ("lookoutvision", "s3")}
    airflow.connection(url, account.key, conn_id="aws_default", service_config=services)
    for name in ("review", "retrain"):
        airflow.unpause(f"example_lookoutvision_{name}")
    run = airflow.run("detect_and_announce", images=f"s3://{BUCKET}/night/")
    run.wait_for_success()
    return run


def test_from_a_batch_to_labels_and_to_an_approved_model(
    run: Run, deployment: Deployment, account: Account
) -> None:
    uncertain = run.xcom("detect", "uncertain_refs")
    assert sorted(uncertain) == [f"s3://{BUCKET}/night/{name}" for name in sorted(CHOICES)]

    review = deployment.airflow.next_run("example_lookoutvision_review")
    for index, uri in enumerate(uncertain):
        name = uri.rpartition("/")[2]
        body = review.answer("review_images.review", CHOICES[name], map_index=index)
        assert f"`{uri}`" in body
        (picture,) = re.findall(r"!\[[^]]*\]\(([^)]+)\)", body)
        assert quote(name) in picture
        with urlopen(picture) as response:
            stored = deployment.service.data_dir / "buckets" / BUCKET / "night" / name
            assert response.read() == stored.read_bytes()
    review.wait_for_success()
    labels = review.xcom("review_images.labels")
    assert labels == {f"s3://{BUCKET}/night/{name}": CHOICES[name] for name in ("a (1).png", "b.png")}
    names = {"ProjectName": PROJECT, "DatasetType": "train"}
    entries = map(json.loads, account.client.list_dataset_entries(**names, MaxResults=100)["DatasetEntries"])
    found = {each["source-ref"]: each.get("anomaly-label") for each in entries}
    assert {uri: found[uri] for uri in labels} == {
        uri: int(label == "anomaly") for uri, label in labels.items()
    }

    retrain = deployment.airflow.next_run("example_lookoutvision_retrain")
    body = retrain.answer("approve", "Approve")
    assert re.search(r"^\| F1Score \| [01]\.\d{3} \|$", body, re.MULTILINE), body
    retrain.wait_for_success()
    assert retrain.xcom("promote", "promoted") is True
    assert retrain.xcom("promote", "replaced") == ["1"]


def test_labels_of_several_batches_are_for_each_image_once() -> None:
    assert _flat([["s3://a/1", "s3://a/2"], ["s3://a/2"], []]) == ["s3://a/1", "s3://a/2"]
    answers = [{"chosen_options": ["normal"]}, {"chosen_options": ["unsure"]}]
    assert _labels(["s3://a/1", "s3://a/2"], answers) == {"s3://a/1": "normal"}
