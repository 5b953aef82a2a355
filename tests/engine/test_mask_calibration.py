import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_lookoutvision.engine import class_presence, mask_calibration
from airflow_provider_lookoutvision.engine.mask_calibration import HeldOutMap, HeldOutMaps
from airflow_provider_lookoutvision.engine.targets import Targets

CLASSES, COUNT = 2, 40


@given(st.integers(1, 4), st.integers(0, 99))
def test_the_scores_of_a_class_are_its_margins_over_all_others(classes: int, seed: int) -> None:
    logits = np.random.default_rng(seed).integers(-3, 4, (5, 4, classes)).astype(np.float32)
    found = class_presence.scores(logits, 99.0)
    peaks = []
    for index in range(classes):
        others = np.delete(np.concatenate([logits, np.zeros((5, 4, 1), np.float32)], axis=2), index, axis=2)
        margins = logits[..., index] - others.max(axis=2)
        peaks.append(margins.max())
        assert found[index, :2] == pytest.approx([margins.max(), margins.mean()])
    for index in range(classes):
        others = np.delete(peaks, index)
        assert found[index, 2] == pytest.approx(peaks[index] - (others.max() if others.size else 0))
    assert (found[:, 3] == class_presence.LARGEST_IMAGE_LOGIT).all()


def dataset() -> tuple[Targets, list[HeldOutMap]]:
    """Half of the images have a defect of a class, and most have a faint patch that looks like one."""
    rng = np.random.default_rng(0)
    anomalous = np.arange(COUNT) % 2 == 1
    coverage, maps = {}, []
    for index in range(COUNT):
        logits = rng.normal(-4, 0.3, (8, 6, CLASSES)).astype(np.float32)
        logits[rng.integers(8), rng.integers(6), rng.integers(CLASSES)] = 1.5
        if anomalous[index]:
            number = index % 4 // 2
            logits[2:4, 1:4, number] = 4
            cells = np.zeros((32, 24), np.uint8)
            cells[8:16, 4:16] = 255
            coverage[index] = {number: cells}
        maps.append(HeldOutMap(index, index, logits.astype(np.float16)))
    return Targets(anomalous, coverage, CLASSES), maps


def test_a_class_that_is_not_in_an_image_is_not_painted() -> None:
    targets, maps = dataset()
    masks = mask_calibration.calibrate(maps, np.where(targets.anomalous, 3.0, -3.0), targets)
    assert masks.presence is not None
    # Painted wherever its logit is positive, a class is wrong in every other image.
    assert masks.iou > 0.6
    for each in maps:
        logits = each.logits.astype(np.float32)
        scores = class_presence.scores(logits, 3.0 if targets.anomalous[each.index] else -3.0)
        there = [number in targets.coverage.get(each.index, {}) for number in range(CLASSES)]
        assert masks.presence.present(scores).tolist() == there


def test_where_nothing_is_gained_all_classes_are_painted() -> None:
    targets, maps = dataset()
    clear = [
        HeldOutMap(each.index, each.row, np.where(each.logits == 1.5, -4, each.logits).astype(np.float16))
        for each in maps
    ]
    masks = mask_calibration.calibrate(clear, np.zeros(COUNT), targets)
    assert masks.presence is None
    assert masks.iou > 0.8


def test_without_masks_there_is_nothing_to_calibrate() -> None:
    targets = Targets(np.arange(COUNT) % 2 == 1, {}, 1)
    kept = HeldOutMaps(targets, 2, 48, np.random.default_rng(0))
    kept.add(1, 1, np.zeros((8, 6, 1), np.float32))
    assert kept.maps == []
    masks = mask_calibration.calibrate(kept.maps, np.zeros(COUNT), targets)
    assert (masks.offset, masks.presence, masks.iou) == (0.0, None, 0.0)


def test_of_many_images_some_are_kept_of_both_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    targets, maps = dataset()
    monkeypatch.setattr(mask_calibration, "_MAX_BYTES", 30 * maps[0].logits.nbytes)
    kept = HeldOutMaps(targets, 2, 48, np.random.default_rng(0))
    for row in range(2 * COUNT):
        kept.add(row % COUNT, row, maps[row % COUNT].logits.astype(np.float32))
    assert len(kept.maps) == 30
    assert sum(bool(targets.anomalous[each.index]) for each in kept.maps) == 15
