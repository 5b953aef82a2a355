"""The detection engine: trains anomaly detectors on labelled images, and runs them.

    report = train(images, labels, masks, classes, out)     # a folder with model.json and model.npz
    detector = load(out)
    detection = detector.detect(jpeg_or_png)                # prediction, confidence, mask, areas
    evaluation = evaluate(detector, images, labels, masks)  # on held-out images

Images are bytes, paths, or functions that return bytes, and are read one at a time. All errors are
subclasses of ``EngineError``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_lookoutvision.engine.custom_backbone import CustomBackbone
    from airflow_provider_lookoutvision.engine.dataset import Label
    from airflow_provider_lookoutvision.engine.detector import Detection, Detector, load
    from airflow_provider_lookoutvision.engine.errors import (
        Cancelled,
        EngineError,
        MissingDependency,
        UnusableArtifact,
        UnusableBackbone,
        UnusableDataset,
        UnusableImage,
    )
    from airflow_provider_lookoutvision.engine.evaluation import Evaluation, evaluate
    from airflow_provider_lookoutvision.engine.images import ImageSource
    from airflow_provider_lookoutvision.engine.masks import AnomalyClass
    from airflow_provider_lookoutvision.engine.model_selection import Hyperparameters, Trial
    from airflow_provider_lookoutvision.engine.onnx_export import Exported, export
    from airflow_provider_lookoutvision.engine.thorough import Effort, check_effort
    from airflow_provider_lookoutvision.engine.training import TrainingReport, train

# Imported when first used: a device that only decodes images has neither scikit-learn nor onnx.
_MODULES = {
    "AnomalyClass": "masks",
    "Cancelled": "errors",
    "CustomBackbone": "custom_backbone",
    "Detection": "detector",
    "Detector": "detector",
    "Effort": "thorough",
    "EngineError": "errors",
    "Evaluation": "evaluation",
    "Exported": "onnx_export",
    "Hyperparameters": "model_selection",
    "ImageSource": "images",
    "Label": "dataset",
    "MissingDependency": "errors",
    "TrainingReport": "training",
    "Trial": "model_selection",
    "UnusableArtifact": "errors",
    "UnusableBackbone": "errors",
    "UnusableDataset": "errors",
    "UnusableImage": "errors",
    "evaluate": "evaluation",
    "export": "onnx_export",
    "load": "detector",
    "check_effort": "thorough",
    "train": "training",
}

__all__ = [
    "AnomalyClass",
    "Cancelled",
    "CustomBackbone",
    "Detection",
    "Detector",
    "Effort",
    "EngineError",
    "Evaluation",
    "Exported",
    "Hyperparameters",
    "ImageSource",
    "Label",
    "MissingDependency",
    "TrainingReport",
    "Trial",
    "UnusableArtifact",
    "UnusableBackbone",
    "UnusableDataset",
    "UnusableImage",
    "check_effort",
    "evaluate",
    "export",
    "load",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
