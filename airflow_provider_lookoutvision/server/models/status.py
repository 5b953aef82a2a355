"""The states of a model, and what its StatusMessage says in them."""

from __future__ import annotations

from enum import StrEnum


class ModelStatus(StrEnum):
    """The states of a model (the model's ``ModelStatus``) that this service uses."""

    TRAINING = "TRAINING"
    TRAINED = "TRAINED"
    TRAINING_FAILED = "TRAINING_FAILED"
    STARTING_HOSTING = "STARTING_HOSTING"
    HOSTED = "HOSTED"
    HOSTING_FAILED = "HOSTING_FAILED"
    STOPPING_HOSTING = "STOPPING_HOSTING"


IN_SERVICE = frozenset({ModelStatus.STARTING_HOSTING, ModelStatus.HOSTED, ModelStatus.STOPPING_HOSTING})

TRAINING_MESSAGE = "The model is being trained."
TRAINED_MESSAGE = "Training completed successfully."
UNCALIBRATED_MESSAGE = (
    f"{TRAINED_MESSAGE} There were too few labelled anomalies to learn from: Confidence is no probability."
)
