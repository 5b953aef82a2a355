"""Projects: CreateProject, DescribeProject, ListProjects, DeleteProject."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from airflow_provider_lookoutvision.server.calls import idempotency
from airflow_provider_lookoutvision.server.calls.access import visible
from airflow_provider_lookoutvision.server.calls.call import Call, own
from airflow_provider_lookoutvision.server.protocol.errors import (
    ConflictException,
    ResourceNotFoundException,
    ResourceType,
    ServiceQuotaExceededException,
)
from airflow_provider_lookoutvision.server.storage.schema import (
    components,
    datasets,
    insert_new,
    lock,
    models,
    packaging_jobs,
    projects,
)

_SHOWN = 5

_FIND = projects.select().where(own(projects), projects.c.name == sa.bindparam("wanted"))
_FIND_TO_LOCK = _FIND.with_for_update()


def create_project(call: Call, *, project_name: str) -> dict[str, Any]:
    """Make an empty project; names are unique in an account and region."""
    if call.settings.max_projects is not None:
        lock(call.connection, ("projects", call.caller.account_id))
    created = insert_new(
        call.connection,
        projects,
        account_id=call.caller.account_id,
        region=call.caller.region,
        name=project_name,
        created_at=call.now,
    )
    if not created:
        raise ConflictException(
            f"The project {project_name!r} already exists",
            resource_id=project_name,
            resource_type=ResourceType.PROJECT,
        )
    _check_quota(call, project_name)
    call.created(ResourceType.PROJECT, project_name)
    return {"ProjectMetadata": _metadata(call, project_name, call.now)}


def describe_project(call: Call, *, project_name: str) -> dict[str, Any]:
    """A project and its datasets."""
    project = find_project(call, project_name)
    listing = sa.select(datasets).where(datasets.c.project_id == project.id).order_by(datasets.c.type.desc())
    members = {
        **_metadata(call, project.name, project.created_at),
        "Datasets": [dataset_metadata(dataset) for dataset in call.connection.execute(listing)],
    }
    return {"ProjectDescription": members}


def list_projects(
    call: Call, *, next_token: str | None = None, max_results: int | None = None
) -> dict[str, Any]:
    """The projects that the caller's key may see, by name."""
    page = call.page(["ListProjects"], next_token, max_results)
    query = _listing(call.caller.key.allowed_projects)
    values = {**call.scope, "after": page.after or "", "most": page.size + 1}
    rows, following = page.cut(call.connection.execute(query, values).all(), "name")
    return {
        "Projects": [_metadata(call, name, created_at) for name, created_at in rows],
        "NextToken": following,
    }


@lru_cache(maxsize=256)
def _listing(allowed_projects: tuple[str, ...]) -> sa.Select[Any]:
    return (
        sa.select(projects.c.name, projects.c.created_at)
        .where(own(projects), visible(allowed_projects, projects.c.name))
        .where(projects.c.name > sa.bindparam("after"))
        .order_by(projects.c.name)
        .limit(sa.bindparam("most"))
    )


@dataclass(frozen=True)
class Overview:
    """A project and what is in it: the images of each dataset by its type, how many models, the last one."""

    name: str
    created_at: int
    images: dict[str, int]
    models: int
    last_version: int | None
    last_status: str | None


def overview(call: Call, contains: str, offset: int, size: int) -> tuple[list[Overview], int]:
    """The projects that the caller's key may see, by name, with what is in them; and how many there are.

    :param contains: a part of their names.
    """
    mine = sa.and_(own(projects), visible(call.caller.key.allowed_projects, projects.c.name))
    if contains:
        mine = sa.and_(mine, projects.c.name.contains(contains, autoescape=True))
    run = call.connection.execute
    count = run(sa.select(sa.func.count()).select_from(projects).where(mine), call.scope).scalar_one()
    query = projects.select().where(mine).order_by(projects.c.name).offset(offset).limit(size)
    rows = run(query, call.scope).all()
    ids = [row.id for row in rows]
    of = datasets.c
    images: dict[int, dict[str, int]] = {}
    for dataset in run(sa.select(of.project_id, of.type, of.total).where(of.project_id.in_(ids))):
        images.setdefault(dataset.project_id, {})[dataset.type] = dataset.total
    found: dict[int, list[Any]] = {}
    of = models.c
    versions = sa.select(of.project_id, of.version, of.status).where(of.project_id.in_(ids))
    for model in run(versions.order_by(of.version)):
        found.setdefault(model.project_id, []).append(model)
    return [
        Overview(
            row.name,
            row.created_at,
            images.get(row.id, {}),
            len(found.get(row.id, ())),
            found[row.id][-1].version if row.id in found else None,
            found[row.id][-1].status if row.id in found else None,
        )
        for row in rows
    ], count


def regions(call: Call) -> list[str]:
    """The regions in which the caller's account has projects that the key may see."""
    query = sa.select(projects.c.region).distinct().order_by(projects.c.region)
    mine = visible(call.caller.key.allowed_projects, projects.c.name)
    of_account = projects.c.account_id == call.caller.account_id
    return list(call.connection.execute(query.where(of_account, mine)).scalars())


def delete_project(call: Call, *, project_name: str) -> dict[str, Any]:
    """Delete a project that has neither datasets nor models; its packaging jobs go with it."""
    project = find_project(call, project_name, lock=True)
    types = (
        sa.select(datasets.c.type).where(datasets.c.project_id == project.id).order_by(datasets.c.type.desc())
    )
    versions = sa.select(models.c.version).where(models.c.project_id == project.id).order_by(models.c.version)
    left = [f"its {kind} dataset" for kind in call.connection.execute(types).scalars()]
    left += [f"its model {version}" for version in call.connection.execute(versions).scalars()]
    if left:
        shown = ", ".join(left[:_SHOWN]) + (f" and {len(left) - _SHOWN} more" if len(left) > _SHOWN else "")
        raise ConflictException(
            f"The project {project_name!r} still has {shown}: delete the models and datasets of a project "
            "before it",
            resource_id=project_name,
            resource_type=ResourceType.PROJECT,
        )
    _delete_packaging_jobs(call, project)
    call.connection.execute(projects.delete().where(projects.c.id == project.id))
    call.deleted(ResourceType.PROJECT, project_name)
    return {"ProjectArn": call.caller.arn(f"project/{project_name}")}


def find_project(call: Call, project_name: str, *, lock: bool = False) -> sa.Row[Any]:
    """The caller's project of that name.

    :param lock: keep it as it is until the transaction ends: for what is made below it, or deletes it.
    :raises ResourceNotFoundException: when there is none.
    """
    query = _FIND_TO_LOCK if lock else _FIND
    project = call.connection.execute(query, {**call.scope, "wanted": project_name}).one_or_none()
    if project is None:
        raise _no_project(project_name)
    return project


def dataset_metadata(dataset: sa.Row[Any]) -> dict[str, Any]:
    """A dataset's row as ``DatasetMetadata``."""
    return {
        "DatasetType": dataset.type,
        "CreationTimestamp": dataset.created_at,
        "Status": dataset.status,
        "StatusMessage": dataset.status_message,
    }


def _delete_packaging_jobs(call: Call, project: sa.Row[Any]) -> None:
    """Delete the packaging jobs; the components that they have made stay taken: devices may have them."""
    columns = packaging_jobs.c
    mine = columns.project_id == project.id
    names = sa.select(sa.literal(f"{project.name}/") + columns.name).where(mine)
    idempotency.mark_gone(call, ResourceType.MODEL_PACKAGE_JOB, names)
    unmade = sa.select(columns.id).where(mine, columns.status != "SUCCEEDED")
    call.connection.execute(components.delete().where(components.c.packaging_job_id.in_(unmade)))
    call.connection.execute(packaging_jobs.delete().where(mine))


def _no_project(project_name: str) -> ResourceNotFoundException:
    return ResourceNotFoundException(
        f"The project {project_name!r} does not exist",
        resource_id=project_name,
        resource_type=ResourceType.PROJECT,
    )


def _metadata(call: Call, name: str, created_at: int) -> dict[str, Any]:
    return {
        "ProjectArn": call.caller.arn(f"project/{name}"),
        "ProjectName": name,
        "CreationTimestamp": created_at,
    }


def _check_quota(call: Call, project_name: str) -> None:
    most = call.settings.max_projects
    if most is None:
        return
    # Of all regions: a caller may name any, and would have as many projects in each.
    of_account = projects.c.account_id == call.caller.account_id
    count = call.connection.execute(
        sa.select(sa.func.count()).select_from(projects).where(of_account)
    ).scalar_one()
    if count > most:
        raise ServiceQuotaExceededException(
            f"This account has {most} projects, as many as the service's setting max_projects allows in all "
            "regions together: delete one, or raise the setting",
            quota_code="max_projects",
            resource_id=project_name,
            resource_type=ResourceType.PROJECT,
        )
