from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from drawing import CLASSES, SCRATCH, Part, Trained, jpeg, part, png
from PIL import Image, ImageDraw

from airflow_provider_lookoutvision.engine import (
    Cancelled,
    Recipe,
    UnusableDataset,
    UnusableImage,
    artifact,
    evaluate,
    load,
    scales,
    supervised,
    train,
)
from airflow_provider_lookoutvision.engine.backbone import Backbone
from airflow_provider_lookoutvision.engine.images import decode
from airflow_provider_lookoutvision.engine.store import FeatureStore

PLAIN = Recipe(224, "plain")
Parts = tuple[list[Part], list[str]]


def test_defects_are_found_on_parts_not_seen_before(segmenter: Trained, held_out: Parts) -> None:
    drawn, labels = held_out
    found = evaluate(
        segmenter.detector, [item.image for item in drawn], labels, [item.mask for item in drawn]
    )
    assert found.verdicts.f1 >= 0.9
    assert found.roc_auc >= 0.95
    assert found.average_precision >= 0.95
    assert [kind.name for kind in found.classes] == ["scratch", "stain"]
    assert min(kind.iou for kind in found.classes) >= 0.3
    assert segmenter.report.calibrated
    assert segmenter.report.segmentation


def test_without_masks_defects_are_found_but_not_painted(classifier: Trained, held_out: Parts) -> None:
    drawn, labels = held_out
    found = evaluate(classifier.detector, [item.image for item in drawn], labels, [None] * len(drawn))
    assert found.verdicts.f1 >= 0.9
    assert found.classes == ()
    detection = classifier.detector.detect(drawn[1].image)
    assert detection.class_mask is None
    assert detection.areas is None


def test_a_detection_is_whole(segmenter: Trained, held_out: Parts) -> None:
    for item, label in zip(*held_out, strict=True):
        detection = segmenter.detector.detect(item.image)
        assert detection.is_anomalous == (detection.probability > 0.5)
        assert detection.confidence == max(detection.probability, 1 - detection.probability)
        assert detection.class_mask is not None
        assert detection.areas is not None
        assert detection.class_mask.shape == (96, 128)
        assert detection.class_mask.dtype == np.uint8
        assert list(detection.areas) == ["background", "scratch", "stain"]
        assert sum(detection.areas.values()) == pytest.approx(1)
        assert detection.areas["stain"] == (detection.class_mask == 2).mean()
        assert 0 <= detection.score_map.min() <= detection.score_map.max() <= 1
        if label == "anomaly":
            row, column = np.unravel_index(detection.score_map.argmax(), detection.score_map.shape)
            rows, columns = detection.score_map.shape
            around = item.truth[
                max(0, 96 * (row - 3) // rows) : 96 * (row + 4) // rows,
                max(0, 128 * (column - 3) // columns) : 128 * (column + 4) // columns,
            ]
            assert around.any()


def test_threads_may_share_a_detector(segmenter: Trained, held_out: Parts) -> None:
    contents = [item.image for item in held_out[0]] * 4
    alone = [segmenter.detector.detect(content) for content in contents[:16]] * 4
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(segmenter.detector.detect, contents))
    for one, other in zip(alone, together, strict=True):
        assert one.probability == pytest.approx(other.probability, abs=1e-6)
        np.testing.assert_array_equal(one.class_mask, other.class_mask)


def test_images_of_another_size_are_looked_at_all_the_same(segmenter: Trained) -> None:
    drawn = part(1001, "scratch", width=256, height=200, wide=6)
    lying = Image.open(BytesIO(drawn.image)).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    for content in (drawn.image, png(lying, exif=exif), jpeg(lying, exif=exif)):
        detection = segmenter.detector.detect(content)
        assert detection.image_size == (256, 200)
        assert detection.class_mask is not None
        assert detection.class_mask.shape == (200, 256)
        assert detection.is_anomalous


def test_the_graph_computes_what_the_heads_compute(segmenter: Trained, held_out: Parts, cache: Path) -> None:
    model = artifact.load(segmenter.folder)
    backbone = Backbone(cache)
    for item in held_out[0][:4]:
        scores, logits = model.heads.scores(backbone.features(decode(item.image, *model.size).pixels))
        detection = segmenter.detector.detect(item.image)
        assert logits is not None
        assert detection.probability == pytest.approx(
            float(model.stack.probability(scores[None])[0]), abs=1e-3
        )
        total = np.exp(logits).sum(axis=2)
        np.testing.assert_allclose(detection.score_map, total / (1 + total), atol=1e-3)


def test_a_large_image_is_compared_with_the_bank_in_bands(
    segmenter: Trained, held_out: Parts, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_lookoutvision.engine.detector._PATCHES", 100)
    banded, content = load(segmenter.folder, cache=cache), held_out[0][1].image
    assert banded.detect(content).probability == pytest.approx(
        segmenter.detector.detect(content).probability, abs=1e-6
    )


def test_normal_images_are_enough_but_leave_it_uncalibrated(
    parts: Parts, cache: Path, tmp_path: Path
) -> None:
    drawn = [part(seed) for seed in range(200, 216)]
    report = train(
        [item.image for item in drawn], ["normal"] * 16, [None] * 16, [], tmp_path / "m", cache=cache
    )
    detector = load(tmp_path / "m", cache=cache)
    assert not report.calibrated
    assert not detector.calibrated
    stained = [item for item, label in zip(*parts, strict=True) if label == "anomaly"][-6:]
    assert sum(detector.detect(item.image).is_anomalous for item in stained) >= 5
    fresh = [detector.detect(part(seed).image).is_anomalous for seed in range(300, 312)]
    assert sum(fresh) <= 3


def test_the_same_seed_gives_the_same_model(
    classifier: Trained, parts: Parts, cache: Path, tmp_path: Path
) -> None:
    drawn, labels = parts
    images = [item.image for item in drawn]
    train(images, labels, [None] * len(images), [], tmp_path / "m", cache=cache, recipe=PLAIN)
    for name in (artifact.JSON, artifact.NUMBERS):
        assert (tmp_path / "m" / name).read_bytes() == (classifier.folder / name).read_bytes()


def test_images_may_come_as_paths_and_as_functions(
    classifier: Trained, parts: Parts, cache: Path, tmp_path: Path
) -> None:
    drawn, labels = parts
    path = tmp_path / "first"
    path.write_bytes(drawn[0].image)
    sources = [path, *(lambda item=item: item.image for item in drawn[1:])]
    train(sources, labels, [None] * len(drawn), [], tmp_path / "m", cache=cache, recipe=PLAIN)
    assert (tmp_path / "m" / artifact.NUMBERS).read_bytes() == (
        classifier.folder / artifact.NUMBERS
    ).read_bytes()


def test_progress_rises_to_one(segmenter: Trained) -> None:
    fractions = [fraction for fraction, _ in segmenter.progress]
    assert fractions == sorted(fractions)
    assert 0 <= fractions[0] < 0.1
    assert fractions[-1] == 1
    assert all(what for _, what in segmenter.progress)


@pytest.mark.parametrize("after", [0, 30, 50])
def test_a_cancelled_training_leaves_nothing(parts: Parts, cache: Path, tmp_path: Path, after: int) -> None:
    drawn, labels = parts
    asked = iter(range(10_000))
    images = [item.image for item in drawn]
    with pytest.raises(Cancelled):
        train(
            images,
            labels,
            [None] * len(images),
            [],
            tmp_path / "m",
            cache=cache,
            recipe=PLAIN,
            cancelled=lambda: next(asked) >= after,
        )
    assert not (tmp_path / "m").exists() or not list((tmp_path / "m").iterdir())


def test_every_unusable_image_is_named(parts: Parts, cache: Path, tmp_path: Path) -> None:
    drawn, labels = parts
    images = [item.image for item in drawn]
    images[3], images[7] = images[3][:500], b"GIF89a"
    masks = [item.mask if label == "anomaly" else None for item, label in zip(drawn, labels, strict=True)]
    with pytest.raises(UnusableDataset) as caught:
        train(images, labels, masks, CLASSES[:1], tmp_path / "m", cache=cache)
    assert [fault.index for fault in caught.value.faults] == [3, 7, 18, 19, 20, 21, 22, 23]
    assert "image 3: " in str(caught.value)
    assert "#00FF7F" in str(caught.value)
    assert "3 more" in str(caught.value)


def test_images_of_another_size_are_named(parts: Parts, cache: Path, tmp_path: Path) -> None:
    drawn, labels = parts
    images = [item.image for item in drawn]
    images[5] = part(5, width=96, height=128).image
    with pytest.raises(UnusableDataset, match="image 5: it has 96 x 128 pixels, most have 128 x 96"):
        train(images, labels, [None] * len(images), [], tmp_path / "m", cache=cache)


def test_missing_files_are_named(parts: Parts, cache: Path, tmp_path: Path) -> None:
    drawn, labels = parts
    images = [tmp_path / "gone.jpg", *(item.image for item in drawn[1:])]
    with pytest.raises(UnusableDataset, match="image 0: the file cannot be read"):
        train(images, labels, [None] * len(images), [], tmp_path / "m", cache=cache)


@pytest.mark.parametrize(
    ("labels", "masks", "what"),
    [
        (["normal"] * 3 + ["anomaly"] * 7, [None] * 10, "at least 4 images labelled normal"),
        (["normal"] * 9, [None] * 10, "one label and one mask"),
        (["normal"] * 10, [None] * 9, "one label and one mask"),
        (["normal"] * 9 + ["Normal"], [None] * 10, "'normal' or 'anomaly'"),
    ],
)
def test_a_dataset_that_is_none_is_refused(
    labels: list[str], masks: list[None], what: str, parts: Parts, cache: Path, tmp_path: Path
) -> None:
    with pytest.raises(UnusableDataset, match=what):
        train([item.image for item in parts[0][:10]], labels, masks, [], tmp_path / "m", cache=cache)


def test_a_folder_in_use_is_left_alone(parts: Parts, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    drawn, labels = parts
    with pytest.raises(UnusableDataset, match="not empty"):
        train([item.image for item in drawn], labels, [None] * len(drawn), [], tmp_path, cache=cache)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_an_image_that_cannot_be_used_is_refused_at_detection(segmenter: Trained) -> None:
    with pytest.raises(UnusableImage) as caught:
        segmenter.detector.detect(b"no image")
    assert caught.value.index is None


def test_a_small_defect_on_a_large_part_is_found(cache: Path, tmp_path: Path) -> None:
    def large(seed: int, defect: str | None) -> Part:
        return part(seed, defect, width=1200, height=900, wide=7)

    defects = [None] * 6 + ["scratch"] * 5
    drawn = [large(seed, defect) for seed, defect in enumerate(defects)]
    labels = ["anomaly" if defect else "normal" for defect in defects]
    side = scales.sides(1200, 900)[0]
    train(
        [item.image for item in drawn],
        labels,
        [item.mask if label == "anomaly" else None for item, label in zip(drawn, labels, strict=True)],
        CLASSES[:1],
        tmp_path / "m",
        cache=cache,
        recipe=Recipe(side, "plain"),
    )
    detector = load(tmp_path / "m", cache=cache)
    for seed in range(500, 503):
        scratched = detector.detect(large(seed, "scratch").image)
        assert scratched.is_anomalous
        assert scratched.class_mask is not None
        assert scratched.class_mask.shape == (900, 1200)
        assert not detector.detect(large(seed, None).image).is_anomalous


def test_a_part_that_lies_the_wrong_way_round_is_an_anomaly(cache: Path, tmp_path: Path) -> None:
    wrong = [Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270, Image.Transpose.FLIP_LEFT_RIGHT]

    def lying(seed: int, turn: Image.Transpose | None) -> bytes:
        image = Image.open(BytesIO(part(seed, width=128, height=128).image))
        ImageDraw.Draw(image).line([(50, 40), (50, 84), (76, 84)], fill=(30, 30, 30), width=8)
        return jpeg(image if turn is None else image.transpose(turn))

    turns = [None] * 8 + wrong * 2
    labels = ["normal"] * 8 + ["anomaly"] * 6
    images = [lying(seed, turn) for seed, turn in enumerate(turns)]
    report = train(images, labels, [None] * 14, [], tmp_path / "m", cache=cache)
    assert report.recipe.views == "plain"
    fresh = [lying(100 + seed, turn) for seed, turn in enumerate(turns)]
    found = evaluate(load(tmp_path / "m", cache=cache), fresh, labels, [None] * 14)
    assert found.verdicts.f1 >= 0.95


def test_what_is_smaller_than_a_patch_has_a_patch_all_the_same() -> None:
    covered = np.zeros((4, 5, 2), np.float32)
    covered[0, 0, 1], covered[0, 1, 1] = 0.3, 0.1
    covered[2:, 3, 0], covered[2:, 4, 0] = (0.9, 0.6), 0.4
    assert supervised.patch_labels(covered).tolist() == [
        [2, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 1, -1],
        [0, 0, 0, 1, -1],
    ]


def test_the_search_goes_on_until_small_defects_are_painted(cache: Path, tmp_path: Path) -> None:
    def specked(seed: int, defect: bool) -> Part:
        plain = part(seed, width=600, height=450)
        image, mask = Image.open(BytesIO(plain.image)), Image.open(BytesIO(plain.mask))
        x, y = np.random.default_rng(seed).uniform(0.1, 0.9, 2) * image.size
        if defect:
            box = [x - 5, y - 5, x + 5, y + 5]
            ImageDraw.Draw(image).ellipse(box, fill=(20, 20, 20))
            ImageDraw.Draw(mask).ellipse(box, fill=SCRATCH)
        return Part(jpeg(image), png(mask), plain.truth)

    drawn = [specked(seed, seed >= 5) for seed in range(10)]
    report = train(
        [item.image for item in drawn],
        ["normal"] * 5 + ["anomaly"] * 5,
        [None] * 5 + [item.mask for item in drawn[5:]],
        CLASSES[:1],
        tmp_path / "m",
        cache=cache,
    )
    smallest = report.trials[0]
    assert smallest.f1 == 1
    assert smallest.iou < 0.5 <= report.iou
    assert smallest.recipe.side < report.recipe.side


@pytest.mark.parametrize(
    ("width", "height"),
    [(64, 64), (300, 300), (576, 768), (4096, 4096), (64, 4096), (4096, 64), (1920, 1080)],
)
def test_working_sizes_keep_proportions_and_grow_with_the_image(width: int, height: int) -> None:
    for side in scales.sides(width, height):
        across, down = scales.working_size(width, height, side)
        assert across % 32 == down % 32 == 0
        assert across * down < 3 * side * side
        if max(width, height) < 4 * min(width, height):
            assert across / down == pytest.approx(width / height, rel=0.2)
    assert scales.sides(width, height)[0] <= scales.default_side(width, height)


def test_views_are_the_eight_different_ones() -> None:
    array = np.arange(6).reshape(2, 3)
    views = [scales.view(array, index) for index in range(scales.VIEWS)]
    assert len({(view.shape, view.tobytes()) for view in views}) == 8
    assert (views[0] == array).all()


def test_many_images_are_kept_in_a_file_that_goes_away(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: Parts
) -> None:
    backbone, images = Backbone(cache), [item.image for item in parts[0][:3]]
    small = FeatureStore(backbone, images, (128, 96), 8, lambda _: None, tmp_path)
    monkeypatch.setattr("airflow_provider_lookoutvision.engine.store._IN_MEMORY", 0)
    with FeatureStore(backbone, images, (128, 96), 8, lambda _: None, tmp_path) as large:
        assert len(list(tmp_path.iterdir())) == 1
        for turn in (0, 3):
            for level in ("fine", "middle", "coarse"):
                wanted = getattr(small.get(2, turn), level)
                np.testing.assert_array_equal(getattr(large.get(2, turn), level), wanted)
        assert large.get(2, 1).fine.shape == (16, 12, 40)
    assert list(tmp_path.iterdir()) == []


def test_the_maps_of_a_view_are_those_of_the_turned_image(cache: Path, tmp_path: Path, parts: Parts) -> None:
    backbone, image = Backbone(cache), parts[0][0].image
    store = FeatureStore(backbone, [image], (128, 96), 8, lambda _: None, tmp_path)
    turned = np.asarray(Image.fromarray(decode(image, 128, 96).pixels).transpose(Image.Transpose.ROTATE_90))
    wanted = backbone.features(np.ascontiguousarray(turned))
    np.testing.assert_allclose(store.get(0, 1).middle, wanted.middle, atol=0.05)
