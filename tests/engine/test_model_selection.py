from io import BytesIO
from pathlib import Path

import numpy as np
from drawn_images import CLASSES, SCRATCH, Drawing, draw_all, draw_plate, jpeg, png
from PIL import Image, ImageDraw

from airflow_provider_lookoutvision.engine import evaluate, load, train


def test_augmentation_is_not_used_where_orientation_matters(cache: Path, tmp_path: Path) -> None:
    anomalous = [Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270, Image.Transpose.FLIP_LEFT_RIGHT]

    def draw(seed: int, orientation: Image.Transpose | None) -> bytes:
        image = Image.open(BytesIO(draw_plate(seed, width=128, height=128).image))
        ImageDraw.Draw(image).line([(50, 40), (50, 84), (76, 84)], fill=(30, 30, 30), width=8)
        return jpeg(image if orientation is None else image.transpose(orientation))

    orientations = [None] * 8 + anomalous * 2
    labels = ["normal"] * 8 + ["anomaly"] * 6
    images = [draw(seed, orientation) for seed, orientation in enumerate(orientations)]
    report = train(images, labels, [None] * 14, [], tmp_path / "m", cache=cache)
    assert not report.hyperparameters.augment
    fresh = [draw(100 + seed, orientation) for seed, orientation in enumerate(orientations)]
    evaluation = evaluate(load(tmp_path / "m", cache=cache), fresh, labels, [None] * 14)
    assert evaluation.image_metrics.f1 >= 0.95


def test_larger_sizes_are_tried_until_the_masks_of_small_defects_are_good(
    cache: Path, tmp_path: Path
) -> None:
    def draw_spot(seed: int, defect: str | None) -> Drawing:
        plain = draw_plate(seed, width=600, height=450)
        image, mask = Image.open(BytesIO(plain.image)), Image.open(BytesIO(plain.mask))
        x, y = np.random.default_rng(seed).uniform(0.1, 0.9, 2) * image.size
        if defect:
            box = [x - 5, y - 5, x + 5, y + 5]
            ImageDraw.Draw(image).ellipse(box, fill=(20, 20, 20))
            ImageDraw.Draw(mask).ellipse(box, fill=SCRATCH)
        return Drawing(jpeg(image), png(mask), plain.class_mask)

    spots = draw_all([None] * 5 + ["spot"] * 5, draw=draw_spot)
    report = train(spots.images, spots.labels, spots.masks, CLASSES[:1], tmp_path / "m", cache=cache)
    smallest = report.trials[0]
    assert smallest.f1 == 1
    assert smallest.iou < 0.5 <= report.iou
    assert smallest.hyperparameters.side < report.hyperparameters.side
