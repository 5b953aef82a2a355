"""Tries a detector on labelled images that it has not seen, one at a time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from airflow_provider_lookoutvision.engine import masks as mask_images
from airflow_provider_lookoutvision.engine import metrics
from airflow_provider_lookoutvision.engine.detector import Detection, Detector
from airflow_provider_lookoutvision.engine.errors import Cancelled, UnusableDataset, UnusableImage
from airflow_provider_lookoutvision.engine.metrics import ClassQuality, Quality
from airflow_provider_lookoutvision.engine.store import Source, read


@dataclass(frozen=True)
class Evaluation:
    """Figures over all images, and of each image the verdict and its confidence, in the order given.

    `classes` is empty when the model paints no masks or no anomalous image has one to compare with.
    """

    verdicts: Quality
    roc_auc: float
    average_precision: float
    classes: tuple[ClassQuality, ...]
    predictions: tuple[tuple[bool, float], ...]


def evaluate(
    detector: Detector,
    images: Sequence[Source],
    labels: Sequence[str],
    masks: Sequence[Source | None],
    *,
    progress: Callable[[float, str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Evaluation:
    """Detect in every image and compare.

    Normal images count as painted with background only; anomalous images without a mask count for the
    verdicts alone.

    :param images: as in `train`; so are `labels` ("normal" or "anomaly") and `masks`
    :raises UnusableDataset: images or masks cannot be used; `faults` names each
    :raises Cancelled: `cancelled` said True
    """
    if not len(images) == len(labels) == len(masks):
        raise UnusableDataset("there must be one label and one mask, or None, for each image")
    counts = metrics.PixelCounts([anomaly.name for anomaly in detector.classes])
    found: list[Detection] = []
    faults: list[UnusableImage] = []
    painted = False
    for index, (source, label, mask) in enumerate(zip(images, labels, masks, strict=True)):
        if cancelled is not None and cancelled():
            raise Cancelled("the evaluation was cancelled")
        if progress is not None:
            progress(index / len(images), "evaluating")
        try:
            detection = detector.detect(read(source))
            painted |= _count(counts, detector, detection, label, mask)
        except UnusableImage as error:
            faults.append(error.at(index))
            continue
        found.append(detection)
    if faults:
        raise UnusableDataset("images cannot be used", faults)
    truth = [label == "anomaly" for label in labels]
    probabilities = [detection.probability for detection in found]
    return Evaluation(
        metrics.verdicts(truth, [detection.is_anomalous for detection in found]),
        metrics.roc_auc(truth, probabilities),
        metrics.average_precision(truth, probabilities),
        counts.result() if painted else (),
        tuple((detection.is_anomalous, detection.confidence) for detection in found),
    )


def _count(
    counts: metrics.PixelCounts, detector: Detector, detection: Detection, label: str, mask: Source | None
) -> bool:
    if detection.class_mask is None:
        return False
    height, width = detection.class_mask.shape
    if label == "normal":
        counts.add(0 * detection.class_mask, detection.class_mask)
        return False
    if mask is None:
        return False
    counts.add(mask_images.decode(read(mask), detector.classes, width, height), detection.class_mask)
    return True
