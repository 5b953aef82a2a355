"""A network that was trained on a dataset, as an ONNX graph: from an image to its logit and its places'.

    image         uint8   `height x width x 3`, RGB, of the model's working size
    tuned.logits  float   `1 x classes x height / 4 x width / 4`, of each class against the background
    tuned.score   float   the logit of the image, one number

`finetuning` trains it; nothing here needs torch. The decoder is a feature pyramid (Lin et al. 2017) whose
levels are summed at stride 4.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from airflow_provider_lookoutvision.engine import network
from airflow_provider_lookoutvision.engine.backbone import FloatArray
from airflow_provider_lookoutvision.engine.calibration import StackedClassifier
from airflow_provider_lookoutvision.engine.errors import UnusableArtifact
from airflow_provider_lookoutvision.engine.onnx_graph import GraphBuilder, foreign_parts, remove_unused
from airflow_provider_lookoutvision.engine.weights import Weights

LOGITS, SCORE = "tuned.logits", "tuned.score"
MAP_STRIDE = 4
# The last block at each of the strides 4, 8, 16 and 32; the channels of the decoder, and the groups of its
# normalisations; the power of the generalised means is 2 to the last of these.
TAPS = (2, 4, 10, 15)
WIDTH, GROUPS = 32, 4
MEAN_POWER_DOUBLINGS = 2
_EPSILON = 1e-5
_PREFIX = "tuned."
_TAP_NAMES = ("_blocks.2", "fine", "middle", "coarse")


@dataclass(frozen=True)
class TunedNetwork:
    """A trained network, and how its outputs are used.

    :param graph: as `build` makes it
    :param classifier: of two scores, the logit of the probability of the quick heads and the network's; None
        when the verdict is that of the quick heads alone
    :param paints: whether masks and anomaly maps are the network's, or else the patch head's
    """

    graph: onnx.ModelProto
    classifier: StackedClassifier | None
    paints: bool


def build(weights: Weights, decoder: Mapping[str, FloatArray], top_count: int) -> onnx.ModelProto:
    """The graph.

    :param weights: of the network, by the names that `weights.read` gives
    :param decoder: of the decoder and the image head, by the names that `finetuning` gives
    :param top_count: how many places of the map are averaged for the score
    """
    model = network.build(weights)
    builder = GraphBuilder()
    constant, node = builder.constant, builder.node

    def convolution(value: str, name: str, output: str, padding: int = 0) -> str:
        parts = [constant(f"{name}.{part}", decoder[f"{name}.{part}"]) for part in ("weight", "bias")]
        return node("Conv", [value, *parts], output, pads=[padding] * 4)

    def linear(value: str, name: str, output: str) -> str:
        parts = [constant(f"{name}.{part}", decoder[f"{name}.{part}"]) for part in ("weight", "bias")]
        return node("Gemm", [value, *parts], output, transB=1)

    constant("double", np.array([1, 1, 2, 2], np.float32))
    total = ""
    for level in reversed(range(len(TAPS))):
        lateral = convolution(_TAP_NAMES[level], f"laterals.{level}", f"lateral.{level}")
        if total:
            doubled = node(
                "Resize",
                [total, "", "double"],
                f"lateral.{level}.coarser",
                mode="linear",
                coordinate_transformation_mode="half_pixel",
            )
            lateral = node("Add", [doubled, lateral], f"lateral.{level}.sum")
        total = lateral
    constant("groups", np.array([1, GROUPS, -1], np.int64))
    constant("groups.ones", np.ones(GROUPS, np.float32))
    constant("groups.zeros", np.zeros(GROUPS, np.float32))
    for number in range(2):
        name = f"decoder.{number}"
        value = node("Relu", [total], f"{name}.in")
        value = convolution(value, f"convolutions.{number}", f"{name}.out", padding=1)
        shape = node("Shape", [value], f"{name}.shape")
        grouped = node("Reshape", [value, "groups"], f"{name}.groups")
        normal = node(
            "InstanceNormalization",
            [grouped, "groups.ones", "groups.zeros"],
            f"{name}.normal",
            epsilon=_EPSILON,
        )
        whole = node("Reshape", [normal, shape], f"{name}.whole")
        scale, shift = (
            constant(f"norms.{number}.{part}", decoder[f"norms.{number}.{part}"].reshape(1, -1, 1, 1))
            for part in ("weight", "bias")
        )
        scaled = node("Mul", [whole, scale], f"{name}.scaled")
        total = node("Add", [scaled, shift], f"{name}.shifted")
    logits = convolution(node("Relu", [total], "decoder.last"), "classes", LOGITS)
    pooled = node("Concat", [_mean(builder, tap) for tap in _TAP_NAMES], "pooled", axis=1)
    head = node(
        "Gemm",
        [
            pooled,
            constant("image.weight", decoder["image.weight"]),
            constant("image.bias", decoder["image.bias"]),
        ],
        "head",
        transB=1,
    )
    highest = node("ReduceMax", [logits], "any.highest", axes=[1], keepdims=1)
    powers = node("Exp", [node("Sub", [logits, highest], "any.below")], "any.powers")
    constant("axis.1", np.array([1], np.int64))
    sums = node("ReduceSum", [powers, "axis.1"], "any.sum", keepdims=1)
    anywhere = node("Add", [highest, node("Log", [sums], "any.log")], "any")
    constant("row", np.array([1, -1], np.int64))
    flat = node("Reshape", [anywhere, "row"], "any.row")
    constant("top.count", np.array([top_count], np.int64))
    builder.nodes.append(
        helper.make_node("TopK", [flat, "top.count"], ["top.values", "top.places"], sorted=0)
    )
    top = node("ReduceMean", ["top.values"], "top", axes=[1], keepdims=1)
    both = node("Concat", [head, top], "both", axis=1)
    mixed = linear(both, "mix", "mixed")
    constant("flat", np.array([-1], np.int64))
    node("Reshape", [mixed, "flat"], SCORE)
    model.graph.node.extend(builder.nodes)
    model.graph.initializer.extend(builder.initializers)
    del model.graph.output[:]
    model.graph.output.extend(
        [
            helper.make_tensor_value_info(
                LOGITS, TensorProto.FLOAT, [1, len(decoder["classes.bias"]), None, None]
            ),
            helper.make_tensor_value_info(SCORE, TensorProto.FLOAT, [1]),
        ]
    )
    remove_unused(model.graph)
    # So that it can be merged with another graph; the outputs have the prefix already.
    own = {network.IMAGE, "", LOGITS, SCORE}
    for value in [*model.graph.node, *model.graph.initializer]:
        if value.name and value.name not in own:
            value.name = _PREFIX + value.name
    for each in model.graph.node:
        for names in (each.input, each.output):
            names[:] = [name if name in own else _PREFIX + name for name in names]
    onnx.checker.check_model(model)
    return model


def _mean(builder: GraphBuilder, value: str) -> str:
    power = value
    for _ in range(MEAN_POWER_DOUBLINGS):
        power = builder.node("Mul", [power, power], f"{power}.power")
    mean = builder.node("ReduceMean", [power], f"{value}.pooled", axes=[2, 3], keepdims=0)
    least = builder.constant(f"{value}.least", np.array(1e-6, np.float32))
    root = builder.node("Add", [mean, least], f"{value}.positive")
    for _ in range(MEAN_POWER_DOUBLINGS):
        root = builder.node("Sqrt", [root], f"{root}.root")
    return root


def check(graph: onnx.ModelProto, class_count: int) -> None:
    """Refuse a graph that isn't of this form.

    :raises UnusableArtifact: its inputs, outputs or operators are others
    """
    inputs = [value.name for value in graph.graph.input]
    outputs = [value.name for value in graph.graph.output]
    classes = graph.graph.output[0].type.tensor_type.shape.dim[1].dim_value if outputs else 0
    if inputs != [network.IMAGE] or outputs != [LOGITS, SCORE] or classes != class_count:
        raise UnusableArtifact("the model's trained network has other inputs, outputs or classes")
    if foreign := foreign_parts(graph):
        raise UnusableArtifact(f"the model's trained network has {foreign}, which no network has")


def merge(whole: onnx.ModelProto, tuned: onnx.ModelProto) -> None:
    """Add the graph to another one that has the same input."""
    whole.graph.node.extend(tuned.graph.node)
    whole.graph.initializer.extend(tuned.graph.initializer)
