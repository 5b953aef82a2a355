import numpy as np

from airflow_provider_lookoutvision.engine import memory_bank


def test_distances_are_to_the_nearest_vector() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(5000, 12)).astype(np.float32)
    bank = rng.normal(size=(70, 12)).astype(np.float32)
    wanted = np.linalg.norm(vectors[:, None] - bank, axis=2).min(axis=1)
    np.testing.assert_allclose(memory_bank.nearest_distances(vectors, bank), wanted, rtol=1e-4)


def test_k_center_selects_outliers() -> None:
    rng = np.random.default_rng(1)
    crowd = rng.normal(0, 0.1, (2000, 8))
    outliers = np.eye(8) * 50
    chosen = memory_bank.k_center_greedy(np.concatenate([crowd, outliers]).astype(np.float32), 9, rng)
    assert memory_bank.nearest_distances(outliers.astype(np.float32), chosen).max() == 0


def test_k_center_selects_all_when_there_are_few() -> None:
    few = np.ones((3, 8), np.float32)
    assert memory_bank.k_center_greedy(few, 10, np.random.default_rng(0)) is few


def test_the_highest_scores_are_averaged() -> None:
    scores = np.arange(200, dtype=np.float32).reshape(10, 20)
    assert memory_bank.top_mean(scores, 0.01) == 198.5
    assert memory_bank.top_mean(scores[:1, :3], 0.01) == 2


def test_a_small_defect_on_a_large_image_is_not_averaged_away() -> None:
    large = np.zeros((160, 160), np.float32)
    large[80, 80:88] = 2
    assert memory_bank.top_mean(large) == 1
    assert memory_bank.top_mean(large, 0.01, large.size) == 16 / 256
