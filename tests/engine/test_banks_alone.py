"""A model of normal images alone: three memory banks, and the highest of their scores."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from drawn_images import LabelledImages
from PIL import Image

from airflow_provider_lookoutvision import engine
from airflow_provider_lookoutvision.engine import artifact, memory_bank, network, working_size
from airflow_provider_lookoutvision.engine.backbone import CHANNELS, Backbone
from airflow_provider_lookoutvision.engine.errors import UnusableArtifact
from airflow_provider_lookoutvision.engine.images import halved
from airflow_provider_lookoutvision.engine.model_selection import Hyperparameters


# The images are seen at half their size too at the second.
@pytest.fixture(scope="module", params=[224, 640])
def folder(
    request: pytest.FixtureRequest,
    training_set: LabelledImages,
    cache: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    pairs = zip(training_set.images, training_set.labels, strict=True)
    images = [image for image, label in pairs if label == "normal"]
    folder = tmp_path_factory.mktemp("alone") / "model"
    engine.train(
        *(images, ["normal"] * len(images), [None] * len(images), [], folder),
        cache=cache,
        hyperparameters=Hyperparameters(request.param, augment=False),
        threads=1,
    )
    return folder


def test_three_banks_are_saved_loaded_and_exported(
    folder: Path, held_out: LabelledImages, cache: Path, tmp_path: Path
) -> None:
    detector = engine.load(folder, cache=cache)
    exported = engine.export(folder, tmp_path / "model.onnx", cache=cache)
    session = onnxruntime.InferenceSession((tmp_path / "model.onnx").read_bytes())
    model = detector._model
    banks = model.heads.banks
    half = working_size.is_halved(model.working_size)
    wanted = memory_bank.features_without_anomalies(CHANNELS, half=half)
    assert [bank.features for bank in banks] == list(wanted)
    assert [bank.patches.shape[1] for bank in banks] == [40 + 112 + 320] * 2 + [96 + 40]
    backbone = Backbone(cache, 1, detail=True)
    for content in held_out.images:
        detection = detector.detect(content)
        picture = Image.open(io.BytesIO(content)).convert("RGB")
        pixels = np.asarray(picture.resize(exported.input_size, Image.Resampling.BILINEAR))
        probability, anomaly_map = session.run(["probability", "anomaly_map"], {network.IMAGE: pixels})
        assert float(probability) == pytest.approx(detection.probability, abs=1e-5)
        np.testing.assert_allclose(anomaly_map, detection.anomaly_map, atol=1e-4)
        features = replace(
            backbone.features(pixels), half=backbone.features(halved(pixels)) if half else None
        )
        scores, _ = model.heads.scores(features)
        assert float(model.classifier.probability(scores[None])[0]) == pytest.approx(
            detection.probability, abs=1e-4
        )


def test_either_bank_makes_an_image_anomalous(folder: Path) -> None:
    classifier = artifact.load(folder).classifier
    usual = classifier.mean
    assert classifier.probability(usual[None])[0] < 0.5
    for number in range(len(usual)):
        far = usual.copy()
        far[number] += 20 * classifier.scale[number]
        assert classifier.probability(far[None])[0] > 0.99


def test_an_image_is_halved_by_means() -> None:
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[:2, :2, 0] = [[0, 1], [2, 3]]
    pixels[2:, 4:] = 255
    half = halved(pixels)
    assert half.shape == (2, 3, 3)
    assert half[0, 0].tolist() == [2, 0, 0]  # 1.5, to the even number
    assert half[1, 2].tolist() == [255] * 3


def test_the_detail_is_the_map_at_stride_4(cache: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    plain, detailed = (Backbone(cache, 1, detail=detail).features(pixels) for detail in (False, True))
    assert plain.detail is None
    assert detailed.detail is not None
    assert detailed.detail.shape == (8, 12, 96)
    np.testing.assert_array_equal(plain.fine, detailed.fine)
    # A cell of the detail sees less of the image than one of the fine map.
    changed = pixels.copy()
    changed[40:, :] = 0
    other = Backbone(cache, 1, detail=True).features(changed)
    assert other.detail is not None
    same = (detailed.detail == other.detail).all(axis=(1, 2))
    assert same[:3].all()
    assert not same[-3:].any()


@pytest.mark.parametrize(
    ("member", "value"), [("levels", 4), ("fraction", 0), ("unknown", 1), ("standardised", False)]
)
def test_features_that_no_bank_has_are_refused(
    member: str, value: object, folder: Path, tmp_path: Path
) -> None:
    changed = tmp_path / "model"
    changed.mkdir()
    for file in folder.iterdir():
        (changed / file.name).write_bytes(file.read_bytes())
    description = json.loads((changed / "model.json").read_text())
    description["features"][1][member] = value
    (changed / "model.json").write_text(json.dumps(description))
    with pytest.raises(UnusableArtifact):
        artifact.load(changed)
