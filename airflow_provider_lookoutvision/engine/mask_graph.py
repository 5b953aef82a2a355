"""The part of an exported graph that interpolates a mask: Pillow's arithmetic, and the body of a loop."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from airflow_provider_lookoutvision.engine.onnx_graph import GraphBuilder


def band_body(planes: Sequence[str]) -> onnx.GraphProto:
    """The loop's body: one band of the mask, from the planes and weights of the graph around it."""
    builder = GraphBuilder()
    add = builder.node

    def here(part: str) -> str:
        return add("Gather", [f"mask.down.{part}", "band"], f"band.{part}", axis=0)

    first, second, before, after = (here(part) for part in ("first", "second", "before", "after"))
    highest, mask = "mask.zeros", "mask.background"
    for index, plane in enumerate(planes, start=1):
        name = f"band.{index}"
        weighed = [
            add("Mul", [add("Gather", [plane, at], f"{name}.{at}", axis=0), weight], f"{name}.{weight}")
            for at, weight in ((first, before), (second, after))
        ]
        total = add("Add", weighed, f"{name}.sum")
        values = add("Cast", [total], f"{name}.values", to=TensorProto.FLOAT)
        higher = add("Greater", [values, highest], f"{name}.higher")
        number = f"{name}.number"
        value = numpy_helper.from_array(np.full((1, 1), index, np.uint8), number)
        add("Constant", [], number, value=value)
        mask = add("Where", [higher, number, mask], f"{name}.mask")
        if index < len(planes):
            highest = add("Max", [values, highest], f"{name}.highest")
    add("Identity", ["going"], "goes.on")
    return helper.make_graph(
        builder.nodes,
        "band",
        [
            helper.make_tensor_value_info("band", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
        ],
        [
            helper.make_tensor_value_info("goes.on", TensorProto.BOOL, []),
            helper.make_tensor_value_info(mask, TensorProto.UINT8, [None, None]),
        ],
    )


def interpolation_taps(size: int, enlarged: int, band: int) -> dict[str, NDArray[Any]]:
    """Of each place in a line that is enlarged: the two it lies between, and how much each counts.

    As Pillow's bilinear `resize` has it, with a box for each band of so many places, whose bounds it keeps in
    single precision. (libImaging/Resample.c, `precompute_coeffs`)
    """
    first: list[NDArray[np.int64]] = []
    weights: list[NDArray[np.float64]] = []
    for start in range(0, enlarged, band):
        count = min(band, enlarged - start)
        bounds = [np.float32(place * size / enlarged) for place in (start, start + count)]
        scale = float(bounds[1] - bounds[0]) / count
        centres = float(bounds[0]) + (np.arange(count) + 0.5) * scale
        lowest = np.maximum(np.trunc(centres - 0.5), 0).astype(np.int64)
        beyond = np.minimum(np.trunc(centres + 1.5), size).astype(np.int64)
        tents = [
            np.where(lowest + step < beyond, np.maximum(1 - np.abs(lowest + step - centres + 0.5), 0), 0)
            for step in (0, 1)
        ]
        first.append(lowest)
        weights.append(np.stack(tents) / (tents[0] + tents[1]))
    lowest, both = np.concatenate(first), np.concatenate(weights, axis=1)
    return {
        "first": lowest,
        "second": np.minimum(lowest + 1, size - 1),
        "before": both[0],
        "after": both[1],
    }
