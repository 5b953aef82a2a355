import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from airflow_provider_lookoutvision.engine import backbone, banding, network

TEXTURE = network.texture()


def photo(width: int, height: int) -> np.ndarray:
    small = np.random.default_rng(1).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return small.repeat(8, 0).repeat(8, 1)


@pytest.mark.parametrize("size", [(1280, 1056), (672, 2336), (3616, 320)])
def test_bands_give_the_same_numbers(cache: Path, size: tuple[int, int]) -> None:
    whole = backbone.load_graph(cache)
    banded = banding.in_bands(whole, TEXTURE, size)
    assert sum(node.op_type == "Slice" for node in banded.graph.node) >= 4
    image = {network.IMAGE: photo(*size)}
    found, wanted = (backbone.create_session(graph, 1).run(None, image) for graph in (banded, whole))
    for mine, its in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(mine, its)


@pytest.mark.parametrize("size", [(224, 224), (896, 896), (4096, 224)])
def test_small_and_low_images_are_seen_at_once(cache: Path, size: tuple[int, int]) -> None:
    whole = backbone.load_graph(cache)
    assert banding.in_bands(whole, TEXTURE, size) is whole


def test_a_large_image_takes_less_than_half_of_the_memory(cache: Path) -> None:
    def kilobytes(in_bands: bool) -> int:
        code = f"""
import numpy
import re
from pathlib import Path
from airflow_provider_lookoutvision.engine import backbone, banding, network
graph = backbone.load_graph(Path({str(cache)!r}))
if {in_bands}:
    graph = banding.in_bands(graph, network.texture(), (1792, 1792))
session = backbone.create_session(graph, 1)
def most():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before = most()
session.run(None, {{network.IMAGE: numpy.zeros((1792, 1792, 3), numpy.uint8)}})
print(most() - before)
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert kilobytes(True) < kilobytes(False) / 2
