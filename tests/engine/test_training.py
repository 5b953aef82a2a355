from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from drawn_images import CLASSES, Drawing, LabelledImages, TrainedModel, draw_all, draw_plate

from airflow_provider_lookoutvision.engine import (
    Cancelled,
    Hyperparameters,
    ImageSource,
    UnusableDataset,
    artifact,
    load,
    train,
    working_size,
)


def train_without_masks(
    images: Sequence[ImageSource], like: LabelledImages, out: Path, cache: Path, **options: Any
) -> None:
    """Train as the fixture `classifier` does."""
    hyperparameters = Hyperparameters(224, augment=False)
    train(
        images, like.labels, like.no_masks, [], out, cache=cache, hyperparameters=hyperparameters, **options
    )


def test_without_anomalies_the_model_is_not_calibrated(
    training_set: LabelledImages, cache: Path, tmp_path: Path
) -> None:
    normal = draw_all([None] * 16, first_seed=200)
    report = train(normal.images, normal.labels, normal.no_masks, [], tmp_path / "m", cache=cache)
    detector = load(tmp_path / "m", cache=cache)
    assert not report.calibrated
    assert not detector.calibrated
    stained = training_set.images[-6:]
    assert sum(detector.detect(image).is_anomalous for image in stained) >= 5
    held_out = draw_all([None] * 12, first_seed=300)
    assert sum(detector.detect(image).is_anomalous for image in held_out.images) <= 3


def test_the_same_seed_gives_the_same_model(
    classifier: TrainedModel, training_set: LabelledImages, cache: Path, tmp_path: Path
) -> None:
    train_without_masks(training_set.images, training_set, tmp_path / "m", cache)
    for name in (artifact.MODEL_FILE, artifact.ARRAYS_FILE):
        assert (tmp_path / "m" / name).read_bytes() == (classifier.folder / name).read_bytes()


def test_images_may_be_paths_and_functions(
    classifier: TrainedModel, training_set: LabelledImages, cache: Path, tmp_path: Path
) -> None:
    path = tmp_path / "first"
    path.write_bytes(training_set.images[0])
    sources = [path, *(lambda image=image: image for image in training_set.images[1:])]
    train_without_masks(sources, training_set, tmp_path / "m", cache)
    assert (tmp_path / "m" / artifact.ARRAYS_FILE).read_bytes() == (
        classifier.folder / artifact.ARRAYS_FILE
    ).read_bytes()


def test_progress_rises_to_one(segmenter: TrainedModel) -> None:
    fractions = [fraction for fraction, _ in segmenter.progress]
    assert fractions == sorted(fractions)
    assert 0 <= fractions[0] < 0.1
    assert fractions[-1] == 1
    assert all(stage for _, stage in segmenter.progress)


@pytest.mark.parametrize("after", [0, 30, 50])
def test_a_cancelled_training_leaves_nothing(
    training_set: LabelledImages, cache: Path, tmp_path: Path, after: int
) -> None:
    calls = iter(range(10_000))
    with pytest.raises(Cancelled):
        train_without_masks(
            training_set.images, training_set, tmp_path / "m", cache, cancelled=lambda: next(calls) >= after
        )
    assert not (tmp_path / "m").exists() or not list((tmp_path / "m").iterdir())


def test_a_folder_that_is_not_empty_is_refused(
    training_set: LabelledImages, cache: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(UnusableDataset, match="not empty"):
        train(training_set.images, training_set.labels, training_set.no_masks, [], tmp_path, cache=cache)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_small_defect_on_a_large_image_is_found(cache: Path, tmp_path: Path) -> None:
    def draw_large(seed: int, defect: str | None) -> Drawing:
        return draw_plate(seed, defect, width=1200, height=900, line_width=7)

    plates = draw_all([None] * 6 + ["scratch"] * 5, draw=draw_large)
    train(
        plates.images,
        plates.labels,
        plates.masks,
        CLASSES[:1],
        tmp_path / "m",
        cache=cache,
        hyperparameters=Hyperparameters(working_size.candidate_sides(1200, 900)[0], augment=False),
    )
    detector = load(tmp_path / "m", cache=cache)
    for seed in range(500, 503):
        scratched = detector.detect(draw_large(seed, "scratch").image)
        assert scratched.is_anomalous
        assert scratched.class_mask is not None
        assert scratched.class_mask.shape == (900, 1200)
        assert not detector.detect(draw_large(seed, None).image).is_anomalous
