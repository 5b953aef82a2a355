"""Runs the first layers of the network on bands of a large image, one after the other, to need less memory.

These layers have the most pixels: of a square image with 1792 pixels a side they take 600 MB at once, all
others 100 MB. A band has as many more rows above and below as a result depends on, so the results are the
same numbers.
"""

import itertools

import numpy as np
import onnx

from airflow_provider_lookoutvision.engine.network import IMAGE
from airflow_provider_lookoutvision.engine.onnx_graph import GraphBuilder, nodes_up_to, renamed

_BAND_PIXELS, _MIN_ROWS = 1 << 19, 128
# The texture map is at stride 8, and depends on the image up to 17 pixels beyond a cell of it: by a kernel of
# 3 at stride 1, two of 3 at stride 2, one of 3 at stride 4 and one of 5 at stride 4.
_STRIDE, _OVERLAP = 8, 24


def in_bands(model: onnx.ModelProto, texture: str, size: tuple[int, int]) -> onnx.ModelProto:
    """The network for images of one size, in bands up to its texture map; unchanged for a small image.

    :param model: a network from `network.IMAGE` on, of which only later nodes use what is before the texture
    :param texture: the name of the map, see `network.texture`
    :param size: working width and height, multiples of 32
    """
    width, height = size
    count = min(width * height // _BAND_PIXELS, height // _MIN_ROWS)
    if count < 2:
        return model
    first = nodes_up_to(model.graph, {texture})
    builder = GraphBuilder()
    builder.constant("band.rows", np.array([0], np.int64))
    builder.constant("band.map_rows", np.array([2], np.int64))
    ends = [height // _STRIDE * number // count * _STRIDE for number in range(count + 1)]
    parts = []
    for number, (start, end) in enumerate(itertools.pairwise(ends)):
        top, bottom = max(0, start - _OVERLAP), min(height, end + _OVERLAP)
        prefix = f"band.{number}."
        band = _slice(builder, IMAGE, f"{prefix}image", top, bottom, "band.rows")
        builder.nodes.extend(renamed(first, {IMAGE: band}, prefix))
        rows = (start - top) // _STRIDE, (end - top) // _STRIDE
        parts.append(_slice(builder, prefix + texture, f"{prefix}rows", *rows, "band.map_rows"))
    builder.node("Concat", parts, texture, axis=2)
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:]
    done = {name for node in first for name in node.output}
    later = [node for node in model.graph.node if not done & set(node.output)]
    result.graph.node.extend([*builder.nodes, *later])
    result.graph.initializer.extend(builder.initializers)
    return result


def _slice(builder: GraphBuilder, value: str, output: str, start: int, end: int, axis: str) -> str:
    limits = [
        builder.constant(f"{output}.{name}", np.array([row], np.int64))
        for name, row in (("start", start), ("end", end))
    ]
    return builder.node("Slice", [value, *limits, axis], output)
