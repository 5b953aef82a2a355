"""Hosted models: StartModel, StopModel, DetectAnomalies.

StartModel and StopModel write the desired state, and ``fleet`` starts and stops the replicas. The state
changes before the answer, because clients take any other state for a failure.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from airflow_provider_lookoutvision.server.calls.call import Call, Inference
from airflow_provider_lookoutvision.server.models.operations import find_model, resource_id, wrong_state
from airflow_provider_lookoutvision.server.models.status import IN_SERVICE, ModelStatus
from airflow_provider_lookoutvision.server.protocol.errors import (
    ResourceType,
    ServiceQuotaExceededException,
    ValidationException,
)
from airflow_provider_lookoutvision.server.storage.schema import lock, models
from airflow_provider_lookoutvision.server.tags import DEFAULT_THRESHOLD

STARTING_MESSAGE = "The model is being started."
HOSTED_MESSAGE = "The model is running"
STOPPING_MESSAGE = "The model is being stopped."
CONTENT_TYPES = ("image/jpeg", "image/png")
# What programs call them too; the content decides anyway.
_OTHER_NAMES = ("image/jpg", "image/pjpeg", "image/x-png")


def start_model(
    call: Call,
    *,
    project_name: str,
    model_version: str,
    min_inference_units: int,
    max_inference_units: int | None = None,
) -> dict[str, Any]:
    """Host a trained model with at least ``min_inference_units`` replicas."""
    model = find_model(call, project_name, model_version, lock=True)
    trained = model.status == ModelStatus.TRAINED
    if not trained and model.status != ModelStatus.HOSTING_FAILED:
        started = model.status in {ModelStatus.STARTING_HOSTING, ModelStatus.HOSTED}
        remedy = "to change its units, stop it first" if started else "only a trained model can be started"
        raise wrong_state(model, project_name, remedy)
    identity = resource_id(project_name, model.version)
    if max_inference_units is not None and max_inference_units < min_inference_units:
        raise ValidationException(
            f"MaxInferenceUnits is {max_inference_units}, less than MinInferenceUnits {min_inference_units}"
        )
    limit = call.settings.max_inference_units
    if max(min_inference_units, max_inference_units or 0) > limit:
        raise ServiceQuotaExceededException(
            f"A model has at most {limit} inference units, as many as the service's setting "
            "max_inference_units allows",
            quota_code="max_inference_units",
            resource_id=identity,
            resource_type=ResourceType.MODEL,
        )
    _check_machine(call, identity, max(min_inference_units, max_inference_units or 0))
    _update(
        call,
        model.id,
        status=ModelStatus.STARTING_HOSTING,
        status_message=STARTING_MESSAGE,
        # What the training has said, which is said again when the model is stopped.
        training_message=model.status_message if trained else model.training_message,
        hosting=models.c.hosting + 1,
        min_units=min_inference_units,
        max_units=max_inference_units,
    )
    call.changed(ResourceType.MODEL, identity, undoes="StopModel")
    return {"Status": ModelStatus.STARTING_HOSTING}


def stop_model(call: Call, *, project_name: str, model_version: str) -> dict[str, Any]:
    """Stop hosting a model, even one that is still being started."""
    model = find_model(call, project_name, model_version, lock=True)
    if model.status not in {ModelStatus.STARTING_HOSTING, ModelStatus.HOSTED}:
        raise wrong_state(model, project_name, "only a hosted model can be stopped")
    _update(call, model.id, status=ModelStatus.STOPPING_HOSTING, status_message=STOPPING_MESSAGE)
    call.changed(ResourceType.MODEL, resource_id(project_name, model.version), undoes="StartModel")
    return {"Status": ModelStatus.STOPPING_HOSTING}


def detect_anomalies(
    call: Call, *, project_name: str, model_version: str, body: bytes, content_type: str
) -> Inference:
    """Check that the model is hosted; the fleet then detects the anomalies."""
    if content_type.partition(";")[0].strip().lower() not in (*CONTENT_TYPES, *_OTHER_NAMES):
        raise ValidationException(
            f"The content-type must be one of the following. {', '.join(CONTENT_TYPES)}"
        )
    if not body:
        raise ValidationException("Body is empty; it must be a JPEG or PNG image")
    model = find_model(call, project_name, model_version)
    if model.status != ModelStatus.HOSTED:
        raise wrong_state(model, project_name, "start it, and wait until it is HOSTED")
    threshold = float(model.threshold or DEFAULT_THRESHOLD)
    return Inference(model.id, model.hosting, resource_id(project_name, model.version), body, threshold)


def _check_machine(call: Call, identity: str, units: int) -> None:
    """Check what all accounts together may have: models in service, and inference units at their most."""
    settings = call.settings
    if settings.max_hosted_models is None and settings.max_total_inference_units is None:
        return
    lock(call.connection, ("hosting",))
    most = sa.case((models.c.max_units > models.c.min_units, models.c.max_units), else_=models.c.min_units)
    hosted, reserved = call.connection.execute(
        sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(most), 0)).where(
            models.c.status.in_(IN_SERVICE)
        )
    ).one()
    for name, limit, wanted in (
        ("max_hosted_models", settings.max_hosted_models, hosted + 1),
        ("max_total_inference_units", settings.max_total_inference_units, int(reserved) + units),
    ):
        if limit is not None and wanted > limit:
            raise ServiceQuotaExceededException(
                f"The service hosts as much as its setting {name} allows to all accounts together: stop a "
                "model, ask for fewer inference units, or raise the setting",
                quota_code=name,
                resource_id=identity,
                resource_type=ResourceType.MODEL,
            )


def _update(call: Call, model_id: int, **values: Any) -> None:
    call.connection.execute(models.update().where(models.c.id == model_id).values(**values))
    call.effect.changed_hosting = True
