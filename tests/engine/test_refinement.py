import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_images import Drawing, LabelledImages, TrainedModel, draw_all, jpeg, png
from PIL import Image, ImageDraw, ImageFilter

from airflow_provider_lookoutvision.engine import (
    AnomalyClass,
    Cancelled,
    Hyperparameters,
    TrainingReport,
    UnusableArtifact,
    artifact,
    backbone,
    evaluate,
    export,
    load,
    refinement,
    refinement_training,
    train,
)
from airflow_provider_lookoutvision.engine.artifact import Model
from airflow_provider_lookoutvision.engine.detector import Detector
from airflow_provider_lookoutvision.engine.images import decode, decode_parts
from airflow_provider_lookoutvision.engine.patch_head import PatchHead
from airflow_provider_lookoutvision.engine.refinement import Refinement, Window

SIZE = 1200, 900
CLASSES = [AnomalyClass("dot", "#FF0000"), AnomalyClass("line", "#00FF00")]


def draw_large(seed: int, defect: str | None = None) -> Drawing:
    """A large grainy plate, perhaps with a dark dot or a bright line of about 30 pixels."""
    rng = np.random.default_rng(seed)
    grain = Image.fromarray(np.clip(rng.normal(128, 14, SIZE[::-1]), 0, 255).astype(np.uint8))
    image, mask = grain.filter(ImageFilter.GaussianBlur(1)), Image.new("RGB", SIZE, "white")
    middle = rng.uniform(0.15, 0.85, 2) * SIZE
    if defect == "dot":
        half = rng.uniform(11, 16)
        box = (*(middle - half), *(middle + half))
        ImageDraw.Draw(image).ellipse(box, fill=20)
        ImageDraw.Draw(mask).ellipse(box, fill=CLASSES[0].color)
    if defect == "line":
        half_line = rng.uniform(14, 22) * np.array([1, rng.uniform(-1, 1)])
        ends = (*(middle - half_line), *(middle + half_line))
        ImageDraw.Draw(image).line(ends, fill=240, width=8)
        ImageDraw.Draw(mask).line(ends, fill=CLASSES[1].color, width=8)
    pixels = np.asarray(mask)
    class_mask = np.where(pixels[..., 2] > 0, 0, np.where(pixels[..., 0] > 0, 1, 2)).astype(np.uint8)
    return Drawing(jpeg(image), png(mask, compress_level=1), class_mask)


@pytest.fixture(scope="module")
def plates() -> LabelledImages:
    return draw_all([None] * 8 + ["dot", "line"] * 4, draw=draw_large)


@pytest.fixture(scope="module")
def others() -> LabelledImages:
    return draw_all([None, "dot", "line"] * 3, first_seed=1000, draw=draw_large)


def train_on(plates: LabelledImages, folder: Path, cache: Path, **options: Any) -> TrainingReport:
    return train(
        plates.images,
        plates.labels,
        plates.masks,
        CLASSES,
        folder,
        hyperparameters=Hyperparameters(224, augment=False),
        cache=cache,
        **options,
    )


@pytest.fixture(scope="module")
def trained(
    plates: LabelledImages, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, TrainingReport]:
    folder = tmp_path_factory.mktemp("refined") / "model"
    return folder, train_on(plates, folder, cache)


@pytest.fixture(scope="module")
def model(trained: tuple[Path, TrainingReport]) -> Model:
    return artifact.load(trained[0])


@pytest.fixture
def folder(trained: tuple[Path, TrainingReport], tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained[0], tmp_path / "model"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def mean_iou(detector: Detector, drawn: LabelledImages) -> float:
    evaluation = evaluate(detector, drawn.images, drawn.labels, drawn.masks)
    return float(np.mean([each.iou for each in evaluation.pixel_metrics]))


def test_small_defects_are_painted_better_and_verdicts_are_the_same(
    model: Model, others: LabelledImages, cache: Path, trained: tuple[Path, TrainingReport]
) -> None:
    assert model.refinement is not None
    refined, coarse = Detector(model, cache), Detector(replace(model, refinement=None), cache)
    iou, before = mean_iou(refined, others), mean_iou(coarse, others)
    assert iou > 0.5
    assert iou > before + 0.15
    assert trained[1].iou > 0.5
    for content in others.images:
        one, other = refined.detect(content), coarse.detect(content)
        assert one.probability == other.probability
        np.testing.assert_array_equal(one.anomaly_map, other.anomaly_map)
        assert one.class_mask is not None
        assert one.areas is not None
        assert one.areas == {
            name: (one.class_mask == index).mean() for index, name in enumerate(["background", "dot", "line"])
        }


@pytest.fixture(scope="module")
def painter(model: Model) -> Model:
    """It paints all of eight windows, in each image."""
    assert model.refinement is not None
    head = PatchHead(0 * model.refinement.head.weights, np.array([9, 0], np.float32))
    painting = replace(model.refinement, head=head, presence=None, floor=-100.0)
    return replace(model, refinement=painting)


def test_an_image_of_another_size_is_painted_as_before(
    painter: Model, others: LabelledImages, cache: Path
) -> None:
    smaller = png(Image.fromarray(decode(others.images[1]).pixels).resize((800, 600)))
    for content, is_refined in ((others.images[1], True), (smaller, False)):
        fine, coarse = (
            Detector(each, cache).detect(content).class_mask
            for each in (painter, replace(painter, refinement=None))
        )
        assert np.array_equal(fine, coarse) is not is_refined


def test_training_is_deterministic(
    trained: tuple[Path, TrainingReport], plates: LabelledImages, cache: Path, tmp_path: Path
) -> None:
    train_on(plates, tmp_path / "again", cache)
    assert contents(tmp_path / "again") == contents(trained[0])


def test_without_a_gain_the_model_is_what_it_was(
    plates: LabelledImages, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refinement_training, "_IOU_GAIN", 1.0)
    train_on(plates, tmp_path / "tried", cache)
    monkeypatch.setattr(refinement_training, "is_applicable", lambda *_: False)
    train_on(plates, tmp_path / "untried", cache)
    assert contents(tmp_path / "tried") == contents(tmp_path / "untried")
    assert artifact.load(tmp_path / "tried").refinement is None


def test_a_model_of_small_images_has_no_refinement(segmenter: TrainedModel) -> None:
    description = json.loads((segmenter.folder / artifact.MODEL_FILE).read_text())
    assert "refinement" not in description
    assert all("refin" not in stage for _, stage in segmenter.progress)
    with np.load(segmenter.folder / artifact.ARRAYS_FILE) as arrays:
        assert not any("refinement" in name for name in arrays)


@pytest.mark.parametrize("calls", [1, 12, 30])
def test_it_can_be_cancelled(plates: LabelledImages, cache: Path, tmp_path: Path, calls: int) -> None:
    seen: list[str] = []

    def cancelled() -> bool:
        return seen.count("refining masks") >= calls

    with pytest.raises(Cancelled):
        train_on(
            plates,
            tmp_path / "model",
            cache,
            progress=lambda _, stage: seen.append(stage),
            cancelled=cancelled,
        )
    assert seen.count("refining masks") == calls
    assert not any((tmp_path / "model").iterdir())


def test_a_model_is_the_same_after_a_round_trip(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    artifact.save(tmp_path / "again", artifact.load(folder))
    assert contents(tmp_path / "again") == contents(folder)


def described(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / artifact.MODEL_FILE
    description = json.loads(path.read_text())
    assert description["format"] == artifact.EXTENDED_FORMAT
    change(description)
    path.write_text(json.dumps(description))


@pytest.mark.parametrize(
    "change",
    [
        lambda whole: whole.update(format=artifact.FORMAT),
        lambda whole: whole.pop("refinement"),
        lambda whole: whole.update(refinement=None),
        lambda whole: whole.update(refinement={}),
        lambda whole: whole["refinement"].update(more=1),
        lambda whole: whole["refinement"].pop("floor"),
        lambda whole: whole["refinement"].update(floor=float("nan")),
        lambda whole: whole["refinement"].update(offset=float("inf")),
        lambda whole: whole["refinement"].update(offset="x"),
        lambda whole: whole["refinement"].update(window=100),
        lambda whole: whole["refinement"].update(presence={"mean": [1]}),
        lambda whole: whole["refinement"].update(presence=None),
        lambda whole: whole.update(size=list(SIZE)),
        lambda whole: whole.update(classes=whole["classes"][:1]),
    ],
)
def test_an_unknown_description_is_refused(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    load(folder)
    described(folder, change)
    with pytest.raises(UnusableArtifact):
        load(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays: arrays.pop("refinement.bias"),
        lambda arrays: arrays.update({"refinement.more": np.zeros(2, np.float32)}),
        lambda arrays: arrays.update({"refinement.weights": arrays["refinement.weights"][:, :-1]}),
        lambda arrays: arrays.update({"refinement.weights": arrays["refinement.weights"][:1]}),
        lambda arrays: arrays.update({"refinement.bias": arrays["refinement.bias"].astype(np.float64)}),
        lambda arrays: arrays["refinement.weights"].fill(np.nan),
    ],
    ids=["missing", "extra", "narrow", "short", "wide", "nan"],
)
def test_unknown_arrays_are_refused(folder: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    with np.load(folder / artifact.ARRAYS_FILE) as file:
        arrays = dict(file)
    change(arrays)
    np.savez(folder / artifact.ARRAYS_FILE, **arrays)
    with pytest.raises(UnusableArtifact):
        load(folder)


def test_an_exported_graph_paints_without_it(
    painter: Model, others: LabelledImages, cache: Path, tmp_path: Path
) -> None:
    (tmp_path / "model").mkdir()
    artifact.save(tmp_path / "model", painter)
    export(tmp_path / "model", tmp_path / "model.onnx", cache=cache)
    session = backbone.onnxruntime.InferenceSession(tmp_path / "model.onnx")
    pixels = decode(others.images[1], *painter.working_size).pixels
    [found] = session.run(["class_mask"], {"image": pixels})
    wanted = Detector(replace(painter, refinement=None), cache).detect(others.images[1]).class_mask
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    ("image_size", "working_size", "side"),
    [
        ((4096, 4096), (1280, 1280), 128),
        ((4096, 4096), (448, 448), 304),
        ((1500, 1000), (800, 512), 128),
        ((1500, 1000), (1088, 736), None),  # not much larger
        ((128, 96), (256, 192), None),
        ((100, 4096), (64, 1440), None),  # a window does not fit
    ],
)
def test_windows_are_for_images_much_larger_than_their_working_size(
    image_size: tuple[int, int], working_size: tuple[int, int], side: int | None
) -> None:
    assert refinement.window_side(image_size, working_size) == side


def test_windows_are_around_the_highest_patches_and_inside_the_image() -> None:
    logits = np.full((50, 100), -9, np.float32)
    logits[0, 0], logits[25, 50], logits[25, 52], logits[49, 99], logits[40, 10] = 1, 4, 3, 2, -8
    found = refinement.windows(logits, (2000, 1000), 128, floor=-8)
    # The third is in the window of the second; the fifth is not above the floor.
    assert found == [(946, 446, 4), (1872, 872, 2), (0, 0, 1)]
    everywhere = refinement.windows(np.zeros((50, 100), np.float32), (2000, 1000), 128)
    assert len(everywhere) == refinement.MAX_WINDOWS
    assert len({place.corner for place in everywhere}) == refinement.MAX_WINDOWS


def test_a_small_image_has_as_many_windows_as_fit() -> None:
    assert len(refinement.windows(np.zeros((20, 20), np.float32), (160, 160), 160)) == 1


def test_windows_replace_the_mask_the_more_suspicious_one_on_top() -> None:
    mask = np.full((300, 300), 2, np.uint8)
    refined = Refinement(PatchHead(np.zeros((2, 1), np.float32), np.zeros(2, np.float32)), 1.0, None, 128, 0)
    places = [Window(10, 20, 5.0), Window(60, 20, 4.0)]
    first, second = np.full((2, 32, 32, 2), -9, np.float32)
    first[..., 0] = -0.5  # above the background's 0, with the offset
    refined.paint_logits(mask, places, [first, second], 0.0)
    assert (mask[20:148, 10:138] == 1).all()
    assert (mask[20:148, 138:188] == 0).all()
    mask[20:148, 10:188] = 2
    assert (mask == 2).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_parts_have_the_pixels_of_the_whole_image(orientation: int) -> None:
    rng = np.random.default_rng(orientation)
    image = Image.fromarray(rng.integers(0, 256, (90, 120, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    translucent = image.convert("RGBA")
    translucent.putalpha(130)
    sixteen_bits = Image.fromarray(rng.integers(0, 65536, (90, 120)).astype(np.uint16))
    for content in (jpeg(image, exif=exif), png(translucent, exif=exif), png(sixteen_bits, exif=exif)):
        whole = decode(content).pixels
        corners = [(0, 0), (7, 21), (whole.shape[1] - 64, whole.shape[0] - 64)]
        original = decode(content, 64, 64, keep_original=True).original
        assert original is not None
        for parts in (decode_parts(content, corners, 64), decode_parts(b"", corners, 64, original)):
            for (left, top), part in zip(corners, parts, strict=True):
                np.testing.assert_array_equal(part, whole[top : top + 64, left : left + 64])


def test_windows_are_trained_on_as_they_are_detected() -> None:
    part = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    stored = decode(png(Image.fromarray(part)), 256, 256).pixels
    np.testing.assert_array_equal(refinement.enlarged(part), stored)


def test_what_a_jpeg_was_not_decoded_to_is_not_kept() -> None:
    content = draw_large(0).image
    assert decode(content, 64, 64, keep_original=True).original is None
    assert decode(content, 1024, 768).original is None
    kept = decode(content, 1024, 768, keep_original=True)
    assert kept.original is not None
    assert kept.original.size == SIZE
    np.testing.assert_array_equal(kept.pixels, decode(content, 1024, 768).pixels)
