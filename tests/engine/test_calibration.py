import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_lookoutvision.engine import calibration


def scores(generator: np.random.Generator, anomalous: np.ndarray) -> np.ndarray:
    useful = anomalous * 2.0 + generator.normal(size=len(anomalous))
    return np.stack([useful, 100 * generator.normal(size=len(anomalous)), -useful], axis=1)


def test_the_boundary_lies_between_the_kinds_whatever_their_shares() -> None:
    generator = np.random.default_rng(0)
    anomalous = np.arange(600) < 60
    stack = calibration.fit(scores(generator, anomalous), anomalous)
    fresh = scores(generator, np.arange(2000) < 1000)
    found = stack.probability(fresh) > 0.5
    assert found[:1000].mean() == pytest.approx(1 - found[1000:].mean(), abs=0.08)


def test_a_head_that_counts_backwards_is_left_out() -> None:
    anomalous = np.arange(300) < 150
    stack = calibration.fit(scores(np.random.default_rng(1), anomalous), anomalous)
    assert stack.coefficients[2] == 0
    assert stack.coefficients[0] > 0


def test_more_of_any_score_never_makes_an_image_less_anomalous() -> None:
    generator = np.random.default_rng(2)
    anomalous = np.arange(40) < 15
    stack = calibration.fit(scores(generator, anomalous), anomalous)
    point = generator.normal(size=(50, 3))
    assert (stack.probability(point + np.eye(3)[0]) >= stack.probability(point)).all()
    assert (stack.probability(point + np.eye(3)[2]) >= stack.probability(point)).all()


def test_without_anomalies_few_normal_images_are_called_anomalous() -> None:
    generator = np.random.default_rng(3)
    stack = calibration.fit_normal(generator.normal(10, 2, (100, 1)))
    assert not stack.calibrated
    assert (stack.probability(generator.normal(10, 2, (2000, 1))) > 0.5).mean() < 0.06
    assert (stack.probability(np.full((1, 1), 20.0)) > 0.9).all()


@given(st.floats(0, 1))
def test_the_verdict_is_anomalous_exactly_above_one_half(probability: float) -> None:
    anomalous, confidence = calibration.verdict(probability)
    assert anomalous == (probability > 0.5)
    assert confidence == (probability if anomalous else 1 - probability)
    assert 0.5 <= confidence <= 1
