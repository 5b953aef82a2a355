import numpy as np

from airflow_provider_lookoutvision.engine import patches


def test_the_nearest_is_the_nearest() -> None:
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(5000, 12)).astype(np.float32)
    bank = generator.normal(size=(70, 12)).astype(np.float32)
    wanted = np.linalg.norm(vectors[:, None] - bank, axis=2).min(axis=1)
    np.testing.assert_allclose(patches.nearest(vectors, bank), wanted, rtol=1e-4)


def test_k_center_leaves_nothing_far_out() -> None:
    generator = np.random.default_rng(1)
    crowd = generator.normal(0, 0.1, (2000, 8))
    outliers = np.eye(8) * 50
    chosen = patches.k_center(np.concatenate([crowd, outliers]).astype(np.float32), 9, generator)
    assert patches.nearest(outliers.astype(np.float32), chosen).max() == 0


def test_k_center_keeps_all_when_there_are_few() -> None:
    few = np.ones((3, 8), np.float32)
    assert patches.k_center(few, 10, np.random.default_rng(0)) is few


def test_the_worst_patches_are_averaged() -> None:
    scores = np.arange(200, dtype=np.float32).reshape(10, 20)
    assert patches.worst(scores, 0.01) == 198.5
    assert patches.worst(scores[:1, :3], 0.01) == 2


def test_a_speck_on_a_large_image_is_not_averaged_away() -> None:
    large = np.zeros((160, 160), np.float32)
    large[80, 80:88] = 2
    assert patches.worst(large) == 1
    assert patches.worst(large, 0.01, large.size) == 16 / 256
