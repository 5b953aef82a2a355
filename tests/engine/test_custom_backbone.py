"""A user's own pretrained network in place of EfficientNet-lite0."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import tiny_backbone
from drawn_images import CLASSES, LabelledImages
from onnx import TensorProto, helper

from airflow_provider_lookoutvision import engine
from airflow_provider_lookoutvision.engine import artifact, custom_backbone, images, weights
from airflow_provider_lookoutvision.engine.backbone import Backbone
from airflow_provider_lookoutvision.engine.errors import UnusableArtifact, UnusableBackbone
from airflow_provider_lookoutvision.engine.model_selection import Hyperparameters
from bench import export_backbone

GIVEN = Hyperparameters(224, augment=False)


@pytest.fixture(scope="module")
def trained(
    training_set: LabelledImages, tmp_path_factory: pytest.TempPathFactory
) -> tuple[engine.TrainingReport, Path, str]:
    """The report, the model's folder, and the digest of the network's file, which is gone."""
    folder = tmp_path_factory.mktemp("custom")
    path = tiny_backbone.write(folder)
    drawn = training_set
    report = engine.train(
        *(drawn.images, drawn.labels, drawn.masks, CLASSES, folder / "model"),
        backbone=path,
        hyperparameters=GIVEN,
        cache=folder / "cache",
    )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.unlink()
    assert not (folder / "cache").exists()
    return report, folder / "model", digest


def test_a_model_carries_the_network_and_says_which(
    trained: tuple[engine.TrainingReport, Path, str],
) -> None:
    report, folder, digest = trained
    assert report.hyperparameters.backbone == f"three-convolutions, SHA-256 {digest}"
    description = json.loads((folder / "model.json").read_text())
    assert description["custom_backbone"]["sha256"] == digest
    assert description["custom_backbone"]["licence"] == "CC0-1.0"
    assert description["format"] == artifact.EXTENDED_FORMAT
    assert (folder / "backbone.onnx").stat().st_size < 50_000
    kept = onnx.load(folder / "backbone.onnx")
    assert not any("not-needed" in name for node in kept.graph.node for name in node.output)


def test_it_detects_without_the_file_or_another_network_and_as_the_exported_graph(
    trained: tuple[engine.TrainingReport, Path, str],
    held_out: LabelledImages,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(weights, "PACKAGE", "not_installed_at_all")
    _, folder, _ = trained
    detector = engine.load(folder, cache=tmp_path)
    exported = engine.export(folder, tmp_path / "whole.onnx", cache=tmp_path)
    assert exported.backbone is not None
    assert exported.backbone.name == "three-convolutions"
    session = onnxruntime.InferenceSession((tmp_path / "whole.onnx").read_bytes())
    model = artifact.load(folder)
    network = Backbone(custom=model.backbone)
    for content in held_out.images[:4]:
        detection = detector.detect(content)
        pixels = images.decode(content, *model.working_size).pixels
        names = [output.name for output in session.get_outputs()]
        found = dict(zip(names, session.run(None, {"image": pixels}), strict=True))
        assert found["probability"] == pytest.approx(detection.probability, abs=1e-5)
        np.testing.assert_array_equal(found["class_mask"], detection.class_mask)
        scores, _ = model.heads.scores(network.features(pixels))
        assert model.classifier.probability(scores[None])[0] == pytest.approx(detection.probability, abs=1e-3)
    evaluation = engine.evaluate(detector, held_out.images, held_out.labels, held_out.masks)
    assert [metrics.name for metrics in evaluation.pixel_metrics] == ["scratch", "stain"]


def test_normal_images_alone_do_without_its_map_at_stride_4(
    training_set: LabelledImages, held_out: LabelledImages, tmp_path: Path
) -> None:
    normal = training_set.images[:12]
    report = engine.train(
        *(normal, ["normal"] * 12, [None] * 12, [], tmp_path / "model"),
        backbone=tiny_backbone.write(tmp_path),
    )
    assert not report.calibrated
    assert engine.load(tmp_path / "model").detect(held_out.images[0]).probability > 0


def change(folder: Path, **changes: Any) -> None:
    path = folder / "model.json"
    description = json.loads(path.read_text())
    description["custom_backbone"] |= changes
    path.write_text(json.dumps(description))


def replace_graph(folder: Path) -> None:
    other = onnx.helper.make_model(onnx.helper.make_graph([], "none", [], [])).SerializeToString()
    (folder / "backbone.onnx").write_bytes(other)
    change(folder, graph_sha256=hashlib.sha256(other).hexdigest())


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda folder: (folder / "backbone.onnx").unlink(), "backbone.onnx is missing"),
        (lambda folder: (folder / "backbone.onnx").write_bytes(b"other"), "not the one that it was saved"),
        (replace_graph, "other inputs, outputs or operators"),
        (lambda folder: os.truncate(folder / "backbone.onnx", custom_backbone.MAX_BYTES + 1), "is larger"),
        (lambda folder: change(folder, sha256=3), "described in another way"),
        (lambda folder: change(folder, sha256="another"), "needs the network"),
        (lambda folder: change(folder, channels=[12, 10, 8]), "is damaged"),
        (lambda folder: change(folder, channels={"maps": [1, 2], "summary": [3, 4]}), "in another way"),
        (
            lambda folder: change(folder, channels={"maps": [12, 10, 9], "summary": [12, 8]}),
            "has another shape",
        ),
    ],
)
def test_a_network_that_is_not_the_models_is_refused(
    harm: Callable[[Path], None], said: str, trained: tuple[engine.TrainingReport, Path, str], tmp_path: Path
) -> None:
    for path in trained[1].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    harm(tmp_path)
    with pytest.raises(UnusableArtifact, match=said):
        artifact.load(tmp_path)


@pytest.mark.parametrize("opset", [11, 17, 18, 20])
def test_other_opsets_are_converted(opset: int, tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (64, 96, 3), np.uint8)
    custom = custom_backbone.read(tiny_backbone.write(tmp_path, tiny_backbone.network(opset)))
    features = Backbone(custom=custom).features(pixels)
    session = onnxruntime.InferenceSession(tiny_backbone.network().SerializeToString())
    scaled = (pixels.astype(np.float32) / 255 - 0.5) / 0.25
    (wanted,) = session.run(None, {"image": scaled.transpose(2, 0, 1)[None]})
    np.testing.assert_allclose(features.coarse, wanted[0].transpose(1, 2, 0), atol=1e-5)
    assert features.summary.shape == (12 + 8,)


def with_node(name: str, domain: str = "", **attributes: Any) -> Any:
    model = tiny_backbone.network()
    model.graph.node.append(helper.make_node(name, ["wide"], ["more"], domain=domain, **attributes))
    return model


def with_external_data(where: str) -> Any:
    model = tiny_backbone.network()
    tensor = model.graph.initializer[0]
    if where == "node":
        node = helper.make_node("Constant", [], ["more"], value=tensor)
        model.graph.node.append(node)
        tensor = node.attribute[0].t
        tensor = model.graph.node[-1].attribute[0].t
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    return model


def fixed_size() -> Any:
    model = tiny_backbone.network()
    shape = helper.make_tensor("shape", TensorProto.INT64, [4], [1, 8, 7, 7])
    model.graph.initializer.append(shape)
    model.graph.node.append(helper.make_node("Reshape", ["wide", "shape"], ["fixed"]))
    return model


def not_finite() -> Any:
    model = tiny_backbone.network()
    model.graph.node.append(helper.make_node("Log", ["thirty-two"], ["logarithm"]))
    return model


def test_maps_that_overflow_on_an_image_end_a_training(tmp_path: Path) -> None:
    custom = custom_backbone.read(tiny_backbone.write(tmp_path, dark_is_infinite()))
    with pytest.raises(UnusableBackbone, match="three-convolutions are not finite for an image"):
        Backbone(custom=custom).features(np.zeros((64, 96, 3), np.uint8))


def dark_is_infinite() -> Any:
    """The logarithm of 0 less itself, which noise doesn't have."""
    model = tiny_backbone.network()
    model.graph.node[0].input[0] = "brighter"
    nodes = [
        helper.make_node("Constant", [], ["two"], value_float=2.0),
        helper.make_node("Add", ["image", "two"], ["positive"]),
        helper.make_node("GlobalMaxPool", ["positive"], ["most"]),
        helper.make_node("Log", ["most"], ["logarithm"]),
        helper.make_node("Sub", ["logarithm", "logarithm"], ["nothing"]),
        helper.make_node("Add", ["image", "nothing"], ["brighter"]),
    ]
    every = [*nodes, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(every)
    return model


def taps(**names: str) -> list[dict[str, Any]]:
    outputs = {"eight": "eight", "sixteen": "sixteen", "last": "thirty-two", **names}
    return [
        {"output": output, "stride": stride}
        for output, stride in zip(outputs.values(), (8, 16, 32), strict=True)
    ]


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (with_node("Frobnicate", "com.example"), "operators of com.example; export it into one file"),
        (with_node("Frobnicate"), "no valid ONNX file: No Op registered for Frobnicate"),
        (with_external_data("initializer"), "data in another file"),
        (with_external_data("node"), "data in another file"),
        (tiny_backbone.network(kind=TensorProto.FLOAT16), "not of 32-bit floats"),
        (tiny_backbone.network(shape=(1, 64, 64, 3)), r"the shape \[1, 64, 64, 3\]"),
        (tiny_backbone.network(shape=(8, 3, None, None)), r"the shape \[8, 3, 0, 0\]"),
        (helper.make_model(helper.make_graph([], "none", [], [])), "no ONNX file, or its graph is empty"),
    ],
)
def test_a_graph_that_is_no_network_is_refused(model: Any, said: str, tmp_path: Path) -> None:
    path = tiny_backbone.write(tmp_path, model)
    with pytest.raises(UnusableBackbone, match=said) as caught:
        custom_backbone.read(path)
    assert str(caught.value).startswith(f"the backbone {path}: ")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"extra": 1}, "missing or unknown: extra"),
        ({"name": ""}, "name is ''"),
        ({"name": "a\nb"}, "name is 'a"),
        ({"licence": 1}, "licence is 1"),
        ({"mean": [1, 2]}, r"mean is \[1, 2\]; it must be three numbers"),
        ({"mean": [1, 2, float("inf")]}, "must be finite"),
        ({"std": [1, 1, 0]}, "each number must be more than 0"),
        ({"taps": tiny_backbone.DESCRIPTION["taps"][:2]}, "of the strides 8, 16 and 32"),
        ({"taps": "eight"}, "of the strides 8, 16 and 32"),
        ({"taps": taps(eight="nine")}, "has no value 'nine'; its outputs are thirty-two"),
        ({"texture": "nine"}, "has no value 'nine'"),
        ({"taps": taps(eight="sixteen")}, r"'sixteen' has the shape \(1, 10, 4, 6\) .* at the stride 8"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(UnusableBackbone, match=said):
        custom_backbone.read(tiny_backbone.write(tmp_path, **changes))


def test_what_is_seen_in_a_trial_alone(tmp_path: Path) -> None:
    with pytest.raises(UnusableBackbone, match=r"can't be run on images of 96 x 64 and .* any height"):
        custom_backbone.read(tiny_backbone.write(tmp_path, fixed_size(), taps=taps(last="fixed")))
    with pytest.raises(UnusableBackbone, match="not finite, or the same everywhere"):
        custom_backbone.read(tiny_backbone.write(tmp_path, not_finite(), taps=taps(last="logarithm")))


def test_files_that_are_missing_or_are_none(tmp_path: Path) -> None:
    path = tiny_backbone.write(tmp_path)
    path.with_suffix(".json").write_text("{")
    with pytest.raises(UnusableBackbone, match="is no JSON"):
        custom_backbone.read(path)
    path.with_suffix(".json").write_text("[]")
    with pytest.raises(UnusableBackbone, match="must be an object with name, mean, std and taps"):
        custom_backbone.read(path)
    path.with_suffix(".json").unlink()
    with pytest.raises(UnusableBackbone, match=r"tiny\.json is missing"):
        custom_backbone.read(path)
    tiny_backbone.write(tmp_path)
    path.write_bytes(b"no graph")
    with pytest.raises(UnusableBackbone, match=r"no valid ONNX file|no ONNX file"):
        custom_backbone.read(path)
    os.truncate(path, custom_backbone.MAX_BYTES + 1)
    with pytest.raises(UnusableBackbone, match="it may have 268,435,456"):
        custom_backbone.read(path)
    path.unlink()
    with pytest.raises(UnusableBackbone, match=r"tiny\.onnx is missing"):
        custom_backbone.read(path)
    path.mkdir()
    with pytest.raises(UnusableBackbone, match=r"tiny\.onnx cannot be read: Is a directory"):
        custom_backbone.read(path)
    with pytest.raises(UnusableBackbone, match=r"\.json is missing"):
        custom_backbone.read(Path())


def test_nothing_is_trained_with_a_network_that_cannot_be_used(
    training_set: LabelledImages, tmp_path: Path
) -> None:
    some = (training_set.images, training_set.labels, training_set.no_masks, [], tmp_path / "model")
    with pytest.raises(UnusableBackbone, match="is missing"):
        engine.train(*some, backbone=tmp_path / "none.onnx")
    with pytest.raises(UnusableBackbone, match=r"trains EfficientNet-lite0, not the backbone .*tiny\.onnx"):
        engine.train(*some, backbone=tiny_backbone.write(tmp_path), effort="thorough")
    assert not (tmp_path / "model").exists()


def test_an_exported_network_of_the_family_computes_the_same(cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "lite0.onnx"
    described = export_backbone.export_efficientnet_lite("lite0", path)
    path.with_suffix(".json").write_text(json.dumps(described))
    pixels = np.random.default_rng(1).integers(0, 256, (96, 64, 3), np.uint8)
    found = Backbone(custom=custom_backbone.read(path)).features(pixels)
    wanted = Backbone(cache).features(pixels)
    for part in ("fine", "middle", "coarse", "summary"):
        np.testing.assert_allclose(getattr(found, part), getattr(wanted, part), rtol=1e-3, atol=1e-3)
