import pickle
from pathlib import Path

import numpy as np
import pytest

from airflow_provider_lookoutvision.engine import UnusableBackbone, backbone, weights
from airflow_provider_lookoutvision.engine.backbone import Backbone


def photo() -> np.ndarray:
    rows, columns = np.mgrid[0:64, 0:96]
    planes = [rows * 5 + columns * 3, rows * rows // 7 + columns, columns * columns // 11 + 2 * rows]
    return np.stack([plane % 256 for plane in planes], -1).astype(np.uint8)


# Of the implementation named below: numbers 0 to 5 of the texture and of the content, and the mean of each.
SUMMARY = {
    (0, 144): ([3.45825, 1.20771, 1.06071, 0.3038, 2.03529, 1.88947], 2.412989),
    (144, 464): ([2.66799, 3.28393, 1.80211, 1.96594, 3.41957, 6.43448], 2.892975),
}

# Channels 0 to 5 at row 1, column 1, and the mean of the magnitudes, of the blocks' outputs that the PyTorch
# implementation of the network (efficientnet-lite-pytorch) gives for `photo`, with its own weights in its own
# loader.
REFERENCE = {
    "fine": ([-1.81166, -8.60633, -3.07298, -13.54707, 6.53498, 4.11521], 8.361049),
    "middle": ([-0.97982, -3.81006, -4.3822, -1.62281, 7.27556, 1.51296], 5.194311),
    "coarse": ([2.24152, -1.83766, -0.37182, -1.24046, -2.79646, 5.99885], 2.543659),
}


@pytest.mark.parametrize("level", REFERENCE)
def test_the_features_are_those_of_the_reference_network(cache: Path, level: str) -> None:
    maps = getattr(Backbone(cache).features(photo()), level)
    values, magnitude = REFERENCE[level]
    np.testing.assert_allclose(maps[1, 1, :6], values, atol=2e-4)
    assert np.abs(maps).mean() == pytest.approx(magnitude, rel=1e-5)


@pytest.mark.parametrize("part", SUMMARY, ids=["texture", "content"])
def test_the_summary_is_of_the_reference_network_too(cache: Path, part: tuple[int, int]) -> None:
    numbers = Backbone(cache).features(photo()).summary[slice(*part)]
    values, mean = SUMMARY[part]
    np.testing.assert_allclose(numbers[:6], values, atol=1e-4)
    assert numbers.mean() == pytest.approx(mean, rel=1e-5)


def test_each_level_has_half_the_resolution_of_the_one_before(cache: Path) -> None:
    maps = Backbone(cache).features(photo())
    assert [level.shape for level in (maps.fine, maps.middle, maps.coarse)] == [
        (8, 12, 40),
        (4, 6, 112),
        (2, 3, 320),
    ]


def test_the_network_is_cached_and_a_damaged_copy_is_replaced(tmp_path: Path) -> None:
    first = backbone.load_graph(tmp_path)
    (cached,) = tmp_path.iterdir()
    content = cached.read_bytes()
    cached.write_bytes(content[:-1000])
    assert backbone.load_graph(tmp_path) == first
    assert cached.read_bytes() == content
    assert list(tmp_path.iterdir()) == [cached]


def test_a_file_with_another_digest_is_refused(tmp_path: Path) -> None:
    path = tmp_path / weights.FILE
    path.write_bytes(weights.find().read_bytes() + b"\0")
    with pytest.raises(UnusableBackbone, match="SHA-256"):
        weights.read(path)


def test_weights_that_name_a_function_are_refused_and_it_is_not_called(tmp_path: Path) -> None:
    witness = tmp_path / "called"

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (witness,)

    with pytest.raises(UnusableBackbone, match="no weights do"):
        weights.parse(pickle.dumps(Evil(), protocol=2))
    assert not witness.exists()


@pytest.mark.parametrize("content", [b"", b"\x80\x02.", pickle.dumps(1), b"not a pickle at all"])
def test_a_file_that_is_no_checkpoint_is_refused(content: bytes) -> None:
    with pytest.raises(UnusableBackbone):
        weights.parse(content)
