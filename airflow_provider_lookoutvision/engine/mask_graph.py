"""The parts of an exported graph that paint a mask: which classes, Pillow's arithmetic, a loop's body."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from airflow_provider_lookoutvision.engine.class_presence import LARGEST_IMAGE_LOGIT, ClassPresence
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


def present_classes(
    builder: GraphBuilder, presence: ClassPresence, logits: str, image_logit: str, class_count: int
) -> str:
    """What `ClassPresence.present` computes of `class_presence.scores`, `1 x classes x 1 x 1`.

    :param logits: the name of `1 x classes x rows x columns`
    :param image_logit: the name of a number in double precision
    """
    node = builder.node

    def double(name: str, value: Any) -> str:
        return builder.constant(f"presence.{name}", np.asarray(value, np.float64))

    def whole(name: str, *values: int) -> str:
        return builder.constant(f"presence.{name}", np.array(values, np.int64))

    def highest_other(values: str, candidates: str, name: str) -> str:
        two = [f"{name}.two", f"{name}.places"]
        builder.nodes.append(helper.make_node("TopK", [candidates, "presence.count"], two, axis=1))
        highest, second = f"{name}.highest", f"{name}.second"
        builder.nodes.append(helper.make_node("Split", [two[0], "presence.ones"], [highest, second], axis=1))
        is_highest = node("Equal", [values, highest], f"{name}.equal")
        return node("Where", [is_highest, second, highest], f"{name}.other")

    whole("count", 2)
    whole("ones", 1, 1)
    wide = node("Cast", [logits], "presence.logits", to=TensorProto.DOUBLE)
    # The background's logit is 0, and it is a competitor as the other classes are.
    edges = [whole("start", 0), whole("end", 1), whole("axis", 1)]
    background = node(
        "Mul", [node("Slice", [wide, *edges], "presence.slice"), double("zero", 0)], "presence.none"
    )
    everything = node("Concat", [wide, background], "presence.all", axis=1)
    others = highest_other(wide, everything, "presence.margin")
    margins = node("Sub", [wide, others], "presence.margins")
    peaks = node("ReduceMax", [margins], "presence.peaks", axes=[2, 3], keepdims=1)
    means = node("ReduceMean", [margins], "presence.means", axes=[2, 3], keepdims=1)
    gaps = peaks
    if class_count > 1:
        gaps = node("Sub", [peaks, highest_other(peaks, peaks, "presence.gap")], "presence.gaps")
    bounds = [double("least", -LARGEST_IMAGE_LOGIT), double("most", LARGEST_IMAGE_LOGIT)]
    image = node("Clip", [image_logit, *bounds], "presence.image")
    total = double("intercept", presence.intercept)
    for number, score in enumerate((peaks, means, gaps, image)):
        name = f"presence.{number}"
        mean, scale, coefficient = (
            double(f"{number}.{part}", getattr(presence, part)[number])
            for part in ("mean", "scale", "coefficients")
        )
        scaled = node("Div", [node("Sub", [score, mean], f"{name}.centred"), scale], f"{name}.scaled")
        weighed = node("Mul", [scaled, coefficient], f"{name}.weighed")
        total = node("Add", [total, weighed], f"{name}.total")
    return node("Greater", [total, double("boundary", 0)], "presence.present")


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
