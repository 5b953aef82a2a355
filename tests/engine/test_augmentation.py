import numpy as np

from airflow_provider_lookoutvision.engine import augmentation


def test_the_eight_views_differ() -> None:
    array = np.arange(6).reshape(2, 3)
    views = [augmentation.transform(array, index) for index in range(augmentation.VIEWS)]
    assert len({(view.shape, view.tobytes()) for view in views}) == 8
    assert (views[0] == array).all()
