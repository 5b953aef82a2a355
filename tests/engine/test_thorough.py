"""The thorough effort. What trains a network needs torch: `make thorough` runs all of this."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from drawn_images import CLASSES, LabelledImages, TrainedModel
from PIL import Image

from airflow_provider_lookoutvision import engine
from airflow_provider_lookoutvision.engine import artifact, thorough
from airflow_provider_lookoutvision.engine.errors import (
    Cancelled,
    MissingDependency,
    UnusableArtifact,
    UnusableDataset,
)
from airflow_provider_lookoutvision.engine.model_selection import Hyperparameters


def test_an_effort_that_is_none() -> None:
    with pytest.raises(UnusableDataset, match="must be one of quick, thorough"):
        engine.check_effort("most")


def test_without_torch_nothing_is_started(
    training_set: LabelledImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    out = tmp_path / "model"
    with pytest.raises(MissingDependency, match=r"\[finetune\]"):
        engine.train(training_set.images, training_set.labels, training_set.masks, [], out, effort="thorough")
    assert not out.exists()


def train(
    images: LabelledImages, cache: Path, out: Path, **options: object
) -> tuple[engine.TrainingReport, list[str]]:
    stages: list[str] = []
    report = engine.train(
        images.images,
        images.labels,
        images.masks,
        CLASSES,
        out,
        cache=cache,
        effort="thorough",
        hyperparameters=Hyperparameters(224, augment=False),
        threads=1,
        progress=lambda _, stage: stages.append(stage),
        **options,  # type: ignore[arg-type]
    )
    return report, stages


@pytest.fixture
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """An epoch on one fold; what comes of it is kept, however bad."""
    pytest.importorskip("torch", reason="make thorough has it")
    monkeypatch.setattr(thorough, "_EPOCHS_RANGE", (1, 1))
    monkeypatch.setattr(thorough, "_IMAGES_OF_ALL_FOLDS", 1)
    monkeypatch.setattr(thorough, "_LOSS_RATIO", 1e9)
    monkeypatch.setattr(thorough, "_IOU_GAIN", -9)


@pytest.mark.usefixtures("_tiny")
def test_a_trained_network_is_saved_loaded_and_exported(
    training_set: LabelledImages, held_out: LabelledImages, cache: Path, tmp_path: Path
) -> None:
    report, stages = train(training_set, cache, tmp_path / "model")
    assert report.effort == "thorough"
    assert "on 6 held-out images log-loss" in report.summary
    assert report.summary.endswith("it was kept for the verdict and masks")
    assert any(stage.startswith("training the network") for stage in stages)
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        "model.json",
        "model.npz",
        "network.onnx",
    ]
    detector = engine.load(tmp_path / "model", cache=cache)
    exported = tmp_path / "exported.onnx"
    size = engine.export(tmp_path / "model", exported, cache=cache).input_size
    session = onnxruntime.InferenceSession(exported.read_bytes())
    for content in held_out.images[:3]:
        detection = detector.detect(content)
        assert detection.class_mask is not None
        assert detection.anomaly_map.shape == (size[1] // 4, size[0] // 4)
        pixels = np.asarray(
            Image.open(io.BytesIO(content)).convert("RGB").resize(size, Image.Resampling.BILINEAR)
        )
        found = dict(
            zip(
                [each.name for each in session.get_outputs()],
                session.run(None, {"image": pixels}),
                strict=True,
            )
        )
        assert found["probability"] == pytest.approx(detection.probability, abs=1e-5)
        np.testing.assert_array_equal(found["class_mask"], detection.class_mask)
        np.testing.assert_allclose(found["anomaly_map"], detection.anomaly_map, atol=1e-5)

    # The same seed gives the same network.
    train(training_set, cache, tmp_path / "again")
    for name in ("model.json", "network.onnx"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "model" / name).read_bytes()


@pytest.mark.usefixtures("_tiny")
def test_the_graph_computes_what_was_trained(cache: Path) -> None:
    from airflow_provider_lookoutvision.engine import weights
    from airflow_provider_lookoutvision.engine.finetuning import Example, Tuner

    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (2, 64, 96, 3), np.uint8)
    covered = np.zeros((2, 16, 24), np.uint8)
    covered[1, 4:9, 4:9] = 255
    examples = [lambda: Example(pixels[0], False, None), lambda: Example(pixels[1], True, covered)]
    tuner = Tuner(weights.read(weights.find()), 2, 3, flips=True, seed=1, threads=1)
    tuner.train(examples, 3, lambda _: None)
    session = onnxruntime.InferenceSession(tuner.network().SerializeToString())
    for image in pixels:
        score, logits = tuner.scores(image)
        found_logits, found_score = session.run(None, {"image": image})
        assert found_score[0] == pytest.approx(score, abs=1e-4)
        np.testing.assert_allclose(found_logits[0].transpose(1, 2, 0), logits, atol=1e-4)


@pytest.mark.usefixtures("_tiny")
def test_what_is_no_better_is_not_kept(
    training_set: LabelledImages, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thorough, "_LOSS_RATIO", 0.0)
    monkeypatch.setattr(thorough, "_IOU_GAIN", 2.0)
    report, _ = train(training_set, cache, tmp_path / "model")
    assert report.effort == "quick"
    assert report.summary.endswith("the quick model was kept")
    assert not (tmp_path / "model" / "network.onnx").exists()


@pytest.mark.usefixtures("_tiny")
def test_a_training_of_a_network_is_cancelled_between_two_steps(
    training_set: LabelledImages, cache: Path, tmp_path: Path
) -> None:
    stages: list[str] = []
    with pytest.raises(Cancelled):
        engine.train(
            *(training_set.images, training_set.labels, training_set.masks, CLASSES, tmp_path / "model"),
            cache=cache,
            effort="thorough",
            hyperparameters=Hyperparameters(224, augment=False),
            threads=1,
            progress=lambda _, stage: stages.append(stage),
            cancelled=lambda: len([stage for stage in stages if "network" in stage]) > 3,
        )
    assert list((tmp_path / "model").iterdir()) == []


# -- what needs no torch ---------------------------------------------------------------------------------


def test_few_anomalies_train_no_network(training_set: LabelledImages, cache: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="make thorough has it")
    few = [*range(12), *range(12, 17)]
    report = engine.train(
        [training_set.images[index] for index in few],
        [training_set.labels[index] for index in few],
        [None] * len(few),
        [],
        tmp_path / "model",
        cache=cache,
        effort="thorough",
        hyperparameters=Hyperparameters(224, augment=False),
    )
    assert report.effort == "quick"
    assert "8 images of each kind" in report.summary


def tampered(segmenter: TrainedModel, folder: Path, graph: onnx.ModelProto) -> Path:
    """The model with a trained network that is none."""
    for path in segmenter.folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    description = json.loads((folder / "model.json").read_text())
    description["format"] = artifact.EXTENDED_FORMAT
    description["tuned"] = {"paints": True, "offset": 0.0, "classifier": None}
    (folder / "model.json").write_text(json.dumps(description))
    (folder / "network.onnx").write_bytes(graph.SerializeToString())
    return folder


def test_a_network_of_another_form_is_refused(segmenter: TrainedModel, tmp_path: Path) -> None:
    other = onnx.helper.make_model(onnx.helper.make_graph([], "none", [], []))
    with pytest.raises(UnusableArtifact, match="other inputs, outputs or classes"):
        engine.load(tampered(segmenter, tmp_path, other))
    (tmp_path / "network.onnx").write_bytes(b"no graph")
    with pytest.raises(UnusableArtifact, match=r"is damaged|other inputs"):
        engine.load(tmp_path)
    (tmp_path / "network.onnx").unlink()
    with pytest.raises(UnusableArtifact, match=r"network\.onnx is missing"):
        engine.load(tmp_path)
    assert replace(artifact.load(segmenter.folder)).tuned is None
