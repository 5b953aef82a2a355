"""A pretrained network of no use but quick: three random convolutions, as an ONNX file with its JSON file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

DESCRIPTION: dict[str, Any] = {
    "name": "three-convolutions",
    "licence": "CC0-1.0",
    "mean": [0.5, 0.5, 0.5],
    "std": [0.25, 0.25, 0.25],
    "taps": [
        {"output": "eight", "stride": 8},
        {"output": "sixteen", "stride": 16},
        {"output": "thirty-two", "stride": 32},
    ],
}


def network(opset: int = 17, *, kind: int = TensorProto.FLOAT, shape: Any = (1, 3, None, None)) -> Any:
    """Maps of 12, 10 and 8 channels; the last is an output, and has been through an operator of another form
    in other opsets."""
    rng = np.random.default_rng(0)
    nodes, constants, value, channels = [], [], "image", 3
    for name, stride, width in (("eight", 8, 12), ("sixteen", 2, 10), ("wide", 2, 8)):
        weight = rng.normal(0, (channels * stride * stride) ** -0.5, (width, channels, stride, stride))
        constants.append(numpy_helper.from_array(weight.astype(np.float32), f"{name}.weight"))
        nodes.append(
            helper.make_node("Conv", [value, f"{name}.weight"], [f"{name}.out"], strides=[stride, stride])
        )
        nodes.append(helper.make_node("Relu", [f"{name}.out"], [name]))
        value, channels = name, width
    if opset < 18:
        nodes.append(helper.make_node("ReduceMean", ["wide"], ["mean"], axes=[1], keepdims=1))
    else:
        constants.append(numpy_helper.from_array(np.array([1], np.int64), "axes"))
        nodes.append(helper.make_node("ReduceMean", ["wide", "axes"], ["mean"], keepdims=1))
    nodes.append(helper.make_node("Sub", ["wide", "mean"], ["thirty-two"]))
    nodes.append(helper.make_node("GlobalAveragePool", ["wide"], ["not-needed"]))
    graph = helper.make_graph(
        nodes,
        "three convolutions",
        [helper.make_tensor_value_info("image", kind, shape)],
        [helper.make_tensor_value_info("thirty-two", kind, [1, 8, None, None])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def write(folder: Path, model: Any = None, **description: Any) -> Path:
    """The ONNX file in the folder, and the JSON file beside it."""
    path = folder / "tiny.onnx"
    onnx.save(network() if model is None else model, path)
    path.with_suffix(".json").write_text(json.dumps({**DESCRIPTION, **description}))
    return path
