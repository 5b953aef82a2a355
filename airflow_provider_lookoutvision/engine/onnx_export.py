"""A model as one ONNX graph that needs nothing but an ONNX runtime: from an image's pixels to the verdict.

What `Detector.detect` computes in numpy behind its session, the memory bank's and the patch head's scores,
the support vector machines, the stacked probability and the class mask, is computed by the graph itself:

    image        uint8    `rows x columns x 3`, RGB, the image resized to the model's working size
    probability  double   that the image is anomalous; anomalous where it is above 0.5
    anomaly_map  float    `rows / 8 x columns / 8`, 0 to 1; finer from a network that was trained
    class_mask   uint8    `height x width` of the original image, 0 for the background; only with classes

The mask is interpolated as Pillow interpolates it for the detector: in double precision, rounded to single
after each direction, with the same bands and their single-precision bounds. So the two agree in each pixel
and not only in most; the tests hold them to each other.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper
from PIL import Image

from airflow_provider_lookoutvision.engine import (
    artifact,
    backbone,
    bank_graph,
    detector,
    heads,
    images,
    mask_painting,
    memory_bank,
    network,
    tuned_network,
)
from airflow_provider_lookoutvision.engine.artifact import Model
from airflow_provider_lookoutvision.engine.calibration import LARGEST_LOGIT, StackedClassifier
from airflow_provider_lookoutvision.engine.custom_backbone import CustomBackbone
from airflow_provider_lookoutvision.engine.detector import Detector
from airflow_provider_lookoutvision.engine.errors import UnusableArtifact
from airflow_provider_lookoutvision.engine.image_heads import ImageHead
from airflow_provider_lookoutvision.engine.mask_graph import band_body, interpolation_taps, present_classes
from airflow_provider_lookoutvision.engine.masks import AnomalyClass
from airflow_provider_lookoutvision.engine.memory_bank import MemoryBank
from airflow_provider_lookoutvision.engine.onnx_graph import GraphBuilder

PROBABILITY, ANOMALY_MAP, CLASS_MASK = "probability", "anomaly_map", "class_mask"
STRIDE = 8
# Pixels of the mask that are interpolated in one go, so that what it takes stays in a processor's cache.
_PIXELS = 1 << 18
_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Exported:
    """What a runner of the graph must know.

    :param image_size: width and height, upright, of the images that the model was trained on
    :param input_size: of what the graph sees of them
    :param backbone: the user's network that it has; None for EfficientNet-lite0
    """

    image_size: tuple[int, int]
    input_size: tuple[int, int]
    classes: tuple[AnomalyClass, ...]
    calibrated: bool
    backbone: CustomBackbone | None


def export(folder: Path, out: Path, *, cache: Path | None = None) -> Exported:
    """Write the graph of the model in a folder into a file, after a trial beside the detector.

    A model's refinement of masks is left out, in the trial too.

    :param cache: folder for the network; the user's cache folder when None
    :raises UnusableArtifact: the folder holds no model that this version knows, or the graph finds anything
        else than the detector does
    """
    # The graph sees the image at its working size alone, so masks are not refined.
    model = replace(artifact.load(folder), refinement=None)
    whole = build(model, backbone.load_graph(cache, model.backbone))
    _try_out(model, whole, Detector(model, cache))
    out.write_bytes(whole.SerializeToString())
    calibrated = model.classifier.calibrated
    return Exported(model.image_size, model.working_size, model.classes, calibrated, model.backbone)


def _try_out(model: Model, whole: onnx.ModelProto, reference: Detector) -> None:
    width, height = model.image_size
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(noise).save(content, "PNG", compress_level=1)
    wanted = reference.detect(content.getvalue())
    session = backbone.create_session(whole)
    names = [output.name for output in session.get_outputs()]
    pixels = images.decode(content.getvalue(), *model.working_size).pixels
    found = dict(zip(names, session.run(names, {network.IMAGE: pixels}), strict=True))
    mask = found.get(CLASS_MASK)
    same = abs(float(found[PROBABILITY]) - wanted.probability) < _TOLERANCE and (
        mask is None
        if wanted.class_mask is None
        else mask is not None and np.array_equal(mask, wanted.class_mask)
    )
    if not same:
        raise UnusableArtifact("the exported graph does not find what the detector finds")


def build(model: Model, network_model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph of a model.

    :param network_model: as `backbone.load_graph` gives it
    """
    whole = detector.detection_graph(model, network_model)
    exporter = _Exporter(model)
    whole.graph.node.extend(exporter.nodes)
    whole.graph.initializer.extend(exporter.initializers)
    columns, rows = model.working_size
    del whole.graph.input[:]
    whole.graph.input.append(
        helper.make_tensor_value_info(network.IMAGE, TensorProto.UINT8, [rows, columns, 3])
    )
    del whole.graph.output[:]
    whole.graph.output.extend(exporter.outputs)
    whole.producer_name = "airflow-provider-lookoutvision"
    onnx.checker.check_model(whole)
    return whole


class _Exporter(GraphBuilder):
    """Adds to the detector's graph, whose outputs it reads by their names, what follows them."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self._model = model
        rows, columns = model.working_size[1] // STRIDE, model.working_size[0] // STRIDE
        self._cells = rows * columns
        self.outputs = [helper.make_tensor_value_info(PROBABILITY, TensorProto.DOUBLE, [])]
        tuned = model.tuned
        banks = model.heads.banks
        names = bank_graph.distance_maps(banks)
        scores = [self._bank_score(*each) for each in zip(names, banks, strict=True)]
        classifier = model.classifier
        if model.heads.patch is None:
            worst = bank_graph.add_highest(self, banks, classifier, model.working_size)
        else:
            worst = self._any_class("logits", "any")
            cells = self._cells
            scores.append(self._top_mean(worst, memory_bank.TOP_FRACTION, memory_bank.TOP_COUNT, cells))
            scores.append(self._top_mean(worst, heads.LARGE_DEFECT_FRACTION, cells, cells))
            scores += self._image_heads()
        logit = self._stack(classifier, scores[: len(classifier.mean)], "stack")
        if tuned is not None and tuned.classifier is not None:
            score = self._cast(tuned_network.SCORE, TensorProto.DOUBLE, "double")
            both = [self._clipped(logit, "stack.clipped", np.float64), score]
            both[0] = self.node("Reshape", [both[0], self._axes(-1)], "stack.row")
            logit = self._stack(tuned.classifier, both, "tuned.stack")
        self._logistic(logit, PROBABILITY, np.float64)
        painted = "logits"
        if model.tuned_paints:
            painted = tuned_network.LOGITS
            factor = STRIDE // tuned_network.MAP_STRIDE
            rows, columns = factor * rows, factor * columns
            worst = self._any_class(painted, "painted.any")
        self._logistic(worst, ANOMALY_MAP, np.float32)
        self.outputs.append(helper.make_tensor_value_info(ANOMALY_MAP, TensorProto.FLOAT, [rows, columns]))
        if model.heads.patch is not None and model.classes:
            self._class_mask(rows, columns, painted, logit)

    def _constant(self, name: str, value: Any, kind: Any) -> str:
        return self.constant(name, np.asarray(value, kind))

    def _float(self, name: str, value: Any) -> str:
        return self._constant(name, value, np.float32)

    def _double(self, name: str, value: Any) -> str:
        return self._constant(name, value, np.float64)

    def _cast(self, value: str, kind: int, suffix: str) -> str:
        return self.node("Cast", [value], f"{value}.{suffix}", to=kind)

    def _axes(self, *axes: int) -> str:
        name = "axes." + ".".join(map(str, axes))
        if all(constant.name != name for constant in self.initializers):
            self._constant(name, axes, np.int64)
        return name

    def _any_class(self, logits: str, name: str) -> str:
        """The logit of there being any class, `rows x columns`."""
        highest = self.node("ReduceMax", [logits], f"{name}.highest", axes=[1], keepdims=1)
        powers = self.node("Exp", [self.node("Sub", [logits, highest], f"{name}.below")], f"{name}.powers")
        total = self.node("ReduceSum", [powers, self._axes(1)], f"{name}.total", keepdims=1)
        logit = self.node("Add", [highest, self.node("Log", [total], f"{name}.log")], f"{name}.planes")
        return self.node("Squeeze", [logit, self._axes(0, 1)], f"{name}.map")

    def _top_mean(self, scores: str, part: float, most: int, cells: int) -> str:
        """What `memory_bank.top_mean` computes, as one single-precision number in double precision."""
        count = max(1, min(round(cells * part), most))
        name = f"{scores}.top.{count}"
        flat = self.node("Reshape", [scores, self._axes(-1)], f"{name}.flat")
        top = f"{name}.values"
        self.nodes.append(
            helper.make_node(
                "TopK",
                [flat, self._constant(f"{name}.count", [count], np.int64)],
                [top, f"{name}.places"],
                sorted=0,
            )
        )
        mean = self.node("ReduceMean", [self._cast(top, TensorProto.DOUBLE, "double")], name, keepdims=1)
        return self._score(mean)

    def _bank_score(self, name: str, bank: MemoryBank) -> str:
        cells = self._cells // 4 if bank.features.half else self._cells
        return self._top_mean(name, bank.features.fraction, bank.features.count or cells, cells)

    def _image_heads(self) -> list[str]:
        wide = self._cast(network.SUMMARY, TensorProto.DOUBLE, "double")
        scores, start = [], 0
        for place, head in enumerate(self._model.heads.images):
            length = len(head.mean)
            ends = [
                self._constant(f"image.{place}.{name}", [value], np.int64)
                for name, value in (("start", start), ("end", start + length))
            ]
            part = self.node("Slice", [wide, *ends, self._axes(1)], f"image.{place}.part")
            scores.append(self._score(self._image_head(f"image.{place}", head, part)))
            start += length
        return scores

    def _image_head(self, name: str, head: ImageHead, part: str) -> str:
        """The signed distance to the boundary of a support vector machine with a Gaussian kernel."""
        vectors = head.vectors.astype(np.float64)
        centred = self.node("Sub", [part, self._double(f"{name}.mean", head.mean)], f"{name}.centred")
        point = self.node("Div", [centred, self._double(f"{name}.scale", head.scale)], f"{name}.point")
        kept = self._double(f"{name}.vectors", -2 * vectors.T)
        products = self.node("MatMul", [point, kept], f"{name}.products")
        squared = self.node("Mul", [point, point], f"{name}.squared")
        length = self.node("ReduceSum", [squared, self._axes(1)], f"{name}.length", keepdims=1)
        lengths = self._double(f"{name}.lengths", (vectors**2).sum(axis=1))
        both = self.node("Add", [length, lengths], f"{name}.both")
        distances = self.node("Add", [both, products], f"{name}.distances")
        zero = self._double(f"{name}.zero", 0)
        positive = self.node("Max", [distances, zero], f"{name}.positive")
        scaled = self.node("Mul", [positive, self._double(f"{name}.gamma", -head.gamma)], f"{name}.scaled")
        kernel = self.node("Exp", [scaled], f"{name}.kernel")
        coefficients = self._double(f"{name}.coefficients", head.coefficients[:, None])
        weighed = self.node("MatMul", [kernel, coefficients], f"{name}.weighed")
        shifted = self.node(
            "Add", [weighed, self._double(f"{name}.intercept", head.intercept)], f"{name}.shifted"
        )
        return self.node("Reshape", [shifted, self._axes(-1)], name)

    def _score(self, value: str) -> str:
        # The detector keeps scores in single precision.
        return self._cast(self._cast(value, TensorProto.FLOAT, "single"), TensorProto.DOUBLE, "score")

    def _stack(self, classifier: StackedClassifier, scores: Sequence[str], name: str) -> str:
        """The logit that a stacked classifier has for some scores."""
        together = self.node("Concat", scores, f"{name}.scores", axis=0)
        mean, scale, coefficients = (
            self._double(f"{name}.{part}", getattr(classifier, part))
            for part in ("mean", "scale", "coefficients")
        )
        centred = self.node("Sub", [together, mean], f"{name}.centred")
        scaled = self.node("Div", [centred, scale], f"{name}.scaled")
        weighed = self.node("Mul", [scaled, coefficients], f"{name}.weighed")
        combine = "ReduceSum" if classifier.calibrated else "ReduceMax"
        total = self.node(combine, [weighed], f"{name}.total", keepdims=0)
        intercept = self._double(f"{name}.intercept", classifier.intercept)
        return self.node("Add", [total, intercept], f"{name}.logit")

    def _clipped(self, logits: str, name: str, kind: Any) -> str:
        bounds = [
            self._constant(f"{name}.{bound}", value, kind)
            for bound, value in (("least", -LARGEST_LOGIT), ("most", LARGEST_LOGIT))
        ]
        return self.node("Clip", [logits, *bounds], name)

    def _logistic(self, logits: str, output: str, kind: Any) -> None:
        clipped = self._clipped(logits, f"{output}.logits", kind)
        power = self.node("Exp", [self.node("Neg", [clipped], f"{output}.negative")], f"{output}.power")
        more = self.node("Add", [power, self._constant(f"{output}.one", 1, kind)], f"{output}.more")
        self.node("Reciprocal", [more], output)

    def _class_mask(self, rows: int, columns: int, logits: str, image_logit: str) -> None:
        """Interpolate the logits along the rows once, and along the columns in bands of the mask."""
        width, height = self._model.image_size
        band = min(height, max(16, _PIXELS // width))
        bands = -(-height // band)
        moved = self.node("Add", [logits, self._float("mask.offset", self._model.offset)], "mask.logits")
        if self._model.presence is not None:
            class_count = len(self._model.classes)
            present = present_classes(self, self._model.presence, logits, image_logit, class_count)
            absent = self._float("mask.absent", mask_painting.NOT_PAINTED)
            moved = self.node("Where", [present, moved, absent], "mask.present")
        wide = self._cast(moved, TensorProto.DOUBLE, "double")
        across = interpolation_taps(columns, width, width)
        rounded = self._between(wide, across, "mask.across", axis=3, shape=(1, 1, 1, width))
        planes = self._cast(rounded, TensorProto.DOUBLE, "double")
        classes = len(self._model.classes)
        names = [f"mask.plane.{index}" for index in range(classes)]
        self._constant("mask.ones", [1] * classes, np.int64)
        self.nodes.append(
            helper.make_node("Split", [planes, "mask.ones"], [f"{n}.4d" for n in names], axis=1)
        )
        for name in names:
            self.node("Squeeze", [f"{name}.4d", self._axes(0, 1)], name)
        down = interpolation_taps(rows, height, mask_painting.BAND_ROWS)
        for part, values in down.items():
            padded = np.pad(values, (0, bands * band - height), mode="edge")
            shape = (bands, band) if part in ("first", "second") else (bands, band, 1)
            self._constant(f"mask.down.{part}", padded.reshape(shape), padded.dtype)
        self._constant("mask.zeros", np.zeros((1, 1)), np.float32)
        self._constant("mask.background", np.zeros((1, 1)), np.uint8)
        self._constant("mask.bands", bands, np.int64)
        self._constant("mask.go", True, np.bool_)
        body = band_body(names)
        self.node("Loop", ["mask.bands", "mask.go"], "mask.banded", body=body)
        self._constant("mask.shape", [bands * band, width], np.int64)
        whole = self.node("Reshape", ["mask.banded", "mask.shape"], "mask.whole")
        ends = [
            self._constant(f"mask.{name}", [end], np.int64) for name, end in (("top", 0), ("end", height))
        ]
        self.node("Slice", [whole, *ends, self._axes(0)], CLASS_MASK)
        self.outputs.append(helper.make_tensor_value_info(CLASS_MASK, TensorProto.UINT8, [height, width]))

    def _between(
        self, value: str, taps: dict[str, NDArray[Any]], name: str, *, axis: int, shape: tuple[int, ...]
    ) -> str:
        weighed = []
        for place, weight in (("first", "before"), ("second", "after")):
            at = self._constant(f"{name}.{place}", taps[place], np.int64)
            taken = self.node("Gather", [value, at], f"{name}.{place}.values", axis=axis)
            factor = self._double(f"{name}.{weight}", taps[weight].reshape(shape))
            weighed.append(self.node("Mul", [taken, factor], f"{name}.{weight}.weighed"))
        total = self.node("Add", weighed, f"{name}.sum")
        return self._cast(total, TensorProto.FLOAT, "single")
