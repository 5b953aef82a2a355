"""Detects anomalies in one image at a time.

The network, the memory bank and the patch head run as one ONNX graph, so that no feature map is copied to
Python and one thread pool does all the work. The graph computes the same as `heads.Heads` in numpy; a test
compares them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
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
    banding,
    bank_graph,
    calibration,
    images,
    network,
    refinement,
    tuned_network,
)
from airflow_provider_lookoutvision.engine.artifact import Model
from airflow_provider_lookoutvision.engine.backbone import Backbone, FloatArray
from airflow_provider_lookoutvision.engine.feature_store import grid_shape
from airflow_provider_lookoutvision.engine.mask_painting import class_mask, painted_logits
from airflow_provider_lookoutvision.engine.masks import AnomalyClass, ClassMask
from airflow_provider_lookoutvision.engine.onnx_graph import GraphBuilder, remove_unused
from airflow_provider_lookoutvision.engine.patch_head import any_class_logit
from airflow_provider_lookoutvision.engine.threshold import DEFAULT_THRESHOLD, predict


@dataclass(frozen=True)
class Detection:
    """The prediction for one image.

    :param is_anomalous: True exactly when `probability` is above the threshold, which is 0.5 unless another
        one was passed
    :param confidence: in this prediction, 0.5 to 1; see `threshold`
    :param probability: that the image is anomalous, 0 to 1, whatever the threshold
    :param anomaly_map: `rows x columns`, a score of 0 to 1 for each patch of 8 x 8 pixels of the working
        size, or of 4 x 4 from a network that was trained; the higher the more anomalous, and 0.5 is no
        threshold
    :param class_mask: `height x width` of the upright image; 0 is background, 1 the first class, and so on;
        None when the model was trained without masks
    :param image_size: width and height of the image, upright, in pixels
    :param areas: the fraction of the image, 0 to 1, of "background" and of each class; the sum is 1; None
        when the model was trained without masks
    """

    is_anomalous: bool
    confidence: float
    probability: float
    anomaly_map: FloatArray
    class_mask: ClassMask | None
    image_size: tuple[int, int]
    areas: dict[str, float] | None


class Detector:
    """A loaded model. Threads may share it: one image is then decoded while the network sees another.

    :param cache: folder for the network; the user's cache folder when None
    :param threads: of the network; as many as there are cores when None
    """

    def __init__(self, model: Model, cache: Path | None = None, threads: int | None = None) -> None:
        self._model = model
        graph = detection_graph(model, backbone.load_graph(cache, model.backbone))
        self._session = backbone.create_session(graph, threads)
        self._outputs = [output.name for output in self._session.get_outputs()]
        # Another session for windows: the graph of the whole image has its size in it.
        self._backbone = None if model.refinement is None else Backbone(cache, threads, model.backbone)

    @property
    def classes(self) -> tuple[AnomalyClass, ...]:
        """The classes of the mask; none when the model was trained without masks."""
        return self._model.classes

    @property
    def image_size(self) -> tuple[int, int]:
        """Width and height of the training images, upright, in pixels."""
        return self._model.image_size

    @property
    def calibrated(self) -> bool:
        """Whether the probabilities were fitted to labelled anomalies."""
        return self._model.classifier.calibrated

    def detect(self, content: bytes, threshold: float = DEFAULT_THRESHOLD) -> Detection:
        """Predict for one image, of any size.

        :param content: a JPEG or PNG file
        :param threshold: of the probability, between 0 and 1
        :raises UnusableImage: it is not a complete JPEG or PNG with sides of 64 to 4096 pixels
        """
        refined = self._model.refinement is not None
        image = images.decode(content, *self._model.working_size, keep_original=refined)
        values = self._session.run(self._outputs, {network.IMAGE: image.pixels})
        outputs: dict[str, Any] = dict(zip(self._outputs, values, strict=True))
        logits = outputs.get("logits")
        if logits is not None:
            logits = logits[0].transpose(1, 2, 0)
        distances = [outputs[name] for name in bank_graph.distance_maps(self._model.heads.banks)]
        summary = outputs[network.SUMMARY][0] if logits is not None else None
        scores = self._model.heads.image_scores(distances, logits, summary)
        classifier, tuned = self._model.classifier, self._model.tuned
        logit = float(classifier.logit(scores[None, : len(classifier.mean)])[0])
        if tuned is not None and tuned.classifier is not None:
            logit = float(tuned.classifier.logit(np.array([[logit, outputs[tuned_network.SCORE][0]]]))[0])
        probability = float(calibration.sigmoid(np.array(logit)))
        if self._model.tuned_paints:
            logits = outputs[tuned_network.LOGITS][0].transpose(1, 2, 0)
        anomalous, confidence = predict(probability, threshold)
        patch_logits = self._patch_logits(distances, logits)
        mask = areas = None
        if logits is not None and self._model.classes:
            painted = painted_logits(logits, self._model.offset, self._model.presence, logit)
            mask = class_mask(painted, image.width, image.height)
            self._refine(mask, patch_logits, logit, content, image.original)
            areas = self._areas(mask)
        return Detection(
            is_anomalous=anomalous,
            confidence=confidence,
            probability=probability,
            anomaly_map=calibration.sigmoid(patch_logits).astype(np.float32),
            class_mask=mask,
            image_size=(image.width, image.height),
            areas=areas,
        )

    def _refine(
        self,
        mask: ClassMask,
        patch_logits: NDArray[Any],
        image_logit: float,
        content: bytes,
        original: Image.Image | None,
    ) -> None:
        """Paint the suspicious places anew, from the image's own pixels."""
        refined = self._model.refinement
        # In an image of another size, defects have another size in windows than those that it was fitted to.
        if self._backbone is None or refined is None or mask.shape[::-1] != self.image_size:
            return
        places = refinement.windows(patch_logits, self.image_size, refined.window, refined.floor)
        if places:
            corners = [place.corner for place in places]
            parts = images.decode_parts(content, corners, refined.window, original)
            refined.paint(mask, parts, places, self._backbone, image_logit)

    def _patch_logits(self, distances: Sequence[FloatArray], logits: FloatArray | None) -> NDArray[Any]:
        """The log-odds of each patch being anomalous, `rows x columns`."""
        if logits is not None:
            return any_class_logit(logits)
        # 0.5 is the mean score of the normal images, that is, of their highest patches.
        classifier = self._model.classifier
        rows, columns = grid_shape(self._model.working_size)
        scaled = [
            np.kron((each - mean) / scale, np.ones((rows // each.shape[0], columns // each.shape[1])))
            for each, mean, scale in zip(distances, classifier.mean, classifier.scale, strict=True)
        ]
        highest: NDArray[Any] = np.max(scaled, axis=0)
        return highest

    def _areas(self, mask: ClassMask) -> dict[str, float]:
        names = ["background", *(anomaly_class.name for anomaly_class in self._model.classes)]
        counts = [np.count_nonzero(mask == index) for index in range(len(names))]
        return {name: count / mask.size for name, count in zip(names, counts, strict=True)}


def load(folder: Path, *, cache: Path | None = None, threads: int | None = None) -> Detector:
    """Load the model that `train` wrote into a folder.

    :param cache: folder for the network; the user's cache folder when None
    :param threads: of the network; as many as there are cores when None
    :raises UnusableArtifact: the folder has no model, or one that is damaged or of another version
    :raises UnusableBackbone: the network's weights are not installed or not the ones expected
    """
    return Detector(artifact.load(folder), cache, threads)


def detection_graph(model: Model, network_model: onnx.ModelProto) -> onnx.ModelProto:
    """The network, the memory banks and the patch head: an image in; distances, logits, the summary out."""
    builder = GraphBuilder()
    constant, node = builder.constant, builder.node

    banks = model.heads.banks
    bank_graph.add_distances(builder, banks, network_model, model.working_size)
    outputs: dict[str, list[int | None]] = {name: [None, None] for name in bank_graph.distance_maps(banks)}
    if model.heads.patch is not None:
        outputs[network.SUMMARY] = [1, sum(model.channels.summary)]
        head, parts, start = model.heads.patch, [], 0
        for factor, level, channels in zip((1, 2, 4), backbone.LEVELS, model.channels.maps, strict=True):
            weights = np.ascontiguousarray(head.weights[:, start : start + channels, None, None])
            part = node("Conv", [level, constant(f"{level}.head", weights)], f"{level}.logits")
            parts.append(part if factor == 1 else bank_graph.upsampled(builder, part, factor))
            start += channels
        total = node("Sum", parts, "logits.sum")
        node("Add", [total, constant("bias", head.bias[None, :, None, None])], "logits")
        outputs["logits"] = [1, len(head.bias), None, None]
    if model.tuned is not None:
        outputs |= {tuned_network.LOGITS: [1, None, None, None], tuned_network.SCORE: [1]}
    # The detail is of a layer before the map that bands end at.
    if model.backbone is None and not any(bank.features.detail for bank in banks):
        network_model = banding.in_bands(network_model, network.texture(), model.working_size)
    result = onnx.ModelProto()
    result.CopyFrom(network_model)
    result.graph.node.extend(builder.nodes)
    result.graph.initializer.extend(builder.initializers)
    if model.tuned is not None:
        tuned_network.merge(result, model.tuned.graph)
    del result.graph.output[:]
    result.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()
    )
    if model.heads.patch is None:
        remove_unused(result.graph)
    return result
