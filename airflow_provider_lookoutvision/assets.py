"""What tasks make, as Airflow assets: their URIs, and the events of tasks that make them.

There is one asset for each project, for all models of a project, for the model that has a tag, for each
dataset, and for all verdicts of a project's models. What is new is in the event's extra, such as the model's
version and its metrics::

    lookoutvision://us-east-1/123456789012/project/circuit-boards
    lookoutvision://us-east-1/123456789012/model/circuit-boards
    lookoutvision://us-east-1/123456789012/model/circuit-boards/stage=production
    lookoutvision://us-east-1/123456789012/dataset/circuit-boards/train
    lookoutvision://us-east-1/123456789012/verdicts/circuit-boards

A task with ``outlets=[AssetAlias("boards")]`` emits an event of the asset that it made, under that alias; a
task with an ``Asset`` among its outlets adds the same extra to that asset's event.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

SCHEME = "lookoutvision"


def asset_uri(arn: str) -> str:
    """Return the URI that an ARN has here.

    :param arn: as in ``ProjectArn``.
    """
    _, _, _, region, account, resource = arn.split(":", 5)
    return f"{SCHEME}://{region}/{account}/{resource}"


def models_uri(model_arn: str, tag: str = "") -> str:
    """Return the URI of the asset of all models of a project, or of the model that has a tag.

    :param model_arn: the ARN of one of them, whose version doesn't matter.
    :param tag: such as ``stage=production``.
    """
    models = asset_uri(model_arn).rpartition("/")[0]
    return f"{models}/{tag}" if tag else models


def dataset_uri(project_arn: str, dataset_type: str) -> str:
    """Return the URI of the asset of a dataset.

    :param dataset_type: ``train`` or ``test``.
    """
    return f"{asset_uri(project_arn.replace(':project/', ':dataset/', 1))}/{dataset_type}"


def verdicts_uri(model_arn: str) -> str:
    """Return the URI of the asset of all verdicts of a project's models."""
    return models_uri(model_arn.replace(":model/", ":verdicts/", 1))


def has_outlets(context: Context) -> bool:
    """Whether the running task announces what it makes."""
    task = context.get("task")
    return bool(task and task.outlets)


def emit_asset_event(context: Context, uri: str, extra: Mapping[str, Any]) -> None:
    """Add what the running task made to the events of its outlets; without outlets nothing happens.

    :param uri: of the asset.
    :param extra: JSON data for the events, such as a model's version and metrics.
    """
    from airflow import __version__
    from airflow.providers.common.compat.sdk import Asset, AssetAlias

    if __version__.startswith("2."):
        extra = {name: _hashable(value) for name, value in extra.items()}
    task = context.get("task")
    for outlet in (task.outlets if task else None) or ():
        if isinstance(outlet, AssetAlias):
            context["outlet_events"][outlet].add(Asset(uri), extra=dict(extra))
        elif isinstance(outlet, Asset):
            context["outlet_events"][outlet].extra.update({"uri": uri, **extra})


class _HashableDict(dict[str, Any]):
    """Airflow 2 puts the members of an alias's extra into a set."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(json.dumps(self, sort_keys=True, default=str))


def _hashable(value: Any) -> Any:
    if isinstance(value, dict):
        return _HashableDict(value)
    return tuple(map(_hashable, value)) if isinstance(value, list) else value
