"""The memory banks as parts of an ONNX graph: the distances of patches, and the highest of them.

A bank sees the image at its working size, or at half of it, where the network runs once more.
"""

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from airflow_provider_lookoutvision.engine import backbone, network
from airflow_provider_lookoutvision.engine.calibration import StackedClassifier
from airflow_provider_lookoutvision.engine.feature_store import grid_shape
from airflow_provider_lookoutvision.engine.memory_bank import MemoryBank
from airflow_provider_lookoutvision.engine.onnx_graph import GraphBuilder, nodes_up_to, renamed

# The patches that are computed at once, which are all of them up to a side of 640.
_BAND_PATCHES = 8192
_HALF = "half."


def distance_maps(banks: Sequence[MemoryBank]) -> list[str]:
    """The names in the graph of the distances of all patches to each bank, `rows x columns` of its scale."""
    return [f"distances.{number}" for number in range(len(banks))]


def add_distances(
    builder: GraphBuilder, banks: Sequence[MemoryBank], network_model: onnx.ModelProto, size: tuple[int, int]
) -> None:
    """Add the distances of all patches to each bank.

    :param network_model: whose maps the graph has
    :param size: working width and height
    """
    maps = {False: _on_fine_grid(builder, "")}
    if any(bank.features.detail for bank in banks):
        network.add_detail(builder)
    if any(bank.features.half for bank in banks):
        _add_half(builder, network_model, size)
        maps[True] = _on_fine_grid(builder, _HALF)
    for bank, name in zip(banks, distance_maps(banks), strict=True):
        features = bank.features
        parts = [network.DETAIL] * features.detail + maps[features.half][: features.levels]
        seen = (size[0] // 2, size[1] // 2) if features.half else size
        _add_distances(builder, bank, parts, seen, name)


def add_highest(
    builder: GraphBuilder, banks: Sequence[MemoryBank], classifier: StackedClassifier, size: tuple[int, int]
) -> str:
    """Add the highest of each patch's distances, in standard deviations of normal images' scores; its name.

    :param size: working width and height
    """
    scaled = []
    parts = zip(distance_maps(banks), banks, classifier.mean, classifier.scale, strict=True)
    for name, bank, mean, scale in parts:
        numbers = [
            builder.constant(f"{name}.{part}", np.asarray(value, np.float32))
            for part, value in (("mean", mean), ("deviation", scale))
        ]
        centred = builder.node("Sub", [name, numbers[0]], f"{name}.centred")
        value = builder.node("Div", [centred, numbers[1]], f"{name}.scaled")
        scaled.append(_doubled(builder, value, size) if bank.features.half else value)
    return builder.node("Max", scaled, "map.logits")


def upsampled(builder: GraphBuilder, value: str, factor: int) -> str:
    """Add a map enlarged bilinearly; its name."""
    scale = builder.constant(f"{value}.factor", np.array([1, 1, factor, factor], np.float32))
    return builder.node(
        "Resize",
        [value, "", scale],
        f"{value}.upsampled",
        mode="linear",
        coordinate_transformation_mode="half_pixel",
    )


def _on_fine_grid(builder: GraphBuilder, prefix: str) -> list[str]:
    others = [upsampled(builder, prefix + level, factor) for level, factor in (("middle", 2), ("coarse", 4))]
    return [f"{prefix}fine", *others]


def _add_half(builder: GraphBuilder, network_model: onnx.ModelProto, size: tuple[int, int]) -> None:
    """Add the network's maps of the image at half its size, as `images.halved` makes it."""
    columns, rows = size[0] // 2, size[1] // 2
    cells = builder.constant("half.shape", np.array([rows, 2, columns, 2, 3], np.int64))
    value = builder.node("Cast", [network.IMAGE], "half.pixels", to=TensorProto.FLOAT)
    value = builder.node("Reshape", [value, cells], "half.cells")
    value = builder.node("ReduceMean", [value], "half.means", axes=[1, 3], keepdims=0)
    image = builder.node("Round", [value], "half.rounded")
    nodes = nodes_up_to(network_model.graph, backbone.LEVELS)
    builder.nodes.extend(renamed(nodes, {network.IMAGE: image}, _HALF))


def _doubled(builder: GraphBuilder, value: str, size: tuple[int, int]) -> str:
    """Add a map with each of its cells two times two times; its name."""
    rows, columns = grid_shape(size)
    for operator, name, shape in (
        ("Reshape", "cells", (rows // 2, 1, columns // 2, 1)),
        ("Expand", "copies", (rows // 2, 2, columns // 2, 2)),
        ("Reshape", "doubled", (rows, columns)),
    ):
        lengths = builder.constant(f"{value}.{name}.shape", np.array(shape, np.int64))
        value = builder.node(operator, [value, lengths], f"{value}.{name}")
    return value


def _add_distances(
    builder: GraphBuilder, bank: MemoryBank, maps: Sequence[str], size: tuple[int, int], output: str
) -> None:
    """Add the distances of all patches to a bank.

    :param maps: those of its features, on the fine grid of its scale
    :param size: width and height of the image at its scale
    """
    constant, node = builder.constant, builder.node
    # The squared distance of patch x to patch b of the bank is |x|^2 + (|b|^2 - 2 x.b): the term in brackets
    # is enough to find the nearest b.
    features = node("Concat", maps, f"{output}.patches", axis=1)
    if bank.scale is not None:
        inverse = constant(f"{output}.scale", (1 / bank.scale).reshape(1, -1, 1, 1))
        features = node("Mul", [features, inverse], f"{output}.standardised")
    first = constant(f"{output}.first", np.array([0], np.int64))
    planes = node("Squeeze", [features, first], f"{output}.planes")
    rows = node("Transpose", [planes], f"{output}.rows", perm=[1, 2, 0])
    factors = constant(f"{output}.bank", -2 * bank.patches.T)
    norms = constant(f"{output}.norms", np.einsum("ij,ij->i", bank.patches, bank.patches))
    # In bands of rows, because all distances of a large image would take a gigabyte.
    grid_rows, grid_columns = grid_shape(size)
    band_count = -(-grid_rows * grid_columns // _BAND_PATCHES)
    heights = [len(band) for band in np.array_split(np.arange(grid_rows), band_count)]
    bands = [f"{output}.band.{number}" for number in range(band_count)]
    lengths = constant(f"{output}.heights", np.array(heights, np.int64))
    builder.nodes.append(helper.make_node("Split", [rows, lengths], bands, axis=0))
    for band in bands:
        products = node("MatMul", [band, factors], f"{band}.products")
        terms = node("Add", [products, norms], f"{band}.terms")
        node("ReduceMin", [terms], f"{band}.nearest", axes=[2], keepdims=0)
    nearest = node("Concat", [f"{band}.nearest" for band in bands], f"{output}.nearest", axis=0)
    patch_norms = node("ReduceSumSquare", [rows], f"{output}.patch_norms", axes=[2], keepdims=0)
    total = node("Add", [patch_norms, nearest], f"{output}.squares")
    node("Sqrt", [node("Relu", [total], f"{output}.positive")], output)
