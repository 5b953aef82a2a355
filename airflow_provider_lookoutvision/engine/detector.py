"""Finds defects in one image at a time.

The network, the memory bank and the patch head run as one ONNX graph, so that nothing large crosses into
Python and one pool of threads does all the work. The graph computes what `heads.Heads` computes in numpy; the
tests hold them to each other.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from airflow_provider_lookoutvision.engine import artifact, backbone, calibration, images, network, supervised
from airflow_provider_lookoutvision.engine.artifact import Model
from airflow_provider_lookoutvision.engine.backbone import CHANNELS, SUMMARIES
from airflow_provider_lookoutvision.engine.masks import AnomalyClass, ClassMask
from airflow_provider_lookoutvision.engine.store import Array

# What is looked at in one go: rows of a mask; patches, and those of every side to 640.
_BAND, _PATCHES = 256, 8192


@dataclass(frozen=True)
class Detection:
    """What was found in an image.

    :param is_anomalous: the verdict; True exactly when `probability > 0.5`
    :param confidence: the probability of the stated verdict, 0.5 to 1
    :param probability: that the image is anomalous, 0 to 1
    :param score_map: `rows x columns`, 0 to 1, how defective each patch of 8 x 8 pixels of the working size
        looks; higher is worse, and 0.5 is no boundary
    :param class_mask: `height x width` of the image, upright; 0 is background, 1 the first class; None
        without masks
    :param image_size: width and height of the image, upright
    :param areas: of each class and of "background", the part of the image, in all 1; None without masks
    """

    is_anomalous: bool
    confidence: float
    probability: float
    score_map: Array
    class_mask: ClassMask | None
    image_size: tuple[int, int]
    areas: dict[str, float] | None


class Detector:
    """A loaded model.

    Safe to share between threads, which is also how to make the most of it: one image is decoded while
    another is in the network.
    """

    def __init__(self, model: Model, cache: Path | None = None, threads: int | None = None) -> None:
        self._model = model
        self._session = backbone.session(_graph(model, backbone.graph(cache)), threads)
        self._outputs = [output.name for output in self._session.get_outputs()]

    @property
    def classes(self) -> tuple[AnomalyClass, ...]:
        """The kinds of defects that are painted into the class mask; none when there were no masks."""
        return self._model.classes

    @property
    def image_size(self) -> tuple[int, int]:
        """Width and height, upright, of the images that it was trained on."""
        return self._model.image_size

    @property
    def calibrated(self) -> bool:
        """Whether probabilities were learnt from labelled anomalies."""
        return self._model.stack.calibrated

    def detect(self, content: bytes) -> Detection:
        """Look at one JPEG or PNG, whether or not it has the size of those that were learnt from.

        :raises UnusableImage: it is not a whole JPEG or PNG with sides of 64 to 4096 pixels
        """
        picture = images.decode(content, *self._model.size)
        answers = self._session.run(self._outputs, {network.IMAGE: picture.pixels})
        answer: dict[str, Any] = dict(zip(self._outputs, answers, strict=True))
        logits = answer.get("logits")
        if logits is not None:
            logits = logits[0].transpose(1, 2, 0)
        scores = self._model.heads.combine(answer["distances"], logits, answer[network.SUMMARY][0])
        stack = self._model.stack
        probability = float(stack.probability(scores[None, : len(stack.mean)])[0])
        anomalous, confidence = calibration.verdict(probability)
        mask = areas = None
        if logits is not None and self._model.classes:
            mask = class_mask(logits + self._model.offset, picture.width, picture.height)
            areas = self._areas(mask)
        return Detection(
            is_anomalous=anomalous,
            confidence=confidence,
            probability=probability,
            score_map=self._score_map(answer["distances"], logits),
            class_mask=mask,
            image_size=(picture.width, picture.height),
            areas=areas,
        )

    def _score_map(self, distances: Array, logits: Array | None) -> Array:
        if logits is not None:
            return _logistic(supervised.any_class(logits))
        # What normal images score at their worst patches is the middle.
        stack = self._model.stack
        return _logistic((distances - stack.mean[0]) / stack.scale[0])

    def _areas(self, mask: ClassMask) -> dict[str, float]:
        names = ["background", *(anomaly.name for anomaly in self._model.classes)]
        counts = [np.count_nonzero(mask == index) for index in range(len(names))]
        return {name: count / mask.size for name, count in zip(names, counts, strict=True)}


def load(folder: Path, *, cache: Path | None = None, threads: int | None = None) -> Detector:
    """A detector from the folder that `train` wrote.

    :param cache: folder for the network; the user's cache folder when None
    :param threads: of the network; as many as there are cores when None
    :raises UnusableArtifact: the folder holds no model that this version knows
    """
    return Detector(artifact.load(folder), cache, threads)


def _logistic(values: NDArray[Any]) -> Array:
    result: Array = (1 / (1 + np.exp(-np.clip(values, -30, 30)))).astype(np.float32)
    return result


def class_mask(logits: Array, width: int, height: int) -> ClassMask:
    """The class with the highest logit of each pixel of the image, where that is positive."""
    rows, columns, classes = logits.shape
    planes = [Image.fromarray(np.ascontiguousarray(logits[..., index])) for index in range(classes)]
    mask = np.empty((height, width), np.uint8)
    # In bands: as floats, a large mask of many classes would take gigabytes.
    for top in range(0, height, _BAND):
        band = mask[top : top + _BAND]
        box = (0, top * rows / height, columns, (top + len(band)) * rows / height)
        highest = np.zeros(band.shape, np.float32)
        band[:] = 0
        for index, plane in enumerate(planes, start=1):
            values = np.asarray(plane.resize((width, len(band)), Image.Resampling.BILINEAR, box))
            higher = values > highest
            band[higher] = index
            np.maximum(values, highest, out=highest)
    return mask


def _graph(model: Model, network_model: onnx.ModelProto) -> onnx.ModelProto:
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []

    def constant(name: str, value: NDArray[Any]) -> str:
        constants.append(numpy_helper.from_array(value, name))
        return name

    def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def enlarged(value: str, factor: int) -> str:
        scale = constant(f"{value}.factor", np.array([1, 1, factor, factor], np.float32))
        return node(
            "Resize",
            [value, "", scale],
            f"{value}.enlarged",
            mode="linear",
            coordinate_transformation_mode="half_pixel",
        )

    # Patches as rows: |x - b|^2 = |x|^2 + (|b|^2 - 2 x.b), of which only the bracket decides which b is
    # nearest.
    bank = model.heads.bank.patches
    both = node("Concat", ["fine", enlarged("middle", 2)], "patches", axis=1)
    planes = node("Squeeze", [both, constant("axis.0", np.array([0], np.int64))], "patches.planes")
    rows = node("Transpose", [planes], "patches.rows", perm=[1, 2, 0])
    kept, offsets = constant("bank", -2 * bank.T), constant("bank.lengths", np.einsum("ij,ij->i", bank, bank))
    # In bands: of a large image, the distances of every patch to every one kept would take a gigabyte.
    down, across = model.size[1] // 8, model.size[0] // 8
    heights = [len(band) for band in np.array_split(np.arange(down), -(-down * across // _PATCHES))]
    bands = [f"band.{place}" for place in range(len(heights))]
    constant("heights", np.array(heights, np.int64))
    nodes.append(helper.make_node("Split", [rows, "heights"], bands, axis=0))
    for band in bands:
        products = node("MatMul", [band, kept], f"{band}.products")
        brackets = node("Add", [products, offsets], f"{band}.brackets")
        node("ReduceMin", [brackets], f"{band}.nearest", axes=[2], keepdims=0)
    nearest = node("Concat", [f"{band}.nearest" for band in bands], "bank.nearest", axis=0)
    lengths = node("ReduceSumSquare", [rows], "patches.lengths", axes=[2], keepdims=0)
    squares = node("Relu", [node("Add", [lengths, nearest], "bank.squares")], "bank.positive")
    node("Sqrt", [squares], "distances")
    outputs: dict[str, list[int | None]] = {"distances": [None, None], network.SUMMARY: [1, sum(SUMMARIES)]}
    if model.heads.patch is not None:
        head, parts, start = model.heads.patch, [], 0
        for factor, level, channels in zip((1, 2, 4), backbone.LEVELS, CHANNELS, strict=True):
            weights = np.ascontiguousarray(head.weights[:, start : start + channels, None, None])
            part = node("Conv", [level, constant(f"{level}.head", weights)], f"{level}.logits")
            parts.append(part if factor == 1 else enlarged(part, factor))
            start += channels
        total = node("Sum", parts, "logits.sum")
        node("Add", [total, constant("bias", head.bias[None, :, None, None])], "logits")
        outputs["logits"] = [1, len(head.bias), None, None]
    whole = onnx.ModelProto()
    whole.CopyFrom(network_model)
    whole.graph.node.extend(nodes)
    whole.graph.initializer.extend(constants)
    del whole.graph.output[:]
    whole.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()
    )
    return whole
