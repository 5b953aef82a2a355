"""DetectAnomalies: what it takes, what it refuses, what it answers."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from drawn_parts import COLOR, SIDE, drawn, encoded, png16, turned
from model_fixtures import ModelProject, TrainingService
from PIL import Image
from sdk_errors import error_response
from services import leave_bodies_unsigned
from signed_http import SignedHttpClient

from airflow_provider_lookoutvision.model.anomaly_maps import request_anomaly_maps

pytest_plugins = ["model_fixtures"]

CLASSIFIER, SEGMENTER = "1", "2"
GOOD, BAD = drawn(500)[0], drawn(500, scratched=True)[0]
PNG = encoded(Image.open(io.BytesIO(BAD)), "PNG")


def test_what_a_classifier_finds(hosted: ModelProject) -> None:
    for image, anomalous in ((GOOD, False), (BAD, True)):
        found = hosted.detect(image, CLASSIFIER)
        assert 0.5 <= found.pop("Confidence") <= 1  # in the verdict, whichever it is
        assert found == {"Source": {"Type": "direct"}, "IsAnomalous": anomalous}


def test_what_a_segmenter_finds(hosted: ModelProject) -> None:
    found = hosted.detect(BAD, SEGMENTER)
    assert found["IsAnomalous"] is True
    background, scratch = found["Anomalies"]
    assert (background["Name"], background["PixelAnomaly"]["Color"]) == ("background", "#FFFFFF")
    assert (scratch["Name"], scratch["PixelAnomaly"]["Color"]) == ("scratch", COLOR)
    areas = [anomaly["PixelAnomaly"]["TotalPercentageArea"] for anomaly in found["Anomalies"]]
    assert sum(areas) == pytest.approx(1)
    # Clients blend it with the image as it comes: of its size, and plain RGB.
    mask = Image.open(io.BytesIO(found["AnomalyMask"]))
    assert (mask.format, mask.mode, mask.size) == ("PNG", "RGB", (SIDE, SIDE))
    colors = {color: count / SIDE**2 for count, color in mask.getcolors()}
    green = tuple(bytes.fromhex(COLOR[1:]))
    assert colors == pytest.approx({(255, 255, 255): areas[0], green: areas[1]})
    # It lies where the scratch is.
    truth = np.asarray(Image.open(io.BytesIO(drawn(500, scratched=True)[1])))[..., 0] != 255
    painted = (np.asarray(mask) != 255).any(axis=2)
    assert (truth & painted).sum() / (truth | painted).sum() > 0.3


def test_what_a_segmenter_finds_where_nothing_is(hosted: ModelProject) -> None:
    found = hosted.detect(GOOD, SEGMENTER)
    assert found["IsAnomalous"] is False
    [background] = found["Anomalies"]
    assert background == {
        "Name": "background",
        "PixelAnomaly": {"TotalPercentageArea": 1.0, "Color": "#FFFFFF"},
    }
    assert Image.open(io.BytesIO(found["AnomalyMask"])).getcolors() == [(SIDE**2, (255, 255, 255))]


def test_another_threshold_is_in_use_at_once(hosted: ModelProject) -> None:
    arn = hosted.describe(CLASSIFIER)["ModelArn"]
    before = hosted.detect(BAD, CLASSIFIER)
    probability = before["Confidence"]
    assert before["IsAnomalous"]
    try:
        tag = {"Key": "lookoutvision:threshold", "Value": repr((1 + probability) / 2)}
        hosted.client.tag_resource(ResourceArn=arn, Tags=[tag])
        found = hosted.detect(BAD, CLASSIFIER)
        assert found["IsAnomalous"] is False
        assert 0.5 <= found["Confidence"] < 1
        tag["Value"] = repr(probability / 2)
        hosted.client.tag_resource(ResourceArn=arn, Tags=[tag])
        found = hosted.detect(BAD, CLASSIFIER)
        assert found["IsAnomalous"] is True
        assert found["Confidence"] >= probability
        assert hosted.detect(GOOD, SEGMENTER)["IsAnomalous"] is False  # another model's is another
    finally:
        hosted.client.untag_resource(ResourceArn=arn, TagKeys=["lookoutvision:threshold"])
    assert hosted.detect(BAD, CLASSIFIER) == before


@pytest.mark.parametrize("version", [CLASSIFIER, SEGMENTER])
def test_an_anomaly_map_is_answered_on_request_alone(version: str, hosted: ModelProject) -> None:
    plain = hosted.detect(BAD, version)
    assert not {"AnomalyMap", "Probability"} & set(plain)
    client = hosted.training_service.client(hosted.account)
    request_anomaly_maps(client)
    found = client.detect_anomalies(**hosted.of, ModelVersion=version, Body=BAD, ContentType="image/jpeg")[
        "DetectAnomalyResult"
    ]
    anomaly_map, probability = found.pop("AnomalyMap"), found.pop("Probability")
    assert found == plain
    assert probability == found["Confidence"]
    picture = Image.open(io.BytesIO(anomaly_map))
    assert (picture.format, picture.mode, picture.size) == ("PNG", "L", (SIDE, SIDE))
    # It is lighter where the scratch is.
    truth = np.asarray(Image.open(io.BytesIO(drawn(500, scratched=True)[1])))[..., 0] != 255
    scores = np.asarray(picture)
    assert scores[truth].mean() > scores[~truth].mean() + 30


def test_what_counts_is_the_content_not_the_header(hosted: ModelProject) -> None:
    expected = hosted.detect(BAD)
    for image, kind in (
        (BAD, "image/png"),
        (BAD, "IMAGE/JPEG; charset=binary"),
        (BAD, "image/jpg"),
        (BAD, "image/pjpeg"),
        (bytearray(BAD), "image/jpeg"),
        (io.BytesIO(BAD), "image/jpeg"),
    ):
        assert hosted.detect(image, content_type=kind) == expected  # type: ignore[arg-type]
    assert hosted.detect(PNG, content_type="image/jpeg")["IsAnomalous"] is True


def test_an_image_that_is_not_signed(hosted: ModelProject, sqlite_training_service: TrainingService) -> None:
    # As SDKs send a stream. Within this machine nobody can change it on the way.
    client = sqlite_training_service.client(hosted.account)
    leave_bodies_unsigned(client)
    answer = client.detect_anomalies(
        **hosted.of, ModelVersion=CLASSIFIER, Body=io.BytesIO(BAD), ContentType="image/jpeg"
    )
    assert answer["DetectAnomalyResult"] == hosted.detect(BAD)
    error = error_response(client.create_project, ProjectName="q")
    assert (error["Error"]["Code"], error["ResponseMetadata"]["HTTPStatusCode"]) == (
        "InvalidSignatureException",
        403,
    )
    assert "The body must be signed" in error["Error"]["Message"]


@pytest.mark.parametrize("kind", ["binary/octet-stream", "image/gif", "image/jp", "image", "text/plain"])
def test_other_content_types(kind: str, hosted: ModelProject) -> None:
    error = error_response(hosted.detect, image=BAD, content_type=kind)
    assert error["Error"]["Code"] == "ValidationException"
    assert "content-type must be one of the following. image/jpeg, image/png" in error["Error"]["Message"]


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def with_chunks(*chunks: bytes) -> bytes:
    """A PNG with these chunks after its header."""
    return PNG[:33] + b"".join(chunks) + PNG[33:]


def header(width: int, height: int) -> bytes:
    """A PNG that claims this size."""
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return start + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


BOMB = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(50_000_000), 9))


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (b"", "Body is empty"),
        (b"GIF89a and so on", "neither a JPEG nor a PNG"),
        (b"\xff\xd8\xff", "damaged or cut short"),
        (BAD[:-300], "cut short"),
        (PNG[:-30], "cut short"),
        (header(60_000, 60_000), "the image has 60000 x 60000 pixels; each side must have 64 to 4096"),
        (header(0x7FFFFFFF, 64), "pixels; each side must have 64 to 4096"),
        (header(63, 64), "the image has 63 x 64 pixels"),
        (header(SIDE, SIDE), "cut short"),
        (with_chunks(struct.pack(">I", 0x7FFFFFFF) + b"tEXt"), "cut short"),
        (
            drawn(1, side=65)[0],
            "the image has 65 x 65 pixels, and the model was trained on images of 64 x 64",
        ),
        (
            turned(Image.new("RGB", (64, 80))),
            "the image has 80 x 64 pixels (upright: its EXIF orientation turns the 64 x 80 that are stored)",
        ),
        (png16(np.full((SIDE, SIDE, 3), 200)), "has 16 bits a channel, and no colour is over 255 of 65535"),
    ],
)
def test_images_that_can_not_be_used(
    image: bytes, reason: str, hosted: ModelProject, sqlite_training_service: TrainingService
) -> None:
    # As raw bytes, since the SDK has opinions on empty bodies.
    signed_http = SignedHttpClient(
        sqlite_training_service.service.endpoint_url, sqlite_training_service.new_key(hosted.account)
    )
    answer = signed_http.send(
        "POST", "/2020-11-20/projects/p/models/1/detect", body=image, headers={"Content-Type": "image/png"}
    )
    assert (answer.status, answer.code) == (400, "ValidationException")
    assert reason in answer.message
    assert hosted.detect(GOOD)["IsAnomalous"] is False


def test_no_text_of_a_png_is_inflated(hosted: ModelProject) -> None:
    assert hosted.detect(with_chunks(*[BOMB] * 20), content_type="image/png") == hosted.detect(PNG)


def test_a_body_of_8_megabytes_and_one_more(hosted: ModelProject) -> None:
    padding = (8 << 20) - len(PNG) - 12
    assert hosted.detect(with_chunks(chunk(b"zzZz", bytes(padding)))) == hosted.detect(PNG)
    error = error_response(hosted.detect, image=with_chunks(chunk(b"zzZz", bytes(padding + 1))))
    assert error["Error"]["Code"] == "ValidationException"
    assert "larger than the 8388608 bytes" in error["Error"]["Message"]


def test_a_content_type_there_must_be(hosted: ModelProject, sqlite_training_service: TrainingService) -> None:
    signed_http = SignedHttpClient(
        sqlite_training_service.service.endpoint_url, sqlite_training_service.new_key(hosted.account)
    )
    answer = signed_http.send("POST", "/2020-11-20/projects/p/models/1/detect", body=BAD)
    assert (answer.status, answer.code) == (400, "ValidationException")
    assert "'ContentType'" in answer.message


def test_the_latest_model_looks(hosted: ModelProject) -> None:
    assert "Anomalies" in hosted.detect(BAD, "latest")


def test_the_description_of_a_hosted_model(hosted: ModelProject) -> None:
    described: dict[str, Any] = hosted.describe("1")
    assert (described["Status"], described["StatusMessage"]) == ("HOSTED", "The model is running")
    assert described["MinInferenceUnits"] == 1
    assert "MaxInferenceUnits" not in described
    assert set(described["Performance"]) == {"F1Score", "Recall", "Precision"}
