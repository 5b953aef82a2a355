"""Evaluates a detector on labelled images that it was not trained on, one at a time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from airflow_provider_lookoutvision.engine import masks as mask_images
from airflow_provider_lookoutvision.engine import metrics
from airflow_provider_lookoutvision.engine.detector import Detection, Detector
from airflow_provider_lookoutvision.engine.errors import Cancelled, UnusableDataset, UnusableImage
from airflow_provider_lookoutvision.engine.images import ImageSource, read_source
from airflow_provider_lookoutvision.engine.metrics import ClassificationMetrics, OperatingPoint, PixelMetrics


@dataclass(frozen=True)
class Evaluation:
    """Metrics over all images, and the prediction for each.

    :param image_metrics: of the predictions against the labels
    :param roc_auc: of the probabilities, 0 to 1
    :param average_precision: of the probabilities, 0 to 1
    :param pixel_metrics: of each class; empty when the model makes no masks or no anomalous image has one
    :param predictions: whether each image is anomalous, and the confidence in that, 0.5 to 1; in the given
        order
    :param operating_points: precision and recall over thresholds, the highest first; see
        `metrics.operating_points`
    """

    image_metrics: ClassificationMetrics
    roc_auc: float
    average_precision: float
    pixel_metrics: tuple[PixelMetrics, ...]
    predictions: tuple[tuple[bool, float], ...]
    operating_points: tuple[OperatingPoint, ...]


def evaluate(
    detector: Detector,
    images: Sequence[ImageSource],
    labels: Sequence[str],
    masks: Sequence[ImageSource | None],
    *,
    progress: Callable[[float, str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Evaluation:
    """Detect anomalies in every image, and compare.

    The mask of a normal image counts as all background. An anomalous image without a mask counts for the
    image metrics alone.

    :param images: JPEG or PNG files, each as bytes, as a path, or as a function that returns the bytes
    :param labels: "normal" or "anomaly", one for each image
    :param masks: a PNG file or None, one for each image
    :param progress: called with the fraction done, 0 to 1, and "evaluating"
    :param cancelled: called before each image; when it returns True, the evaluation stops
    :raises UnusableDataset: images or masks cannot be used; `faults` has an error for each
    :raises Cancelled: `cancelled` returned True
    """
    if not len(images) == len(labels) == len(masks):
        raise UnusableDataset("there must be one label and one mask, or None, for each image")
    pixels = metrics.PixelMetricsAccumulator([anomaly_class.name for anomaly_class in detector.classes])
    detections: list[Detection] = []
    faults: list[UnusableImage] = []
    has_masks = False
    for index, (source, label, mask) in enumerate(zip(images, labels, masks, strict=True)):
        if cancelled is not None and cancelled():
            raise Cancelled("the evaluation was cancelled")
        if progress is not None:
            progress(index / len(images), "evaluating")
        try:
            detection = detector.detect(read_source(source))
            has_masks |= _add_masks(pixels, detector, detection, label, mask)
        except UnusableImage as error:
            faults.append(error.with_index(index))
            continue
        detections.append(detection)
    if faults:
        raise UnusableDataset("images cannot be used", faults)
    anomalous = [label == "anomaly" for label in labels]
    probabilities = [detection.probability for detection in detections]
    return Evaluation(
        metrics.classification_metrics(anomalous, [detection.is_anomalous for detection in detections]),
        metrics.roc_auc(anomalous, probabilities),
        metrics.average_precision(anomalous, probabilities),
        pixels.compute() if has_masks else (),
        tuple((detection.is_anomalous, detection.confidence) for detection in detections),
        metrics.operating_points(anomalous, probabilities),
    )


def _add_masks(
    pixels: metrics.PixelMetricsAccumulator,
    detector: Detector,
    detection: Detection,
    label: str,
    mask: ImageSource | None,
) -> bool:
    """Add the masks of an image to the metrics; return whether it is anomalous and has one."""
    if detection.class_mask is None:
        return False
    height, width = detection.class_mask.shape
    if label == "normal":
        pixels.update(0 * detection.class_mask, detection.class_mask)
        return False
    if mask is None:
        return False
    true_mask = mask_images.decode(read_source(mask), detector.classes, width, height)
    pixels.update(true_mask, detection.class_mask)
    return True
