"""EfficientNet-lite0 as an ONNX graph, with every batch normalisation folded into the convolution before it.

The input is one RGB image, unsigned bytes, `height x width x 3`, both sides multiples of 32. The outputs are
feature maps, `1 x channels x rows x columns`: `fine` at stride 8 (40 channels), `middle` at stride 16 (112
channels) and `coarse` at stride 32 (320 channels); and `summary`, 464 numbers for the whole image. The first
144 are its texture, generalised means of power 8 over an early layer at stride 8, close to the maximum. The
other 320 are its content, generalised means of power 4 of the magnitudes of `coarse`. Generalised-mean
pooling is by Radenovic et al. (2019), "Fine-tuning CNN Image Retrieval with No Human Annotation".

The network is the one of Tan and Le (2019), "EfficientNet: Rethinking Model Scaling for Convolutional Neural
Networks", in its lite variant (ReLU6, no squeeze-and-excitation), with TensorFlow's "SAME" padding.
"""

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from airflow_provider_lookoutvision.engine.onnx_graph import GraphBuilder
from airflow_provider_lookoutvision.engine.weights import Weights

FloatArray = NDArray[np.float32]

IMAGE = "image"
SUMMARY = "summary"
OPSET = 17
IR_VERSION = 9

# Of each stage: expansion, kernel, stride of the first block. The weights give the channels.
_STAGES = ((1, 3, 1), (6, 3, 2), (6, 5, 2), (6, 3, 2), (6, 5, 1), (6, 5, 2), (6, 3, 1))
# How many blocks the stages have; more in the larger networks of the family.
BLOCKS = (1, 2, 2, 3, 3, 4, 1)
LEVELS = ("fine", "middle", "coarse")
DETAIL = "detail"
_EPSILON = 1e-3
MEAN, SCALE = 127.0, 128.0


def block_strides() -> list[int]:
    """The stride of each block."""
    stages = zip(_STAGES, BLOCKS, strict=True)
    return [stride if number == 0 else 1 for (_, _, stride), count in stages for number in range(count)]


def folded(weights: Weights, name: str, norm: str) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The weight of a convolution, and what its batch normalisation makes of it: the gain and the bias."""
    gain = weights[f"{norm}.weight"] / np.sqrt(weights[f"{norm}.running_var"] + _EPSILON)
    return weights[f"{name}.weight"], gain, weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * gain


class _NetworkBuilder(GraphBuilder):
    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self.weights = weights

    def convolution(
        self,
        value: str,
        name: str,
        norm: str,
        *,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        scale: float = 1.0,
        activate: bool = True,
    ) -> str:
        weight, gain, bias = folded(self.weights, name, norm)
        weight = weight * (gain[:, None, None, None] * np.float32(scale))
        # "SAME" padding, for sides that the stride divides: an odd pixel goes to the right and the bottom.
        padding = kernel - stride if stride > 1 else kernel - 1
        before, after = padding // 2, padding - padding // 2
        output = self.node(
            "Conv",
            [value, self.constant(f"{name}.w", weight), self.constant(f"{name}.b", bias)],
            f"{name}.out",
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[before, before, after, after],
            group=groups,
        )
        return self.node("Clip", [output, "zero", "six"], f"{name}.relu") if activate else output

    def block(self, value: str, index: int, expansion: int, kernel: int, stride: int, output: str) -> str:
        prefix = f"_blocks.{index}"
        inner = value
        if expansion > 1:
            inner = self.convolution(inner, f"{prefix}._expand_conv", f"{prefix}._bn0")
        channels = self.weights[f"{prefix}._depthwise_conv.weight"].shape[0]
        inner = self.convolution(
            inner,
            f"{prefix}._depthwise_conv",
            f"{prefix}._bn1",
            kernel=kernel,
            stride=stride,
            groups=channels,
        )
        inner = self.convolution(inner, f"{prefix}._project_conv", f"{prefix}._bn2", activate=False)
        project = self.weights[f"{prefix}._project_conv.weight"]
        expand = self.weights.get(f"{prefix}._expand_conv.weight")
        keeps_channels = expand is not None and expand.shape[1] == project.shape[0]
        if stride == 1 and keeps_channels:
            return self.node("Add", [inner, value], output)
        return self.node("Identity", [inner], output)


def texture(blocks: Sequence[int] = BLOCKS) -> str:
    """The name of the map that the texture is pooled from: of the first block at stride 8."""
    return f"_blocks.{sum(blocks[:2])}._depthwise_conv.relu"


def add_detail(builder: GraphBuilder) -> str:
    """Add the map at stride 4, its cells put together by two times two: 96 channels at stride 8."""
    return builder.node("SpaceToDepth", [f"_blocks.{sum(BLOCKS[:2]) - 1}"], DETAIL, blocksize=2)


def build(weights: Weights, blocks: Sequence[int] = BLOCKS) -> onnx.ModelProto:
    """The graph from an image to its feature maps and summary.

    :param weights: as `weights.read` gives them
    :param blocks: of each stage, for another network of the family
    """
    builder = _NetworkBuilder(weights)
    builder.constant("zero", np.array(0, np.float32))
    builder.constant("six", np.array(6, np.float32))
    builder.constant("mean", np.array(MEAN, np.float32))
    builder.constant("first", np.array([0], np.int64))
    value = builder.node("Cast", [IMAGE], "image.float", to=TensorProto.FLOAT)
    # The mean is subtracted before the convolution, because its padding is zeros of the normalised image.
    value = builder.node("Sub", [value, "mean"], "image.centred")
    value = builder.node("Transpose", [value], "image.planes", perm=[2, 0, 1])
    value = builder.node("Unsqueeze", [value, "first"], "image.batch")
    value = builder.convolution(value, "_conv_stem", "_bn0", kernel=3, stride=2, scale=1 / SCALE)
    index = 0
    # The outputs are those of the last block at each resolution.
    ends = sum(blocks[:3]), sum(blocks[:5]), sum(blocks)
    taps = {end - 1: level for end, level in zip(ends, LEVELS, strict=True)}
    for (expansion, kernel, stride), count in zip(_STAGES, blocks, strict=True):
        for number in range(count):
            output = taps.get(index, f"_blocks.{index}")
            value = builder.block(value, index, expansion, kernel, stride if number == 0 else 1, output)
            index += 1
    parts = [builder.generalised_mean(texture(blocks), 3), builder.generalised_mean("coarse", 2)]
    builder.node("Concat", parts, SUMMARY, axis=1)
    return model(builder, "EfficientNet-lite0")


def model(builder: GraphBuilder, name: str) -> onnx.ModelProto:
    """A graph from `image` to `fine`, `middle`, `coarse` and `summary`, of nodes that compute them."""
    graph = helper.make_graph(
        builder.nodes,
        name,
        [helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, ["height", "width", 3])],
        [
            *(
                helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, None, None, None])
                for name in LEVELS
            ),
            helper.make_tensor_value_info(SUMMARY, TensorProto.FLOAT, [1, None]),
        ],
        builder.initializers,
    )
    result = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    result.ir_version = IR_VERSION
    onnx.checker.check_model(result)
    return result
