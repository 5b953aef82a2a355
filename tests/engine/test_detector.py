import numpy as np
from PIL import Image

from airflow_provider_lookoutvision.engine.detector import class_mask


def test_the_class_mask_has_no_seams_and_gives_each_pixel_to_its_highest_class() -> None:
    logits = np.random.default_rng(0).normal(size=(20, 12, 3)).astype(np.float32)
    whole = np.stack(
        [
            np.asarray(Image.fromarray(plane).resize((90, 700), Image.Resampling.BILINEAR))
            for plane in np.ascontiguousarray(logits.transpose(2, 0, 1))
        ]
    )
    found = class_mask(logits, 90, 700)
    wanted = np.where(whole.max(axis=0) > 0, whole.argmax(axis=0) + 1, 0)
    # Where two classes are as good as equal, or one as good as zero, rounding decides.
    top = np.sort(np.concatenate([whole, np.zeros((1, 700, 90))]), axis=0)
    clear = top[-1] - top[-2] > 1e-4
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(found[clear], wanted[clear])
