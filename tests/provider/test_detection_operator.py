"""Detection in S3: one image, and all of a prefix."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from detection_runs import DetectionRuns, results_of
from PIL import Image
from task_context import context
from trained_models import SIZE, Account, plate

from airflow_provider_lookoutvision.operators.lookoutvision import LookoutVisionSetThresholdOperator

pytest_plugins = ["detection_fixtures"]
pytestmark = pytest.mark.timeout(3600)


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


def test_another_threshold_is_another_batch(
    runs: DetectionRuns, folder: str, detection_account: Account
) -> None:
    assert runs.run(folder)["anomalous"] == 4
    probabilities = [line["Confidence"] for line in runs.lines(folder) if line["IsAnomalous"]]
    setting = LookoutVisionSetThresholdOperator(
        task_id="set",
        aws_conn_id=runs.conn_id,
        project_name="plates",
        model_version="1",
        threshold=(1 + max(probabilities)) / 2,
    )
    description = detection_account.client.describe_model(ProjectName="plates", ModelVersion="1")[
        "ModelDescription"
    ]
    try:
        assert setting.execute(context("set"))["ModelVersion"] == "1"
        assert runs.run(folder)["anomalous"] == 0
    finally:
        detection_account.client.untag_resource(
            ResourceArn=description["ModelArn"], TagKeys=["lookoutvision:threshold"]
        )


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
    runs: DetectionRuns, folder: str, parameters: dict[str, Any], task_log: Callable[[], str]
) -> None:
    """Four of twelve are anomalous. What fails a gate has been sent, and isn't sent again after a clear."""
    with pytest.raises(AirflowFailException, match=r"12 images.*The results are in s3://reports/"):
        runs.run(folder, **parameters)
    assert len(runs.lines(folder)) == 12
    found = runs.run(folder, cleared=1, **parameters, on_gate_failure="warn")
    assert (found["total"], found["anomaly_rate"]) == (12, 4 / 12)
    assert f"{'max_anomaly_rate is 0.3' if 'min_images' not in parameters else 'min_images is 13'}" in (
        task_log()
    )
    assert runs.detections == 12
    assert runs.parts(folder) == []
    assert runs.run(folder, cleared=2, max_anomaly_rate=4 / 12, min_images="12") == found
