"""What tasks read and write, in the terms of OpenLineage.

An object or a prefix in S3 has the namespace ``s3://<bucket>`` and its key as the name, as OpenLineage's
naming rules say. What the service keeps has the namespace ``lookoutvision://<region>/<account>`` and the name
``project/<project>``, ``dataset/<project>/train`` or ``model/<project>/<version>``: together they are the
URIs of :mod:`airflow_provider_lookoutvision.assets`, and Airflow's assets of that scheme are told alike.

Airflow's OpenLineage provider asks the operators when a task has ended. Where it isn't installed nobody asks,
and nothing of it is imported. What is told comes from the operator's parameters, from what the task has
returned, and from the service; a service that doesn't answer costs its part of the lineage, and no more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_lookoutvision.assets import asset_uri

if TYPE_CHECKING:
    from airflow.providers.common.compat.openlineage.facet import Dataset, DatasetFacet
    from airflow.providers.common.compat.sdk import Asset
    from airflow.providers.openlineage.extractors import OperatorLineage

    from airflow_provider_lookoutvision.operators.base import LookoutVisionBaseOperator


_SLASHES = 4  # of a URI up to what it names: lookoutvision://region/account/name


def of(inputs: Iterable[Dataset | None], outputs: Iterable[Dataset | None]) -> OperatorLineage[Any, Any]:
    """Return the lineage of a task; None stands for what isn't there."""
    from airflow.providers.openlineage.extractors import OperatorLineage

    return OperatorLineage(
        inputs=[each for each in inputs if each], outputs=[each for each in outputs if each]
    )


def s3(uri: str | None, rows: int | None = None) -> Dataset | None:
    """Return the dataset of an object or a prefix, ``s3://bucket/key``.

    :param rows: how many lines were written to it.
    """
    from airflow.providers.common.compat.openlineage.facet import (
        Dataset,
        OutputDataset,
        OutputStatisticsOutputDatasetFacet,
    )

    if not uri:
        return None
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    namespace, name = f"s3://{bucket}", key or "/"
    if rows is None:
        return Dataset(namespace, name)
    statistics = OutputStatisticsOutputDatasetFacet(rowCount=rows)
    return OutputDataset(namespace, name, outputFacets={"outputStatistics": statistics})


def model(description: Mapping[str, Any] | None) -> Dataset | None:
    """Return the dataset of a model, with the figures of its evaluation when it has them.

    :param description: its ModelDescription or ModelMetadata.
    """
    from airflow.providers.common.compat.openlineage.facet import DatasetFacet
    from openlineage.client.facet_v2 import dataset_type_dataset

    if not description:
        return None
    facets: dict[str, Any] = {"datasetType": dataset_type_dataset.DatasetTypeDatasetFacet("MODEL")}
    if figures := description.get("Performance"):
        facets["lookoutvision_performance"] = DatasetFacet().with_additional_properties(**figures)
    return _resource(asset_uri(description["ModelArn"]), facets)


def datasets(operator: LookoutVisionBaseOperator, project_name: str, *types: str) -> list[Dataset]:
    """Return the datasets that a project has, or those of these types among them."""
    project = ask(operator, "DescribeProject", ProjectName=project_name).get("ProjectDescription")
    if not project:
        return []
    arn = project["ProjectArn"].replace(":project/", ":dataset/")
    there = [each["DatasetType"] for each in project["Datasets"]]
    return [_resource(f"{asset_uri(arn)}/{each}") for each in there if not types or each in types]


def ask(operator: LookoutVisionBaseOperator, operation: str, **parameters: Any) -> dict[str, Any]:
    """Ask the service, and return its answer; or nothing when it refuses or is away."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return operator.call(operation, **parameters)
    except (BotoCoreError, ClientError) as error:
        operator.log.warning("OpenLineage is told less than there is: %s", error)
        return {}


def asset_to_openlineage(asset: Asset, lineage_context: Any) -> Dataset | None:  # noqa: ARG001 (as Airflow calls it)
    """Return the dataset of an asset of ours, or None; Airflow's OpenLineage provider calls this."""
    return _resource(asset.uri) if asset.uri.count("/") >= _SLASHES else None


def _resource(uri: str, facets: dict[str, DatasetFacet] | None = None) -> Dataset:
    from airflow.providers.common.compat.openlineage.facet import Dataset

    scheme, _, region, account, name = uri.split("/", _SLASHES)
    return Dataset(namespace=f"{scheme}//{region}/{account}", name=name, facets=facets or {})
