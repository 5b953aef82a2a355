from drawn_images import LabelledImages, TrainedModel

from airflow_provider_lookoutvision.engine import evaluate


def test_defects_are_found_on_held_out_images(segmenter: TrainedModel, held_out: LabelledImages) -> None:
    masks = [drawing.mask for drawing in held_out.drawings]
    evaluation = evaluate(segmenter.detector, held_out.images, held_out.labels, masks)
    assert evaluation.image_metrics.f1 >= 0.9
    assert evaluation.roc_auc >= 0.95
    assert evaluation.average_precision >= 0.95
    assert [metrics.name for metrics in evaluation.pixel_metrics] == ["scratch", "stain"]
    assert min(metrics.iou for metrics in evaluation.pixel_metrics) >= 0.3
    assert segmenter.report.calibrated
    assert segmenter.report.segmentation


def test_without_masks_defects_are_found_but_not_segmented(
    classifier: TrainedModel, held_out: LabelledImages
) -> None:
    evaluation = evaluate(classifier.detector, held_out.images, held_out.labels, held_out.no_masks)
    assert evaluation.image_metrics.f1 >= 0.9
    assert evaluation.pixel_metrics == ()
    detection = classifier.detector.detect(held_out.images[1])
    assert detection.class_mask is None
    assert detection.areas is None
