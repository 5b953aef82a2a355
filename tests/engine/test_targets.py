import numpy as np

from airflow_provider_lookoutvision.engine import targets


def test_a_defect_smaller_than_a_patch_has_a_labelled_patch() -> None:
    covered = np.zeros((4, 5, 2), np.float32)
    covered[0, 0, 1], covered[0, 1, 1] = 0.3, 0.1
    covered[2:, 3, 0], covered[2:, 4, 0] = (0.9, 0.6), 0.4
    assert targets.patch_labels(covered).tolist() == [
        [2, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 1, -1],
        [0, 0, 0, 1, -1],
    ]
