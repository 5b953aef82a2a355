"""Detection in a DAG: mapped tasks, one of which is killed, a gate, and what is announced of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from airflow_and_service import Deployment
from airflow_instance import Run
from detection_runs import detecting, filled
from moto_s3 import running_s3
from trained_models import Account

from airflow_provider_lookoutvision.testing.lossy_proxy import LossyProxy

pytestmark = [pytest.mark.timeout(3600), pytest.mark.usefixtures("_trigger_all")]


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    with running_s3("images", "reports") as client:
        yield client


@pytest.fixture(scope="module")
def account(deployment: Deployment) -> Account:
    """An account whose project "plates" has a hosted model, which draws masks."""
    account = Account.of(deployment.service)
    account.project(masks=True)
    account.start("plates", account.train())
    return account


@pytest.fixture(scope="module")
def run_mapped(deployment: Deployment, account: Account, s3: Any) -> Iterator[tuple[Run, LossyProxy]]:
    with LossyProxy(account.service.endpoint_url, lambda _: False) as proxy:
        services = {"lookoutvision": proxy.endpoint_url, "s3": s3.meta.endpoint_url}
        config = {name: {"endpoint_url": url} for name, url in services.items()}
        conn_id = deployment.airflow.connection("", account.key, service_config=config)
        prefixes = [f"s3://images/{filled(s3, folder)}" for folder in ("mapped-a/", "mapped-b/")]
        prefixes.append("s3://images/none/")
        yield deployment.airflow.run("detect_mapped", conn_id=conn_id, prefixes=prefixes), proxy


def test_mapped_tasks_and_one_that_is_killed(run_mapped: tuple[Run, LossyProxy], s3: Any) -> None:
    run, proxy = run_mapped
    run.wait_for_success()

    assert run.xcom("collect") == [12, 12, 0]
    assert [run.task("detect", index).try_number for index in range(3)] == [2, 1, 1]
    statuses = [exchange.status for exchange in proxy.exchanges if detecting(exchange)]
    # Eight of the first twelve were saved when it was killed. What a busy service refuses is sent again.
    assert statuses.count(200) <= 12 + 4 + 12 + 12, statuses
    for index, folder in enumerate(("mapped-a/", "mapped-b/")):
        summary = run.xcom("detect", map_index=index)
        spotted = [f"s3://images/{folder}{number:02}.png" for number in (0, 3, 6, 9)]
        assert summary["anomalous_s3_uris"] == spotted
        bucket, _, key = summary["results_s3_uri"].removeprefix("s3://").partition("/")
        lines = s3.get_object(Bucket=bucket, Key=key)["Body"].read().splitlines()
        assert [json.loads(line)["source-ref"] for line in lines] == [
            f"s3://images/{folder}{number:02}.png" for number in range(12)
        ]
    left = s3.list_objects_v2(Bucket="reports", Prefix=f"{run.run_id}/")["Contents"]
    names = [each["Key"].partition("/")[2] for each in left if ".parts/" not in each["Key"]]
    assert names == ["0.jsonl", "1.jsonl", "2.jsonl", "too-many.jsonl"]


def test_a_gate_fails_the_task_and_is_not_retried(run_mapped: tuple[Run, LossyProxy]) -> None:
    run, _ = run_mapped
    run.wait_for_success()

    assert (run.task("detect_too_many").state, run.task("stop_the_line").state) == ("failed", "success")
    assert run.task("detect_too_many").try_number == 1
    reason = "The anomaly rate is 0.3333, 4 of 12 images; max_anomaly_rate is 0.25; 12 images have a verdict"
    assert f"{reason}; min_images is 13. The results are in s3://" in run.log("detect_too_many", 1)


def test_a_batch_that_fails_has_a_link_to_its_verdicts(
    run_mapped: tuple[Run, LossyProxy], deployment: Deployment
) -> None:
    run, proxy = run_mapped
    run.wait_for_success()

    results = quote(f"s3://reports/{run.run_id}/too-many.jsonl", safe="")
    assert run.links("detect_too_many") == {
        "Project": f"{proxy.endpoint_url}/console/projects/plates",
        "Model": f"{proxy.endpoint_url}/console/projects/plates/models/1",
        "Evaluation": f"{proxy.endpoint_url}/console/projects/plates/models/1/evaluation",
        "Verdicts": f"{proxy.endpoint_url}/console/review?results={results}",
    }


def test_what_a_batch_comes_to_is_announced(run_mapped: tuple[Run, LossyProxy], account: Account) -> None:
    run, _ = run_mapped
    run.wait_for_success()

    events = run.asset_events()
    assert {uri for uri, _ in events} == {
        f"lookoutvision://eu-central-1/{account.key.account}/verdicts/plates"
    }
    by_place = {extra["results_s3_uri"]: extra for _, extra in events}
    assert len(events) == len(by_place) == 3
    for index in range(3):
        summary = run.xcom("detect", map_index=index)
        extra = by_place[summary["results_s3_uri"]]
        names = ("total", "anomaly_rate", "mean_confidence", "uncertain_refs", "ModelVersion")
        assert {name: extra[name] for name in names} == {name: summary[name] for name in names}
        assert extra["ModelArn"].endswith(":model/plates/1")


def test_what_a_batch_comes_to_is_a_metric(
    run_mapped: tuple[Run, LossyProxy], deployment: Deployment
) -> None:
    run, _ = run_mapped
    run.wait_for_success()

    tags = {"project_name": "plates", "model_version": "1", "dag_id": "detect_mapped"}
    for task_id, rates in (("detect", {"0.3333333333333333"}), ("detect_too_many", {"0.3333333333333333"})):
        sent = deployment.metrics.of({**tags, "task_id": task_id})
        assert sent["lookoutvision.anomaly_rate"] == rates
        (confidence, *_) = sent["lookoutvision.mean_confidence"]
        assert 0.5 < float(confidence) <= 1
        assert "12" in sent["lookoutvision.images"]
        assert "4" in sent["lookoutvision.anomalous_images"]
    assert "0.3333333333333333" in deployment.metrics.of({})["lookoutvision.plates.anomaly_rate"]
