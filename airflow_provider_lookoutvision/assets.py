"""Projects and models as Airflow's assets: their URIs, and what an event of them tells.

A task that declares ``outlets=[AssetAlias("models")]`` announces under that alias the asset of what it made;
one that declares the asset itself gives its event the same extra. The URI is made of the ARN:
``lookoutvision://us-east-1/123456789012/model/circuit-boards/1``.
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


def announce(context: Context, arn: str, extra: Mapping[str, Any]) -> None:
    """Give the events of the running task's outlets what it made; without outlets nothing happens.

    :param arn: of the project or model.
    :param extra: plain data that the events are to carry, such as a model's figures.
    """
    from airflow.providers.common.compat.sdk import Asset, AssetAlias

    uri = asset_uri(arn)
    task = context.get("task")
    for outlet in (task.outlets if task else None) or ():
        if isinstance(outlet, AssetAlias):
            context["outlet_events"][outlet].add(Asset(uri), extra=dict(extra))
        elif isinstance(outlet, Asset):
            context["outlet_events"][outlet].extra.update({"uri": uri, **extra})
