from pathlib import Path

import numpy as np
import pytest
from drawn_images import LabelledImages
from PIL import Image

from airflow_provider_lookoutvision.engine.backbone import Backbone
from airflow_provider_lookoutvision.engine.feature_store import FeatureStore
from airflow_provider_lookoutvision.engine.images import decode


def test_large_features_are_kept_in_a_temporary_file(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, training_set: LabelledImages
) -> None:
    backbone, images = Backbone(cache, detail=True), training_set.images[:3]
    small = FeatureStore(backbone, images, (128, 192), 8, lambda _: None, tmp_path, half=True)
    monkeypatch.setattr("airflow_provider_lookoutvision.engine.feature_store._MAX_BYTES_IN_MEMORY", 0)
    with FeatureStore(backbone, images, (128, 192), 8, lambda _: None, tmp_path, half=True) as large:
        assert len(list(tmp_path.iterdir())) == 1
        for view in (0, 3):
            for level in ("fine", "middle", "coarse", "detail"):
                wanted = getattr(small.get(2, view), level)
                np.testing.assert_array_equal(getattr(large.get(2, view), level), wanted)
            halves = [store.get(2, view).half for store in (small, large)]
            for level in ("fine", "middle", "coarse"):
                np.testing.assert_array_equal(getattr(halves[0], level), getattr(halves[1], level))
        turned = large.get(2, 1)
        assert turned.half is not None
        assert turned.fine.shape == (16, 24, 40)
        assert turned.half.coarse.shape == (2, 3, 320)
    assert list(tmp_path.iterdir()) == []


def test_the_features_of_a_view_are_those_of_the_rotated_image(
    cache: Path, tmp_path: Path, training_set: LabelledImages
) -> None:
    backbone, image = Backbone(cache), training_set.images[0]
    store = FeatureStore(backbone, [image], (128, 96), 8, lambda _: None, tmp_path)
    rotated = np.asarray(Image.fromarray(decode(image, 128, 96).pixels).transpose(Image.Transpose.ROTATE_90))
    wanted = backbone.features(np.ascontiguousarray(rotated))
    np.testing.assert_allclose(store.get(0, 1).middle, wanted.middle, atol=0.05)
