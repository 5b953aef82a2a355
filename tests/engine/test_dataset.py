from pathlib import Path

import pytest
from drawn_images import CLASSES, LabelledImages, draw_plate

from airflow_provider_lookoutvision.engine import UnusableDataset, train


def test_every_unusable_image_is_named(training_set: LabelledImages, cache: Path, tmp_path: Path) -> None:
    images = training_set.images
    images[3], images[7] = images[3][:500], b"GIF89a"
    with pytest.raises(UnusableDataset) as caught:
        train(images, training_set.labels, training_set.masks, CLASSES[:1], tmp_path / "m", cache=cache)
    assert [fault.index for fault in caught.value.faults] == [3, 7, 18, 19, 20, 21, 22, 23]
    assert "image 3: " in str(caught.value)
    assert "#00FF7F" in str(caught.value)
    assert "3 more" in str(caught.value)


def test_images_of_another_size_are_named(training_set: LabelledImages, cache: Path, tmp_path: Path) -> None:
    images = training_set.images
    images[5] = draw_plate(5, width=96, height=128).image
    with pytest.raises(UnusableDataset, match="image 5: it has 96 x 128 pixels, most have 128 x 96"):
        train(images, training_set.labels, training_set.no_masks, [], tmp_path / "m", cache=cache)


def test_missing_files_are_named(training_set: LabelledImages, cache: Path, tmp_path: Path) -> None:
    images = [tmp_path / "gone.jpg", *training_set.images[1:]]
    with pytest.raises(UnusableDataset, match="image 0: the file cannot be read"):
        train(images, training_set.labels, training_set.no_masks, [], tmp_path / "m", cache=cache)


@pytest.mark.parametrize(
    ("labels", "masks", "message"),
    [
        (["normal"] * 3 + ["anomaly"] * 7, [None] * 10, "at least 4 images labelled normal"),
        (["normal"] * 9, [None] * 10, "one label and one mask"),
        (["normal"] * 10, [None] * 9, "one label and one mask"),
        (["normal"] * 9 + ["Normal"], [None] * 10, "'normal' or 'anomaly'"),
    ],
)
def test_wrong_labels_and_lengths_are_refused(
    labels: list[str],
    masks: list[None],
    message: str,
    training_set: LabelledImages,
    cache: Path,
    tmp_path: Path,
) -> None:
    with pytest.raises(UnusableDataset, match=message):
        train(training_set.images[:10], labels, masks, [], tmp_path / "m", cache=cache)
