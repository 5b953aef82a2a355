"""The detection engine: from labelled images to a model in a folder, and from that to verdicts.

    report = train(images, labels, masks, classes, out)     # a folder with model.json and model.npz
    detector = load(out)
    detection = detector.detect(jpeg_or_png)                # verdict, confidence, masks, areas
    evaluation = evaluate(detector, images, labels, masks)  # on images that were held out

Images come as bytes, as paths, or as functions that return bytes, and are read one at a time: thousands of
them never sit in memory together. The engine knows no server, no database and no cloud; what goes wrong is an
`EngineError`.
"""

from airflow_provider_lookoutvision.engine.choosing import Recipe, Trial
from airflow_provider_lookoutvision.engine.dataset import Label
from airflow_provider_lookoutvision.engine.detector import Detection, Detector, load
from airflow_provider_lookoutvision.engine.errors import (
    Cancelled,
    EngineError,
    UnusableArtifact,
    UnusableBackbone,
    UnusableDataset,
    UnusableImage,
)
from airflow_provider_lookoutvision.engine.evaluation import Evaluation, evaluate
from airflow_provider_lookoutvision.engine.masks import AnomalyClass
from airflow_provider_lookoutvision.engine.store import Source
from airflow_provider_lookoutvision.engine.training import TrainingReport, train

__all__ = [
    "AnomalyClass",
    "Cancelled",
    "Detection",
    "Detector",
    "EngineError",
    "Evaluation",
    "Label",
    "Recipe",
    "Source",
    "TrainingReport",
    "Trial",
    "UnusableArtifact",
    "UnusableBackbone",
    "UnusableDataset",
    "UnusableImage",
    "evaluate",
    "load",
    "train",
]
