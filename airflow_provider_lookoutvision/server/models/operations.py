"""Models: CreateModel, DescribeModel, ListModels, DeleteModel.

CreateModel queues a training on the project's datasets as they are (``training_entries``), which ``trainer``
runs. The operations of hosted models are in ``hosting``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from airflow_provider_lookoutvision.server.calls.access import Caller
from airflow_provider_lookoutvision.server.calls.call import Call
from airflow_provider_lookoutvision.server.datasets.operations import (
    IN_PROGRESS,
    DatasetStatus,
    check_bucket,
    find_dataset,
    not_usable,
)
from airflow_provider_lookoutvision.server.models.evaluation import manifest_key, result_key
from airflow_provider_lookoutvision.server.models.status import IN_SERVICE, TRAINING_MESSAGE, ModelStatus
from airflow_provider_lookoutvision.server.models.training_entries import (
    TRAIN_JOB,
    WAITING_JOB,
    queue_training,
    waiting_message,
)
from airflow_provider_lookoutvision.server.projects import find_project
from airflow_provider_lookoutvision.server.protocol.errors import (
    ConflictException,
    ResourceNotFoundException,
    ResourceType,
    ServiceQuotaExceededException,
    ValidationException,
)
from airflow_provider_lookoutvision.server.settings import NOT_WITH_A_BACKBONE, TORCH_MISSING, has_torch
from airflow_provider_lookoutvision.server.storage.buckets import is_key
from airflow_provider_lookoutvision.server.storage.schema import (
    datasets,
    lock,
    model_artifacts,
    model_tags,
    projects,
    training_entries,
)
from airflow_provider_lookoutvision.server.storage.schema import jobs as jobs_table
from airflow_provider_lookoutvision.server.storage.schema import models as table
from airflow_provider_lookoutvision.server.tags import DEFAULT_THRESHOLD, EFFORT, threshold_of_model
from airflow_provider_lookoutvision.server.tags import put as put_tags

LATEST = "latest"
_MAX_KEY_LENGTH = 1024


def create_model(
    call: Call,
    *,
    project_name: str,
    output_config: Mapping[str, Any],
    description: str | None = None,
    kms_key_id: str | None = None,
    tags: Sequence[Mapping[str, str]] = (),
) -> dict[str, Any]:
    """Train the project's next version by a job, on its datasets as they are, or will be when imported."""
    project = find_project(call, project_name, lock=True)
    output = output_config["S3Location"]
    bucket, prefix = output["Bucket"], output.get("Prefix", "")
    check_bucket(call.caller, call.operation, bucket)
    if tags:
        call.caller.authorize("TagResource", project_name)
    sources = _sources(call, project)
    awaited = [dataset for dataset in sources if dataset.status in IN_PROGRESS]
    if call.effect.replaces is not None:
        _delete_failed(call, project, call.effect.replaces)
    _check_quota(call, project_name)
    version = call.connection.execute(
        projects.update()
        .where(projects.c.id == project.id)
        .values(last_model_version=projects.c.last_model_version + 1)
        .returning(projects.c.last_model_version)
    ).scalar_one()
    key = manifest_key(prefix, project_name, version)
    if len(key) > _MAX_KEY_LENGTH:
        raise ValidationException(
            f"The evaluation would be written to a key of {len(key)} characters, and S3 has at most "
            f"{_MAX_KEY_LENGTH}: choose a shorter Prefix"
        )
    if not is_key(key):
        raise ValidationException(f"The Prefix {prefix!r} has a part that is no name: . or ..")
    model_id = call.connection.execute(
        table.insert()
        .values(
            project_id=project.id,
            version=version,
            status=ModelStatus.TRAINING,
            status_message=waiting_message(awaited) if awaited else TRAINING_MESSAGE,
            description=description,
            output_bucket=bucket,
            output_prefix=prefix,
            kms_key_id=kms_key_id,
            created_at=call.now,
            hosting=0,
        )
        .returning(table.c.id)
    ).scalar_one()
    put_tags(call.connection, model_id, tags)
    _check_effort(call, tags)
    queue_training(call, model_id, sources)
    call.created(ResourceType.MODEL, resource_id(project_name, version))
    return {"ModelMetadata": _metadata(call.caller, project_name, find_model(call, project_name, version))}


def describe_model(call: Call, *, project_name: str, model_version: str) -> dict[str, Any]:
    """A model's state, performance and output."""
    model = find_model(call, project_name, model_version)
    prefix, bucket = model.output_prefix, model.output_bucket
    members = {
        **_metadata(call.caller, project_name, model),
        "OutputConfig": {"S3Location": {"Bucket": bucket, "Prefix": prefix}},
        "KmsKeyId": model.kms_key_id,
    }
    if model.evaluated_at is not None:
        place = (prefix, project_name, model.version)
        members |= {
            "EvaluationManifest": {"Bucket": bucket, "Key": manifest_key(*place)},
            "EvaluationResult": {"Bucket": bucket, "Key": result_key(*place)},
            "EvaluationEndTimestamp": model.evaluated_at,
        }
    if model.status in IN_SERVICE:
        members |= {"MinInferenceUnits": model.min_units, "MaxInferenceUnits": model.max_units}
    return {"ModelDescription": members}


def list_models(
    call: Call, *, project_name: str, next_token: str | None = None, max_results: int | None = None
) -> dict[str, Any]:
    """The project's models, the oldest first."""
    project = find_project(call, project_name)
    page = call.page(["ListModels", project.id], next_token, max_results)
    query = sa.select(table, threshold_of_model()).where(table.c.project_id == project.id)
    query = query.order_by(table.c.version)
    if page.after is not None:
        query = query.where(table.c.version > page.after)
    rows, following = page.cut(call.connection.execute(query.limit(page.size + 1)).all(), "version")
    return {"Models": [_metadata(call.caller, project_name, row) for row in rows], "NextToken": following}


def delete_model(call: Call, *, project_name: str, model_version: str) -> dict[str, Any]:
    """Delete a model that isn't hosted, before the answer; its training is cancelled.

    The trainer finds that its job was deleted, and ends the training process.
    """
    model = find_model(call, project_name, model_version)
    # The job before its model, in the order of the trainer: otherwise they could deadlock.
    of_model = sa.and_(jobs_table.c.kind.in_([TRAIN_JOB, WAITING_JOB]), jobs_table.c.subject_id == model.id)
    call.connection.execute(jobs_table.delete().where(of_model))
    model = find_model(call, project_name, model_version, lock=True)
    if model.status in IN_SERVICE:
        raise wrong_state(model, project_name, "stop it before it is deleted")
    _delete(call.connection, model.id)
    call.deleted(ResourceType.MODEL, resource_id(project_name, model.version))
    return {"ModelArn": arn(call.caller, project_name, model.version)}


def find_model(call: Call, project_name: str, version: str | int, *, lock: bool = False) -> sa.Row[Any]:
    """The model of the caller's project; ``latest`` is the highest version that exists.

    :raises ResourceNotFoundException: when there is no such project, or it has no such model.
    """
    project = find_project(call, project_name)
    query = sa.select(table, threshold_of_model()).where(table.c.project_id == project.id)
    if version == LATEST:
        query = query.order_by(table.c.version.desc()).limit(1)
    else:
        # A well-formed version may be larger than any version, and than an integer of the database.
        exists = int(version) <= project.last_model_version
        query = query.where(table.c.version == int(version) if exists else sa.false())
    model = call.connection.execute(query.with_for_update(of=table) if lock else query).one_or_none()
    if model is None:
        raise ResourceNotFoundException(
            f"The project {project_name!r} has no model {version!r}"
            if version != LATEST
            else f"The project {project_name!r} has no models",
            resource_id=resource_id(project_name, version),
            resource_type=ResourceType.MODEL,
        )
    return model


def resource_id(project_name: str, version: str | int) -> str:
    """The ID of a model in errors and tokens."""
    return f"{project_name}/{version}"


def arn(caller: Caller, project_name: str, version: int) -> str:
    """A model's ARN."""
    return caller.arn(f"model/{project_name}/{version}")


def wrong_state(model: sa.Row[Any], project_name: str, remedy: str) -> ConflictException:
    """The error for a call that the model's state forbids."""
    return ConflictException(
        f"The model {model.version} of project {project_name!r} is {model.status}: {remedy}",
        resource_id=resource_id(project_name, model.version),
        resource_type=ResourceType.MODEL,
    )


def _metadata(caller: Caller, project_name: str, model: sa.Row[Any]) -> dict[str, Any]:
    trained = model.evaluated_at is not None
    performance = {"F1Score": model.f1, "Recall": model.recall, "Precision": model.precision}
    return {
        "CreationTimestamp": model.created_at,
        "ModelVersion": str(model.version),
        "ModelArn": arn(caller, project_name, model.version),
        "Description": model.description,
        "Status": model.status,
        "StatusMessage": _status_message(model),
        "Performance": performance if trained else None,
    }


def _check_effort(call: Call, tags: Sequence[Mapping[str, str]]) -> None:
    """Refuse at once what the worker beside this process can't do; others find it out themselves."""
    thorough = any(tag["Key"] == EFFORT and tag["Value"] == "thorough" for tag in tags)
    if thorough and call.settings.backbone is not None:
        raise ValidationException(f"{EFFORT}: {NOT_WITH_A_BACKBONE}: {call.settings.backbone.name}")
    if thorough and call.settings.worker and not has_torch():
        raise ValidationException(f"{EFFORT}: {TORCH_MISSING}")


def _status_message(model: sa.Row[Any]) -> str:
    message = str(model.status_message)
    if model.evaluated_at is None or model.threshold is None:
        return message
    end = "" if message.endswith(".") else "."
    return f"{message}{end} Its threshold is {model.threshold} instead of {DEFAULT_THRESHOLD}."


def _sources(call: Call, project: sa.Row[Any]) -> Sequence[sa.Row[Any]]:
    """The datasets to train on, locked until the call ends.

    :raises ResourceNotFoundException: when there is no training dataset.
    :raises ConflictException: when the import of one has failed.
    """
    query = datasets.select().where(datasets.c.project_id == project.id).with_for_update()
    found = call.connection.execute(query.order_by(datasets.c.id)).all()
    if all(dataset.type != "train" for dataset in found):
        find_dataset(call, project.name, "train")
    for dataset in found:
        if dataset.status == DatasetStatus.CREATE_FAILED:
            raise not_usable(dataset, project.name)
    return found


def _check_quota(call: Call, project_name: str) -> None:
    """Count the trainings of the account, in all regions since a caller may name any, and of all accounts."""
    lock(call.connection, ("trainings",))
    training = (
        sa.select(sa.func.count())
        .select_from(table.join(projects, projects.c.id == table.c.project_id))
        .where(table.c.status == ModelStatus.TRAINING)
    )
    of_account = training.where(projects.c.account_id == call.caller.account_id)
    for name, query, whose in (
        ("max_trainings", of_account, "this account trains as many models"),
        ("max_total_trainings", training, "the accounts of this service train as many models"),
    ):
        limit = getattr(call.settings, name)
        if limit is not None and call.connection.execute(query).scalar_one() >= limit:
            raise ServiceQuotaExceededException(
                f"At most {limit}: {whose} as the service's setting {name} allows, in all regions together: "
                "wait until one is trained, or raise the setting",
                quota_code=name,
                resource_id=project_name,
                resource_type=ResourceType.PROJECT,
            )


def _delete_failed(call: Call, project: sa.Row[Any], failed: str) -> None:
    project_name, _, version = failed.rpartition("/")
    if project_name != project.name:
        return  # the token failed in another project
    query = sa.select(table.c.id).where(
        table.c.project_id == project.id,
        table.c.version == int(version),
        table.c.status == ModelStatus.TRAINING_FAILED,
    )
    if (model_id := call.connection.execute(query).scalar_one_or_none()) is not None:
        _delete(call.connection, model_id)


def _delete(connection: sa.Connection, model_id: int) -> None:
    for part in (training_entries, model_artifacts, model_tags):
        connection.execute(part.delete().where(part.c.model_id == model_id))
    connection.execute(table.delete().where(table.c.id == model_id))
