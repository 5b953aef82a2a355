"""Which features the memory bank compares, where there are no anomalies to choose by."""

import io
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from drawn_images import LabelledImages
from PIL import Image

from airflow_provider_lookoutvision import engine
from airflow_provider_lookoutvision.engine import feature_selection, memory_bank, synthetic_defects
from airflow_provider_lookoutvision.engine.backbone import Backbone
from airflow_provider_lookoutvision.engine.dataset import check_dataset
from airflow_provider_lookoutvision.engine.memory_bank import DEFAULT_FEATURES, BankFeatures
from airflow_provider_lookoutvision.engine.model_selection import Hyperparameters


def normal_images(training_set: LabelledImages) -> list[bytes]:
    pairs = zip(training_set.images, training_set.labels, strict=True)
    return [image for image, label in pairs if label == "normal"]


@pytest.mark.parametrize("kind", synthetic_defects.KINDS)
@pytest.mark.parametrize("scale", synthetic_defects.SCALES)
def test_a_defect_is_made_up_in_a_small_part(
    kind: synthetic_defects.Defect, scale: float, training_set: LabelledImages
) -> None:
    rng = np.random.default_rng(0)
    image, other = (Image.open(io.BytesIO(each)).convert("RGB") for each in normal_images(training_set)[:2])
    before = np.asarray(image).copy()
    changed = (np.asarray(kind(image, other, rng, scale)) != before).any(axis=2)
    assert 0 < changed.mean() < 0.1 * scale
    np.testing.assert_array_equal(np.asarray(image), before)


def test_the_features_that_tell_most_defects_are_chosen(
    training_set: LabelledImages, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = normal_images(training_set)
    dataset = check_dataset(images, ["normal"] * 12, [None] * 12, [], lambda _: None)
    blind = BankFeatures(1, standardised=False, fraction=1.0, count=None)
    seeing = BankFeatures(3, standardised=False, fraction=0.01, count=16)
    monkeypatch.setattr(feature_selection, "CANDIDATES", (blind, seeing))
    monkeypatch.setattr(feature_selection, "_SIDES", 1)
    done: list[float] = []
    _, chosen = feature_selection.choose(Backbone(cache, 1), dataset, 0, done.append)
    assert chosen == seeing
    assert done == sorted(done)
    few = check_dataset(images[:8], ["normal"] * 8, [None] * 8, [], lambda _: None)
    assert feature_selection.choose(Backbone(cache, 1), few, 0, done.append)[1] == DEFAULT_FEATURES


def test_a_bank_of_other_features_is_saved_loaded_and_exported(
    training_set: LabelledImages, held_out: LabelledImages, cache: Path, tmp_path: Path
) -> None:
    images = normal_images(training_set)
    features = BankFeatures(3, standardised=True, fraction=0.001, count=None)
    engine.train(
        *(images, ["normal"] * 12, [None] * 12, [], tmp_path / "model"),
        cache=cache,
        hyperparameters=Hyperparameters(224, augment=False, features=features),
        threads=1,
    )
    detector = engine.load(tmp_path / "model", cache=cache)
    exported = engine.export(tmp_path / "model", tmp_path / "model.onnx", cache=cache)
    session = onnxruntime.InferenceSession((tmp_path / "model.onnx").read_bytes())
    model = detector._model
    assert model.heads.bank.features == features
    assert model.heads.bank.patches.shape[1] == 472
    backbone = Backbone(cache, 1)
    for content in held_out.images[:2]:
        detection = detector.detect(content)
        picture = Image.open(io.BytesIO(content)).convert("RGB")
        pixels = np.asarray(picture.resize(exported.input_size, Image.Resampling.BILINEAR))
        assert float(session.run(["probability"], {"image": pixels})[0]) == pytest.approx(
            detection.probability, abs=1e-5
        )
        distances = model.heads.bank.distances(backbone.features(pixels))
        score = memory_bank.score(distances, features)
        assert float(model.classifier.probability(np.array([[score]]))[0]) == pytest.approx(
            detection.probability, abs=1e-4
        )
