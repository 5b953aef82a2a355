import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_lookoutvision.engine import calibration
from airflow_provider_lookoutvision.engine.threshold import predict


def scores(rng: np.random.Generator, anomalous: np.ndarray) -> np.ndarray:
    useful = anomalous * 2.0 + rng.normal(size=len(anomalous))
    return np.stack([useful, 100 * rng.normal(size=len(anomalous)), -useful], axis=1)


def test_the_threshold_does_not_depend_on_the_share_of_anomalies() -> None:
    rng = np.random.default_rng(0)
    anomalous = np.arange(600) < 60
    classifier = calibration.fit(scores(rng, anomalous), anomalous)
    fresh = scores(rng, np.arange(2000) < 1000)
    found = classifier.probability(fresh) > 0.5
    assert found[:1000].mean() == pytest.approx(1 - found[1000:].mean(), abs=0.08)


def test_a_head_with_a_negative_coefficient_is_left_out() -> None:
    anomalous = np.arange(300) < 150
    classifier = calibration.fit(scores(np.random.default_rng(1), anomalous), anomalous)
    assert classifier.coefficients[2] == 0
    assert classifier.coefficients[0] > 0


def test_a_higher_score_never_lowers_the_probability() -> None:
    rng = np.random.default_rng(2)
    anomalous = np.arange(40) < 15
    classifier = calibration.fit(scores(rng, anomalous), anomalous)
    point = rng.normal(size=(50, 3))
    assert (classifier.probability(point + np.eye(3)[0]) >= classifier.probability(point)).all()
    assert (classifier.probability(point + np.eye(3)[2]) >= classifier.probability(point)).all()


def test_without_anomalies_few_normal_images_are_called_anomalous() -> None:
    rng = np.random.default_rng(3)
    classifier = calibration.fit_without_anomalies(rng.normal(10, 2, (100, 1)))
    assert not classifier.calibrated
    assert (classifier.probability(rng.normal(10, 2, (2000, 1))) > 0.5).mean() < 0.06
    assert (classifier.probability(np.full((1, 1), 20.0)) > 0.9).all()


def test_without_anomalies_the_higher_score_counts() -> None:
    rng = np.random.default_rng(4)
    means, spreads = np.array([10, 0.5]), np.array([2, 0.01])
    classifier = calibration.fit_without_anomalies(rng.normal(means, spreads, (100, 2)))
    assert (classifier.probability(rng.normal(means, spreads, (2000, 2))) > 0.5).mean() < 0.06
    assert (classifier.probability(means + np.diag(6 * spreads)) > 0.9).all()


@given(st.floats(0, 1))
def test_the_prediction_is_anomalous_exactly_above_one_half(probability: float) -> None:
    anomalous, confidence = predict(probability)
    assert anomalous == (probability > 0.5)
    assert confidence == (probability if anomalous else 1 - probability)
    assert 0.5 <= confidence <= 1


@given(st.floats(0, 1), st.floats(1e-6, 1 - 1e-6))
def test_the_confidence_is_that_of_the_verdict_whatever_the_threshold(
    probability: float, threshold: float
) -> None:
    anomalous, confidence = predict(probability, threshold)
    assert anomalous == (probability > threshold)
    assert 0.5 <= confidence <= 1
    higher, surer = predict(min(1.0, probability + 0.1), threshold)
    if higher == anomalous:
        assert surer >= confidence - 1e-12 if anomalous else surer <= confidence + 1e-12


def test_a_lower_threshold_is_as_if_anomalies_were_more_frequent() -> None:
    # With odds of 4:1 against, a likelihood ratio of 2 leaves 1:2; with even odds it is 2:1.
    assert predict(1 / 3, 0.2) == (True, pytest.approx(2 / 3))
