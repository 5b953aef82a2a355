"""Projects and models as Airflow assets: their URIs, and the events of tasks that make them.

A task with ``outlets=[AssetAlias("models")]`` emits an event of the asset that it made, under that alias; a
task with an ``Asset`` among its outlets adds the same extra to that asset's event. The URI is derived from
the ARN: ``lookoutvision://us-east-1/123456789012/model/circuit-boards/1``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

SCHEME = "lookoutvision"


def asset_uri(arn: str) -> str:
    """Return the URI of the asset of a project or model.

    :param arn: as in ``ProjectArn`` and ``ModelArn``.
    """
    _, _, _, region, account, resource = arn.split(":", 5)
    return f"{SCHEME}://{region}/{account}/{resource}"


def emit_asset_event(context: Context, arn: str, extra: Mapping[str, Any]) -> None:
    """Add what the running task made to the events of its outlets; without outlets nothing happens.

    :param arn: of the project or model.
    :param extra: JSON data for the events, such as a model's metrics.
    """
    from airflow.providers.common.compat.sdk import Asset, AssetAlias

    uri = asset_uri(arn)
    task = context.get("task")
    for outlet in (task.outlets if task else None) or ():
        if isinstance(outlet, AssetAlias):
            context["outlet_events"][outlet].add(Asset(uri), extra=dict(extra))
        elif isinstance(outlet, Asset):
            context["outlet_events"][outlet].extra.update({"uri": uri, **extra})
