"""The operator that imports: from folders and manifests, retried, cleared, and refused."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, Asset
from airflow_and_service import client_of
from task_context import context

from airflow_provider_lookoutvision.operators.lookoutvision import LookoutVisionImportDatasetsOperator
from airflow_provider_lookoutvision.testing.lossy_proxy import Exchange, LossyProxy
from airflow_provider_lookoutvision.testing.service import Service, running_service

Import = Callable[..., Any]


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running_service() as service:
        yield service


@pytest.fixture
def project() -> str:
    return f"imported-{secrets.token_hex(4)}"


@pytest.fixture
def bucket(service: Service) -> Any:
    key = (service.access_key_id, service.secret_access_key)
    s3 = boto3.Session(*key, region_name="eu-central-1").resource("s3", endpoint_url=service.endpoint_url)
    return s3.create_bucket(Bucket=f"bucket-{secrets.token_hex(4)}")


@pytest.fixture
def operator(service: Service, connect: Any, bucket: Any, tmp_path: Path) -> Import:
    """``operator(**parameters)``: it imports a folder of two images, which it finds on this disk."""
    for label in ("normal", "anomaly"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "a.jpg").write_bytes(label.encode())

    def operator(url: str = service.endpoint_url, **parameters: Any) -> LookoutVisionImportDatasetsOperator:
        key = {"login": service.access_key_id, "password": service.secret_access_key}
        conn_id = connect(**key, endpoint_url=url, config_kwargs={"retries": {"total_max_attempts": 1}})
        to = {"source": str(tmp_path), "images_s3_prefix": f"s3://{bucket.name}/in/"}
        return LookoutVisionImportDatasetsOperator(
            task_id="task", aws_conn_id=conn_id, **{**to, **parameters}
        )

    return operator


def test_folders_are_imported_once(operator: Import, bucket: Any, project: str, service: Service) -> None:
    stats = {"Total": 2, "Labeled": 2, "Normal": 1, "Anomaly": 1}
    made = operator(project_name=project).execute(context("first"))
    assert made == {"datasets": {f"{project}/train": stats}, "missing": [], "uploaded": 2}
    client = client_of(service)
    of = {"ProjectName": project, "DatasetType": "train"}
    before = client.describe_dataset(**of)["DatasetDescription"]
    written = {each.key: each.last_modified for each in bucket.objects.filter(Prefix="in/")}
    # A retry, a clear and another run find all of it there.
    for again in (context("first"), context("first", cleared=1), context("second")):
        found = operator(project_name=project).execute(again)
        assert found == {"datasets": {f"{project}/train": stats}, "missing": [], "uploaded": 0}
    assert client.describe_dataset(**of)["DatasetDescription"] == before
    objects = {each.key: each.last_modified for each in bucket.objects.filter(Prefix="in/")}
    assert written.keys() == objects.keys()
    images = [key for key in objects if key.endswith(".jpg")]
    assert [objects[key] for key in images] == [written[key] for key in images]


def test_a_lost_answer_is_asked_for_by_the_retry(operator: Import, project: str, service: Service) -> None:
    lost: list[str] = []

    def drop(exchange: Exchange) -> bool:
        if exchange.client_token and exchange.path not in lost:
            lost.append(exchange.path)
            return True
        return False

    with LossyProxy(service.endpoint_url, drop) as proxy:
        task = operator(proxy.endpoint_url, project_name=project)
        for _ in range(2):
            with pytest.raises(Exception, match=r"onnection") as failure:
                task.execute(context("lossy"))
            assert not isinstance(failure.value, AirflowFailException)
        assert task.execute(context("lossy"))["datasets"][f"{project}/train"]["Total"] == 2
    tokens = [each.client_token for each in proxy.exchanges if each.client_token]
    assert len(lost) == 2
    assert len(set(tokens)) == 2  # one for the project, one for the dataset, in whichever try


def test_manifests_with_other_references(operator: Import, bucket: Any, project: str, tmp_path: Path) -> None:
    bucket.put_object(Key="photos/a.jpg", Body=b"-")
    lines = [{"source-ref": f"s3://old/{name}.jpg"} for name in ("a", "gone")]
    source = tmp_path / "train.jsonl"
    source.write_text("\n".join(map(json.dumps, lines)))
    parameters = {
        "source": str(source),
        "project_name": project,
        "reference_map": {"s3://old/": f"s3://{bucket.name}/photos/"},
    }
    with pytest.raises(AirflowFailException, match="1 images or masks are missing"):
        operator(**parameters).execute(context("missing"))
    done = operator(**parameters, skip_missing=True).execute(context("skipped"))
    assert done["datasets"][f"{project}/train"]["Total"] == 1
    assert done["missing"] == [f"s3://{bucket.name}/photos/gone.jpg  ({source}, line 2)"]


def test_what_no_retry_helps_fails_at_once(operator: Import, project: str, tmp_path: Path) -> None:
    for parameters, message in (
        ({"source": str(tmp_path / "nowhere")}, "There is no"),
        ({"labels": {"a": "b"}}, "b is no label"),
        ({"if_exists": "take"}, "must be one of fail, skip, update"),
        ({"images_s3_prefix": "s3://there-is-none/"}, "There is no bucket there-is-none"),
        ({"images_s3_prefix": None}, "not in S3 yet"),
    ):
        with pytest.raises(AirflowFailException, match=message):
            operator(**{"project_name": project, **parameters}).execute(context("refused"))


def test_an_endpoint_that_is_away_is_left_to_retries(operator: Import, project: str) -> None:
    with pytest.raises(Exception, match=r"[Cc]onnect") as failure:
        operator("http://127.0.0.1:9", project_name=project).execute(context("away"))
    assert not isinstance(failure.value, AirflowFailException)
    assert not isinstance(failure.value, AirflowException) or "retry" in str(failure.value)


def test_what_it_changed_is_announced_and_linked_to(operator: Import, project: str, tmp_path: Path) -> None:
    asset = Asset("s3://somewhere/labelled")

    def announced(**parameters: Any) -> tuple[dict[str, Any], dict[str, str]]:
        task = operator(project_name=project, **parameters)
        given = context("announced") | {
            "task": SimpleNamespace(outlets=[asset]),
            "outlet_events": {asset: SimpleNamespace(extra={})},
        }
        pages: dict[str, Any] = {}
        given["ti"].xcom_push = lambda key, value: pages.update(value)
        task.execute(given)
        return given["outlet_events"][asset].extra, pages

    event, pages = announced()
    assert event["uri"].endswith(f"dataset/{project}/train")
    assert (event["ImageStats"]["Total"], event["source"]) == (2, str(tmp_path))
    assert pages["dataset"].endswith(f"/console/projects/{project}/datasets/train")
    # Nothing is new, so nothing is announced.
    (tmp_path / "normal" / "b.jpg").write_bytes(b"b")
    assert announced(if_exists="skip") == ({}, pages)
    assert announced(if_exists="update")[0]["ImageStats"]["Total"] == 3
