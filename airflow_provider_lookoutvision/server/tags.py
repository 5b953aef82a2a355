"""Tags of models: TagResource, UntagResource, ListTagsForResource.

Tags whose keys begin with ``lookoutvision:`` are settings of a model, which any client of the API can change.
``lookoutvision:threshold`` is the threshold of its verdicts, between 0 and 1, in use at the next detection;
``lookoutvision:effort``, ``quick`` or ``thorough``, is for CreateModel, and says how it is trained.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from airflow_provider_lookoutvision.server.calls.call import Call, own
from airflow_provider_lookoutvision.server.protocol.errors import (
    ResourceNotFoundException,
    ResourceType,
    ServiceQuotaExceededException,
    ValidationException,
)
from airflow_provider_lookoutvision.server.settings import EFFORTS
from airflow_provider_lookoutvision.server.storage.schema import model_tags, models, projects, upsert

MOST_TAGS = 200
THRESHOLD, EFFORT = "lookoutvision:threshold", "lookoutvision:effort"
DEFAULT_THRESHOLD = 0.5
_RESERVED = "lookoutvision:"
_SETTINGS = (THRESHOLD, EFFORT)
_RESOURCE = re.compile(r"model/([^/]+)/([1-9][0-9]{0,8})")


def tag_resource(call: Call, *, resource_arn: str, tags: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Add tags to a model; a key that exists gets the new value."""
    put(call.connection, _find(call, resource_arn, lock=True), tags)
    return {}


def untag_resource(call: Call, *, resource_arn: str, tag_keys: Sequence[str]) -> dict[str, Any]:
    """Remove tags from a model; keys that it doesn't have are ignored."""
    of_model = model_tags.c.model_id == _find(call, resource_arn, lock=True)
    call.connection.execute(model_tags.delete().where(of_model, model_tags.c.key.in_(tag_keys)))
    return {}


def list_tags_for_resource(call: Call, *, resource_arn: str) -> dict[str, Any]:
    """A model's tags, by key."""
    of_model = model_tags.c.model_id == _find(call, resource_arn)
    rows = call.connection.execute(model_tags.select().where(of_model).order_by(model_tags.c.key))
    return {"Tags": [{"Key": row.key, "Value": row.value} for row in rows]}


def put(connection: sa.Connection, model_id: int, tags: Sequence[Mapping[str, str]]) -> None:
    """Add tags to a model.

    :raises ValidationException: when a key is given twice, or a setting can't have this value.
    :raises ServiceQuotaExceededException: when the model would have too many.
    """
    keys = [tag["Key"] for tag in tags]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValidationException(f"Tags names the key {twice!r} twice")
    for tag in tags:
        _check_setting(tag["Key"], tag["Value"])
    rows = [{"model_id": model_id, "key": tag["Key"], "value": tag["Value"]} for tag in tags]
    upsert(connection, model_tags, rows, key=("model_id", "key"))
    counting = sa.select(sa.func.count()).select_from(model_tags).where(model_tags.c.model_id == model_id)
    if connection.execute(counting).scalar_one() > MOST_TAGS:
        raise ServiceQuotaExceededException(
            f"A model has at most {MOST_TAGS} tags", quota_code="tags_per_model"
        )


def threshold(
    connection: sa.Connection, account_id: str, region: str, project_name: str, version: int
) -> float:
    """The threshold of a model.

    :raises ResourceNotFoundException: when there is no such model.
    """
    return float(_of(connection, account_id, region, project_name, version).threshold or DEFAULT_THRESHOLD)


def set_threshold(
    connection: sa.Connection, account_id: str, region: str, project_name: str, version: int, value: str
) -> None:
    """Set the threshold of a model.

    :raises ResourceNotFoundException: when there is no such model.
    :raises ValidationException: when the value isn't between 0 and 1.
    """
    model = _of(connection, account_id, region, project_name, version)
    put(connection, model.id, [{"Key": THRESHOLD, "Value": value}])


def _of(
    connection: sa.Connection, account_id: str, region: str, project_name: str, version: int
) -> sa.Row[Any]:
    query = (
        sa.select(models.c.id, threshold_of_model())
        .join(projects, projects.c.id == models.c.project_id)
        .where(projects.c.account_id == account_id, projects.c.region == region)
        .where(projects.c.name == project_name, models.c.version == version)
    )
    found = connection.execute(query).one_or_none()
    if found is None:
        raise ResourceNotFoundException(
            f"There is no model {version} of a project {project_name!r} in account {account_id} and {region}",
            resource_id=f"{project_name}/{version}",
            resource_type=ResourceType.MODEL,
        )
    return found


def threshold_of_model() -> sa.ColumnElement[str | None]:
    """The column ``threshold`` for a query of ``models``: its tag of that name; NULL without one."""
    return _setting_of_model(THRESHOLD, "threshold")


def effort_of_model() -> sa.ColumnElement[str | None]:
    """The column ``effort`` for a query of ``models``: its tag of that name; NULL without one."""
    return _setting_of_model(EFFORT, "effort")


def _setting_of_model(key: str, column: str) -> sa.ColumnElement[str | None]:
    of_model = sa.and_(model_tags.c.model_id == models.c.id, model_tags.c.key == key)
    return sa.select(model_tags.c.value).where(of_model).scalar_subquery().label(column)


def _check_setting(key: str, value: str) -> None:
    if not key.startswith(_RESERVED):
        return
    if key not in _SETTINGS:
        raise ValidationException(
            f"There is no setting {key!r} of a model; keys that begin with {_RESERVED!r} are its settings: "
            f"{', '.join(_SETTINGS)}"
        )
    if key == EFFORT:
        if value not in EFFORTS:
            raise ValidationException(f"{key} is {value!r}; it must be one of {', '.join(EFFORTS)}")
        return
    try:
        threshold = float(value)
    except ValueError:
        threshold = -1.0
    if not 0 < threshold < 1:
        raise ValidationException(f"{key} is {value!r}; it must be a number between 0 and 1, such as 0.3")


def _find(call: Call, resource_arn: str, *, lock: bool = False) -> int:
    """The ID of the caller's model with this ARN.

    :raises ValidationException: when it isn't the ARN of a model of this account and region.
    :raises AccessDeniedException: when the key may not do this to models of that project.
    :raises ResourceNotFoundException: when there is no such model.
    """
    prefix = call.caller.arn("")
    match = _RESOURCE.fullmatch(resource_arn.removeprefix(prefix))
    if not resource_arn.startswith(prefix) or not match:
        raise ValidationException(
            f"ResourceArn is {resource_arn!r}; only models have tags, and those of this account and region "
            f"are {prefix}model/<project>/<version>"
        )
    project_name, version = match[1], int(match[2])
    call.caller.authorize(call.operation, project_name)
    query = (
        sa.select(models.c.id)
        .join(projects, projects.c.id == models.c.project_id)
        .where(own(projects), projects.c.name == project_name, models.c.version == version)
    )
    query = query.with_for_update(of=models) if lock else query
    model_id = call.connection.execute(query, call.scope).scalar_one_or_none()
    if model_id is None:
        raise ResourceNotFoundException(
            f"There is no model {resource_arn}",
            resource_id=f"{project_name}/{version}",
            resource_type=ResourceType.MODEL,
        )
    return int(model_id)
