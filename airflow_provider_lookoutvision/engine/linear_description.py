"""A linear classifier of a few scores, as a model's description has it: written, and read with checks."""

from typing import Any

import numpy as np

from airflow_provider_lookoutvision.engine import class_presence
from airflow_provider_lookoutvision.engine.calibration import StackedClassifier
from airflow_provider_lookoutvision.engine.class_presence import ClassPresence
from airflow_provider_lookoutvision.engine.errors import UnusableArtifact


def describe(linear: StackedClassifier | ClassPresence) -> dict[str, Any]:
    """Its means, scales, coefficients and intercept."""
    return {
        "mean": linear.mean.tolist(),
        "scale": linear.scale.tolist(),
        "coefficients": linear.coefficients.tolist(),
        "intercept": linear.intercept,
    }


def read(description: dict[str, Any], length: int, what: str) -> dict[str, Any]:
    """The means, scales, coefficients and intercept of a classifier of so many scores.

    :param what: how to call it in the error
    :raises UnusableArtifact: it has other numbers of them, or they are not finite
    """
    arrays = {name: np.array(description[name], np.float64) for name in ("mean", "scale", "coefficients")}
    if any(each.shape != (length,) or not np.isfinite(each).all() for each in arrays.values()):
        raise UnusableArtifact(f"{what} is not one")
    return {**arrays, "intercept": float(description["intercept"])}


def read_presence(description: dict[str, Any]) -> ClassPresence | None:
    """What decides which classes are painted, of a description that may have it as `presence`.

    :raises UnusableArtifact: as `read`
    """
    if "presence" not in description:
        return None
    what = "what decides which classes the model paints"
    return ClassPresence(**read(description["presence"], class_presence.SCORES, what))
