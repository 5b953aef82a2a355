"""Model packaging: StartModelPackagingJob, DescribeModelPackagingJob, ListModelPackagingJobs.

StartModelPackagingJob checks what it can and queues a job, which ``packager`` does. The component that it is
to make is taken from that moment on: its name and version are unique in the account and region, and are free
again only when the job fails.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from airflow_provider_lookoutvision.server.calls.access import partition
from airflow_provider_lookoutvision.server.calls.call import Call
from airflow_provider_lookoutvision.server.datasets.operations import check_bucket
from airflow_provider_lookoutvision.server.jobs import queue
from airflow_provider_lookoutvision.server.models.operations import find_model, wrong_state
from airflow_provider_lookoutvision.server.models.status import IN_SERVICE, ModelStatus
from airflow_provider_lookoutvision.server.packaging.target import target
from airflow_provider_lookoutvision.server.projects import find_project
from airflow_provider_lookoutvision.server.protocol.errors import (
    ConflictException,
    ResourceNotFoundException,
    ResourceType,
    ValidationException,
)
from airflow_provider_lookoutvision.server.storage.buckets import is_key
from airflow_provider_lookoutvision.server.storage.schema import components, insert_new, packaging_jobs

PACKAGE_JOB = "package-model"
METHOD = "Greengrass"
_PACKAGEABLE = IN_SERVICE | {ModelStatus.TRAINED, ModelStatus.HOSTING_FAILED}
_LONGEST_KEY = 1024


class PackagingStatus(StrEnum):
    """The states of a packaging job (the model's ``ModelPackagingJobStatus``)."""

    CREATED = "CREATED"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"


CREATED_MESSAGE = "The model packaging job was created, and waits to be run."
RUNNING_MESSAGE = "The model is being packaged."
SUCCEEDED_MESSAGE = "The model was packaged successfully."


def start_model_packaging_job(
    call: Call,
    *,
    project_name: str,
    model_version: str,
    configuration: Mapping[str, Any],
    job_name: str | None = None,
    description: str | None = None,
) -> dict[str, Any]:
    """Package a trained model as a component for AWS IoT Greengrass, by a job."""
    greengrass = configuration["Greengrass"]
    output = greengrass["S3OutputLocation"]
    project = find_project(call, project_name, lock=True)
    check_bucket(call.caller, call.operation, output["Bucket"])
    target(greengrass)
    _check_tags(greengrass.get("Tags") or ())
    model = find_model(call, project_name, model_version, lock=True)
    if model.status not in _PACKAGEABLE:
        raise wrong_state(model, project_name, "only a trained model can be packaged")
    component, version = greengrass["ComponentName"], greengrass.get("ComponentVersion")
    version = version or f"{model.version}.0.0"
    _check_keys(output.get("Prefix", ""), component, version)
    if call.effect.replaces is not None:
        _delete_failed(call, project, call.effect.replaces)
    name = job_name or str(uuid.uuid4())
    created = insert_new(
        call.connection,
        packaging_jobs,
        project_id=project.id,
        name=name,
        model_id=model.id,
        model_version=model.version,
        description=description,
        configuration={"Greengrass": {**greengrass, "ComponentVersion": version}},
        component_name=component,
        component_version=version,
        status=PackagingStatus.CREATED,
        status_message=CREATED_MESSAGE,
        created_at=call.now,
        updated_at=call.now,
    )
    if not created:
        raise _conflict(
            f"The project {project_name!r} already has a model packaging job {name!r}: use another JobName",
            project_name,
            name,
        )
    job = find_job(call, project_name, name)
    _take_component(call, project_name, job)
    queue.enqueue(call, PACKAGE_JOB, job.id, {})
    call.created(ResourceType.MODEL_PACKAGE_JOB, resource_id(project_name, name))
    return {"JobName": name}


def describe_model_packaging_job(call: Call, *, project_name: str, job_name: str) -> dict[str, Any]:
    """A job's state, what it was given, and once it has succeeded what it made."""
    job = find_job(call, project_name, job_name)
    members = {**_metadata(project_name, job), "ModelPackagingConfiguration": job.configuration}
    if job.status == PackagingStatus.SUCCEEDED:
        members["ModelPackagingOutputDetails"] = {
            "Greengrass": {
                "ComponentVersionArn": component_version_arn(call.caller.region, job),
                "ComponentName": job.component_name,
                "ComponentVersion": job.component_version,
            }
        }
    return {"ModelPackagingDescription": members}


def list_model_packaging_jobs(
    call: Call, *, project_name: str, next_token: str | None = None, max_results: int | None = None
) -> dict[str, Any]:
    """The project's jobs, the oldest first."""
    project = find_project(call, project_name)
    page = call.page(["ListModelPackagingJobs", project.id], next_token, max_results)
    columns = packaging_jobs.c
    query = packaging_jobs.select().where(columns.project_id == project.id).order_by(columns.id)
    if page.after is not None:
        query = query.where(columns.id > page.after)
    rows, following = page.cut(call.connection.execute(query.limit(page.size + 1)).all(), "id")
    return {"ModelPackagingJobs": [_metadata(project_name, row) for row in rows], "NextToken": following}


def find_job(call: Call, project_name: str, job_name: str) -> sa.Row[Any]:
    """The packaging job of the caller's project.

    :raises ResourceNotFoundException: when there is no such project, or it has no such job.
    """
    project = find_project(call, project_name)
    columns = packaging_jobs.c
    query = packaging_jobs.select().where(columns.project_id == project.id, columns.name == job_name)
    job = call.connection.execute(query).one_or_none()
    if job is None:
        raise ResourceNotFoundException(
            f"The project {project_name!r} has no model packaging job {job_name!r}",
            resource_id=resource_id(project_name, job_name),
            resource_type=ResourceType.MODEL_PACKAGE_JOB,
        )
    return job


def resource_id(project_name: str, job_name: str) -> str:
    """What errors and tokens call a packaging job, which has no ARN."""
    return f"{project_name}/{job_name}"


def component_version_arn(region: str, job: sa.Row[Any]) -> str:
    """The ARN of the component version that a job makes; the API has Greengrass's in the account ``aws``."""
    component = f"components:{job.component_name}:versions:{job.component_version}"
    return f"arn:{partition(region)}:greengrass:{region}:aws:{component}"


def component_key(prefix: str, component_name: str, component_version: str, ending: str = "zip") -> str:
    """The key of a component's file; the prefix is put before it as it is."""
    return f"{prefix}{component_name}-{component_version}.{ending}"


def recipe_key(prefix: str) -> str:
    """The key of the component's recipe."""
    return f"{prefix}recipe.json"


def _metadata(project_name: str, job: sa.Row[Any]) -> dict[str, Any]:
    return {
        "JobName": job.name,
        "ProjectName": project_name,
        "ModelVersion": str(job.model_version),
        "ModelPackagingJobDescription": job.description,
        "ModelPackagingMethod": METHOD,
        "Status": job.status,
        "StatusMessage": job.status_message,
        "CreationTimestamp": job.created_at,
        "LastUpdatedTimestamp": job.updated_at,
    }


def _take_component(call: Call, project_name: str, job: sa.Row[Any]) -> None:
    taken = insert_new(
        call.connection,
        components,
        account_id=call.caller.account_id,
        region=call.caller.region,
        name=job.component_name,
        version=job.component_version,
        packaging_job_id=job.id,
    )
    if not taken:
        raise _conflict(
            f"The component {job.component_name!r} already has a version {job.component_version}, or a model "
            "packaging job is making it: use another ComponentVersion or ComponentName",
            project_name,
            job.name,
        )


def _check_tags(tags: Sequence[Mapping[str, str]]) -> None:
    keys = [tag["Key"] for tag in tags]
    for key in keys:
        if keys.count(key) > 1:
            raise ValidationException(f"Configuration.Greengrass.Tags names the key {key!r} twice")


def _check_keys(prefix: str, component_name: str, component_version: str) -> None:
    key = max(component_key(prefix, component_name, component_version, "sha256"), recipe_key(prefix), key=len)
    if len(key) > _LONGEST_KEY:
        raise ValidationException(
            f"The component would be written to a key of {len(key)} characters, and S3 has at most "
            f"{_LONGEST_KEY}: choose a shorter Prefix"
        )
    if not is_key(key):
        raise ValidationException(f"The Prefix {prefix!r} has a part that is no name: . or ..")


def _delete_failed(call: Call, project: sa.Row[Any], failed: str) -> None:
    project_name, _, name = failed.rpartition("/")
    if project_name != project.name:
        return  # the token is used anew, for a project that isn't the one it failed in
    columns = packaging_jobs.c
    mine = sa.and_(columns.project_id == project.id, columns.name == name)
    call.connection.execute(packaging_jobs.delete().where(mine, columns.status == PackagingStatus.FAILED))


def _conflict(message: str, project_name: str, job_name: str) -> ConflictException:
    return ConflictException(
        message,
        resource_id=resource_id(project_name, job_name),
        resource_type=ResourceType.MODEL_PACKAGE_JOB,
    )
