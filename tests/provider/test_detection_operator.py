"""Detection in S3: one image, and batches that are interrupted, changed, throttled and mapped."""

from __future__ import annotations

import io
import json
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException
from airflow_and_service import Deployment
from airflow_instance import Run, wait_for
from detection_runs import DetectionRuns, detecting, results_of
from moto_s3 import running_s3
from PIL import Image
from service_processes import replicas
from task_context import context
from trained_models import SIZE, Account, plate

from airflow_provider_lookoutvision.operators import adaptive_concurrency, batch
from airflow_provider_lookoutvision.operators.lookoutvision import LookoutVisionSetThresholdOperator
from airflow_provider_lookoutvision.testing.lossy_proxy import Exchange, LossyProxy
from airflow_provider_lookoutvision.testing.service import running_service

pytestmark = [pytest.mark.timeout(3600), pytest.mark.usefixtures("_trigger_all")]

BUCKETS = ("images", "reports")


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    with running_s3(*BUCKETS) as client:
        yield client


@pytest.fixture(scope="module")
def account(deployment: Deployment) -> Account:
    """An account whose project "plates" has a hosted model, which draws masks."""
    account = Account.of(deployment.service)
    account.project(masks=True)
    account.start("plates", account.train())
    return account


@pytest.fixture
def folder(s3: Any, request: pytest.FixtureRequest) -> str:
    """A prefix of the test's own, with twelve plates, every third of them spotted."""
    return filled(s3, f"{abs(hash(request.node.nodeid))}/")


def filled(s3: Any, folder: str) -> str:
    for number in range(12):
        s3.put_object(Bucket="images", Key=f"{folder}{number:02}.png", Body=plate(number, number % 3 == 0))
    return folder


@pytest.fixture
def runs(account: Account, s3: Any, connect: Any) -> Iterator[DetectionRuns]:
    runs = DetectionRuns(account, s3, connect)
    with runs.proxy:
        yield runs


# -- in Airflow ------------------------------------------------------------------------------------------


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


# -- one image -------------------------------------------------------------------------------------------


def test_one_image(runs: DetectionRuns, folder: str, s3: Any) -> None:
    # S3's content type and the name are wrong: the content decides.
    jpeg = {"Bucket": "images", "Key": f"{folder}a.txt", "Body": plate(1, spotted=True, kind="JPEG")}
    s3.put_object(**jpeg, ContentType="text/plain")
    ref = f"s3://images/{folder}a.txt"
    found = runs.operator(
        image_s3_uri=ref, model_version="latest", masks_s3_prefix="s3://reports/m_"
    ).execute(context(folder))
    assert found["IsAnomalous"] is True
    assert 0.5 < found["Confidence"] <= 1
    assert [anomaly["Name"] for anomaly in found["Anomalies"]] == ["background", "spot"]
    assert (found["source-ref"], found["ModelVersion"]) == (ref, "1")
    assert found["mask-ref"] == f"s3://reports/m_{folder}a.txt.png"
    mask = s3.get_object(Bucket="reports", Key=f"m_{folder}a.txt.png")["Body"].read()
    picture = Image.open(io.BytesIO(mask))
    assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", (SIZE, SIZE))

    plain = runs.operator(image_s3_uri=f"s3://images/{folder}01.png").execute(context(folder))
    assert plain["IsAnomalous"] is False
    assert "mask-ref" not in plain
    json.dumps([found, plain])


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("s3://images/missing.png", "missing.png can't be used: .*NoSuchKey"),
        ("s3://nowhere/a.png", "NoSuchBucket"),
        ("images/a.png", "image_s3_uri is 'images/a.png'; it must be s3://bucket/key"),
    ],
)
def test_an_image_that_is_not_there(runs: DetectionRuns, image: str, message: str) -> None:
    with pytest.raises(AirflowFailException, match=message):
        runs.operator(image_s3_uri=image).execute(context("missing"))


# -- a prefix --------------------------------------------------------------------------------------------


def test_all_images_of_a_prefix(runs: DetectionRuns, folder: str, s3: Any) -> None:
    others = {
        "04.JPG": plate(4, spotted=True, kind="JPEG"),
        "05.jpeg": b"hello",
        "06.JPEG": plate(6)[:300],
        "07.png.bak": plate(7),
        "99.png": b"\x89PNG\r\n\x1a\n" + bytes(8 * 1024 * 1024),
    }
    for name, content in others.items():
        s3.put_object(Bucket="images", Key=folder + name, Body=content)
    found = runs.run(folder, masks_s3_prefix="s3://reports/masks/", max_anomalous_s3_uris=3, max_uncertain=2)

    lines = runs.lines(folder)
    confidences = {line["source-ref"]: line["Confidence"] for line in lines if "error" not in line}
    by_name = {line["source-ref"].rpartition("/")[2]: line for line in lines}
    assert list(by_name) == sorted({*(f"{number:02}.png" for number in range(12)), *others} - {"07.png.bak"})
    failures = {name: line["error"]["Message"] for name, line in by_name.items() if "error" in line}
    assert failures.keys() == {"05.jpeg", "06.JPEG", "99.png"}
    assert failures["05.jpeg"] == "Its content is neither JPEG nor PNG"
    assert failures["99.png"] == "It has 8388616 bytes; the service takes 8388608 at most"
    spotted = {"00.png", "03.png", "04.JPG", "06.png", "09.png"}
    assert {name for name, line in by_name.items() if line.get("IsAnomalous")} == spotted
    assert {name for name, line in by_name.items() if "mask-ref" in line} == spotted
    assert by_name["04.JPG"]["mask-ref"] == f"s3://reports/masks/{folder}04.JPG.png"
    assert found == {
        "total": 16,
        "anomalous": 5,
        "normal": 8,
        "failed": 3,
        "anomaly_rate": 5 / 13,
        "mean_confidence": pytest.approx(sum(confidences.values()) / 13),
        "results_s3_uri": results_of(folder),
        "anomalous_s3_uris": [f"s3://images/{folder}{name}" for name in ("00.png", "03.png", "04.JPG")],
        "uncertain_refs": sorted(confidences, key=lambda ref: confidences[ref])[:2],
        "ModelVersion": "1",
    }
    assert runs.parts(folder) == []


def test_heat_maps_of_all_images(runs: DetectionRuns, folder: str, s3: Any) -> None:
    assert runs.run(folder, store_heatmaps=True)["total"] == 12
    lines = runs.lines(folder)
    assert [line["heatmap-ref"] for line in lines] == [
        f"{results_of(folder)}.heatmaps/{folder}{number:02}.png.png" for number in range(12)
    ]
    assert all((line["Probability"] > 0.5) == line["IsAnomalous"] for line in lines)
    found = s3.get_object(Bucket="reports", Key=lines[3]["heatmap-ref"].removeprefix("s3://reports/"))
    picture = Image.open(io.BytesIO(found["Body"].read()))
    assert (picture.format, picture.mode, picture.size) == ("PNG", "L", (SIZE, SIZE))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"heatmaps_s3_prefix": "s3://reports/h/"}, "store_heatmaps isn't"),
        ({"store_heatmaps": True, "heatmaps_s3_prefix": "s3://images/"}, "would be images the next time"),
    ],
)
def test_heat_maps_that_can_not_be(runs: DetectionRuns, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(AirflowFailException, match=message):
        runs.run("nothing/", **parameters)
    with pytest.raises(AirflowFailException, match="needs heatmaps_s3_prefix"):
        runs.operator(image_s3_uri="s3://images/a.png", store_heatmaps=True).execute(context("one"))


def test_another_threshold_is_another_batch(runs: DetectionRuns, folder: str, account: Account) -> None:
    assert runs.run(folder)["anomalous"] == 4
    probabilities = [line["Confidence"] for line in runs.lines(folder) if line["IsAnomalous"]]
    setting = LookoutVisionSetThresholdOperator(
        task_id="set",
        aws_conn_id=runs.conn_id,
        project_name="plates",
        model_version="1",
        threshold=(1 + max(probabilities)) / 2,
    )
    description = account.client.describe_model(ProjectName="plates", ModelVersion="1")["ModelDescription"]
    try:
        assert setting.execute(context("set"))["ModelVersion"] == "1"
        assert runs.run(folder)["anomalous"] == 0
    finally:
        account.client.untag_resource(
            ResourceArn=description["ModelArn"], TagKeys=["lookoutvision:threshold"]
        )


def test_after_a_success_a_retry_asks_nothing_and_a_clear_everything(
    runs: DetectionRuns, folder: str
) -> None:
    first = runs.run(folder)
    assert runs.detections == 12
    assert runs.run(folder) == first
    assert runs.detections == 12
    assert runs.run(folder, cleared=1) == first
    assert runs.detections == 24


def test_results_of_other_images_are_not_taken(runs: DetectionRuns, folder: str, s3: Any) -> None:
    """As after a run that was deleted and created again under its ID, before Airflow 3.3."""
    assert runs.run(folder)["total"] == 12
    s3.put_object(Bucket="images", Key=f"{folder}12.png", Body=plate(12, True))
    found = runs.run(folder)
    assert (found["total"], found["anomalous"]) == (13, 5)
    assert runs.detections == 25

    s3.put_object(Bucket="images", Key=f"{folder}00.png", Body=plate(50))  # one replaced by a clean one
    assert runs.run(folder)["anomalous"] == 4
    s3.delete_object(Bucket="images", Key=f"{folder}12.png")
    found = runs.run(folder)
    assert (found["total"], found["anomalous"]) == (12, 3)
    assert runs.run(folder) == found
    assert runs.detections == 25 + 13 + 12


def losing_after(count: int) -> Any:
    seen = 0

    def drop(exchange: Exchange) -> bool:
        nonlocal seen
        seen += detecting(exchange)
        return detecting(exchange) and seen > count

    return drop


@pytest.mark.parametrize("cleared", [0, 1], ids=["a retry", "a clear"])
def test_an_interrupted_batch_goes_on(
    runs: DetectionRuns, folder: str, s3: Any, cleared: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Meanwhile one image is replaced, one added and one deleted."""
    monkeypatch.setattr(adaptive_concurrency, "GIVE_UP_SECONDS", 0)
    monkeypatch.setattr(batch, "PART_RESULTS", 2)
    runs.drop = losing_after(7)
    with pytest.raises(AirflowException, match="has accepted no request"):
        runs.run(folder, max_workers=1)
    assert runs.detections == 7
    assert len(runs.parts(folder)) == 4

    runs.drop = lambda _: False
    s3.put_object(Bucket="images", Key=f"{folder}00.png", Body=plate(40))
    s3.put_object(Bucket="images", Key=f"{folder}02a.png", Body=plate(41, spotted=True))
    s3.delete_object(Bucket="images", Key=f"{folder}04.png")
    found = runs.run(folder, cleared)
    assert runs.detections == 7 + 5 + 2
    assert [line["source-ref"].rpartition("/")[2] for line in runs.lines(folder) if line["IsAnomalous"]] == [
        "02a.png",
        "03.png",
        "06.png",
        "09.png",
    ]
    assert (found["total"], found["failed"]) == (12, 0)
    assert runs.parts(folder) == []


def test_a_task_that_is_asked_to_stop_saves_its_results(runs: DetectionRuns, folder: str) -> None:
    """First the results that it has, since it may have no time for the response that is on its way."""
    operator = runs.operator(
        images_s3_prefix=f"s3://images/{folder}", results_s3_uri=results_of(folder), max_workers=1
    )
    seen = losing_after(5)
    saved: list[str] = []

    def be_slow_after_five(exchange: Exchange) -> bool:
        if seen(exchange):
            operator.on_kill()
            saved.extend(wait_for(lambda: runs.parts(folder), 300, "the results to be saved"))
        return False

    runs.drop = be_slow_after_five
    with pytest.raises(AirflowException, match="asked to stop"):
        operator.execute(context(folder))
    assert saved
    assert runs.detections == 6
    runs.run(folder)
    assert runs.detections == 12


def test_two_tries_at_once(runs: DetectionRuns, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "PART_RESULTS", 1)
    found: list[Mapping[str, Any]] = []
    tries = [threading.Thread(target=lambda: found.append(runs.run(folder, max_workers=2))) for _ in range(2)]
    for each in tries:
        each.start()
    for each in tries:
        each.join()
    assert len(found) == 2
    assert found[0] == found[1]
    assert [line["IsAnomalous"] for line in runs.lines(folder)] == [n % 3 == 0 for n in range(12)]


def test_unusable_images_fail_the_task_at_the_end_and_a_clear_asks_about_them_only(
    runs: DetectionRuns, folder: str, s3: Any
) -> None:
    s3.put_object(Bucket="images", Key=f"{folder}05.png", Body=b"hello")
    with pytest.raises(AirflowFailException, match=r"05\.png: Its content is neither.*clear this task"):
        runs.run(folder, on_invalid_image="fail")
    assert runs.detections == 11
    assert len(runs.lines(folder)) == 12
    s3.put_object(Bucket="images", Key=f"{folder}05.png", Body=plate(5))
    assert runs.run(folder, cleared=1, on_invalid_image="fail")["normal"] == 8
    assert runs.detections == 12
    assert runs.parts(folder) == []


def test_a_prefix_without_images(runs: DetectionRuns) -> None:
    assert runs.run("empty/") == {
        "total": 0, "anomalous": 0, "normal": 0, "failed": 0, "anomaly_rate": None, "mean_confidence": None,
        "results_s3_uri": results_of("empty/"), "anomalous_s3_uris": [], "uncertain_refs": [],
        "ModelVersion": "1",
    }  # fmt: skip
    assert runs.lines("empty/") == []
    with pytest.raises(AirflowFailException, match="There are no images below s3://images/none/"):
        runs.run("none/", fail_if_empty=True)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (
            {"image_s3_uri": "s3://images/a.png"},
            "Set either image_s3_uri, or images_s3_prefix and results_s3_uri",
        ),
        ({"results_s3_uri": None}, "Set either image_s3_uri, or images_s3_prefix and results_s3_uri"),
        ({"images_s3_prefix": "images"}, "images_s3_prefix is 'images'; it must be s3://bucket/prefix"),
        ({"images_s3_prefix": "s3://nowhere/"}, "NoSuchBucket"),
        ({"results_s3_uri": "s3://nowhere/a"}, "404|NoSuchBucket"),
        (
            {"results_s3_uri": "s3://reports/"},
            "results_s3_uri is 's3://reports/'; it must be s3://bucket/key",
        ),
        ({"on_invalid_image": "ignore"}, "on_invalid_image is 'ignore'; it must be one of fail, record"),
        ({"masks_s3_prefix": "s3://images/"}, "the masks would be images the next time"),
        ({"max_workers": 0}, "max_workers is 0; it must be at least 1"),
        ({"project_name": "none"}, "ResourceNotFoundException"),
        ({"model_version": "stage=none"}, "No model of project plates is tagged stage=none"),
        ({"max_anomaly_rate": "high"}, "max_anomaly_rate is 'high'; it must be a number from 0 to 1"),
        ({"max_anomaly_rate": 1.5}, "max_anomaly_rate is 1.5; it must be a number from 0 to 1"),
        ({"min_images": "1.5"}, "min_images is '1.5'; it must be a whole number"),
        ({"on_gate_failure": "cry"}, "on_gate_failure is 'cry'; it must be one of fail, warn"),
        (
            {
                "image_s3_uri": "s3://images/a",
                "images_s3_prefix": None,
                "results_s3_uri": None,
                "min_images": 1,
            },
            "max_anomaly_rate and min_images are for images_s3_prefix",
        ),
    ],
)
def test_parameters_that_can_not_be(
    runs: DetectionRuns, folder: str, parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(AirflowFailException, match=message):
        runs.run(folder, **parameters)


@pytest.mark.parametrize("parameters", [{"max_anomaly_rate": "0.3"}, {"min_images": 13}])
def test_a_gate(
    runs: DetectionRuns, folder: str, parameters: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """Four of twelve are anomalous. What fails a gate has been sent, and isn't sent again after a clear."""
    with pytest.raises(AirflowFailException, match=r"12 images.*The results are in s3://reports/"):
        runs.run(folder, **parameters)
    assert len(runs.lines(folder)) == 12
    found = runs.run(folder, cleared=1, **parameters, on_gate_failure="warn")
    assert (found["total"], found["anomaly_rate"]) == (12, 4 / 12)
    assert f"{'max_anomaly_rate is 0.3' if 'min_images' not in parameters else 'min_images is 13'}" in (
        capsys.readouterr().out
    )
    assert runs.detections == 12
    assert runs.parts(folder) == []
    assert runs.run(folder, cleared=2, max_anomaly_rate=4 / 12, min_images="12") == found


# -- a service that is busy ------------------------------------------------------------------------------


def test_a_busy_service_gets_fewer_requests(s3: Any, connect: Any, folder: str) -> None:
    with running_service(flags=["--queue-per-unit", "1"]) as service:
        account = Account.of(service)
        account.project()
        version = account.train()
        runs = DetectionRuns(account, s3, connect)
        with runs.proxy:
            with pytest.raises(AirflowFailException, match="start it, and wait until it is HOSTED"):
                runs.run(folder)
            name = {"ProjectName": "plates", "ModelVersion": version}
            account.client.start_model(**name, MinInferenceUnits=1)
            [unit] = wait_for(lambda: replicas(service), 300, "the inference unit to begin")
            os.kill(unit, signal.SIGSTOP)
            with pytest.raises(AirflowException, match=r"STARTING_HOSTING.* let the task retry") as raised:
                runs.run(folder)
            assert not isinstance(raised.value, AirflowFailException)
            os.kill(unit, signal.SIGCONT)
            account.wait("model_hosted", "plates", version)

            def wake_up_when_it_is_busy(exchange: Exchange) -> bool:
                if exchange.status == 429:
                    os.kill(unit, signal.SIGCONT)
                return False

            runs.drop = wake_up_when_it_is_busy
            os.kill(unit, signal.SIGSTOP)
            assert runs.run(folder, max_workers=12)["failed"] == 0
            statuses = [exchange.status for exchange in runs.proxy.exchanges if detecting(exchange)]
    assert statuses.count(200) == 12
    assert statuses.count(429) > 0
