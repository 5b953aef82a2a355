import numpy as np
import pytest

from airflow_provider_lookoutvision.engine import metrics


def test_precision_recall_and_f1() -> None:
    found = metrics.classification_metrics([True, True, True, False, False], [True, True, False, True, False])
    assert (found.precision, found.recall, found.f1) == pytest.approx((2 / 3, 2 / 3, 2 / 3))


def test_undefined_metrics_are_zero() -> None:
    found = metrics.classification_metrics([True, False], [False, False])
    assert (found.precision, found.recall, found.f1) == (0, 0, 0)
    assert metrics.roc_auc([True, True], [0.1, 0.9]) == 0.5
    assert metrics.average_precision([False, False], [0.1, 0.9]) == 0


def test_ranking() -> None:
    truth, score = [False, True, False, True], [0.1, 0.4, 0.35, 0.3]
    assert metrics.roc_auc(truth, score) == pytest.approx(3 / 4)
    assert metrics.average_precision(truth, score) == pytest.approx((1 + 2 / 3) / 2)


def test_log_loss_is_finite_for_a_certain_and_wrong_prediction() -> None:
    assert metrics.log_loss([True], [0.0]) == pytest.approx(-np.log(1e-4))
    assert metrics.log_loss([True, False], [0.5, 0.5]) == pytest.approx(np.log(2))


def test_pixels_are_counted_by_class() -> None:
    accumulator = metrics.PixelMetricsAccumulator(["a", "b"])
    truth = np.zeros((10, 10), np.uint8)
    truth[:4, :5] = 1
    found = np.zeros((10, 10), np.uint8)
    found[2:6, :5] = 1
    found[9, :5] = 2
    accumulator.update(truth, found)
    accumulator.update(np.zeros_like(truth), np.zeros_like(truth))
    a, b = accumulator.compute()
    assert (a.name, a.precision, a.recall, a.f1, a.iou) == ("a", 0.5, 0.5, 0.5, pytest.approx(1 / 3))
    assert (b.name, b.precision, b.recall, b.f1, b.iou) == ("b", 0, 0, 0, 0)


def test_operating_points_are_the_thresholds_worth_choosing() -> None:
    truth, probability = [False, True, False, True, True, False], np.array([0.05, 0.1, 0.3, 0.9, 0.8, 0.9])
    points = metrics.operating_points(truth, probability)
    # Two images have the same probability of 0.9, so no threshold parts them; below 0.05 nothing is gained.
    assert [(point.precision, point.recall) for point in points] == [
        (pytest.approx(2 / 3), pytest.approx(2 / 3)),
        (pytest.approx(3 / 5), 1.0),
    ]
    assert [0.3 < points[0].threshold < 0.8, 0.05 < points[1].threshold < 0.1] == [True, True]
    for point in points:
        found = metrics.classification_metrics(truth, probability > point.threshold)
        assert (found.precision, found.recall, found.f1) == (point.precision, point.recall, point.f1)


def test_operating_points_of_certain_images_and_of_none() -> None:
    [only] = metrics.operating_points([True, False], [1.0, 0.0])
    assert (only.precision, only.recall, only.threshold) == (1, 1, pytest.approx(0.5, abs=1e-4))
    [lowest] = metrics.operating_points([True, True], [0.2, 0.4])
    assert 0 < lowest.threshold < 0.2
    assert metrics.operating_points([False], [0.4]) == metrics.operating_points([], []) == ()
