"""What tasks read and write, as OpenLineage datasets.

An S3 object or prefix has the namespace ``s3://<bucket>`` and its key as the name, as OpenLineage's naming
rules say. The service's resources have the namespace ``lookoutvision://<region>/<account>`` and the name
``project/<project>``, ``dataset/<project>/train`` or ``model/<project>/<version>``. The assets of
:mod:`airflow_provider_lookoutvision.assets` have the same namespace and names; that of a project's models is
without a version.

Airflow's OpenLineage provider calls the operators when a task has ended. Without that provider nothing calls
them, and nothing of it is imported. The lineage comes from the operator's parameters, from the task's result,
and from the service; if the service doesn't respond, its part is missing, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_lookoutvision.assets import asset_uri, dataset_uri

if TYPE_CHECKING:
    from airflow.providers.common.compat.openlineage.facet import Dataset, DatasetFacet
    from airflow.providers.common.compat.sdk import Asset
    from airflow.providers.openlineage.extractors import OperatorLineage

    from airflow_provider_lookoutvision.operators.base import LookoutVisionBaseOperator


_SLASHES = 4  # in a URI before the name: lookoutvision://region/account/name


def operator_lineage(
    inputs: Iterable[Dataset | None], outputs: Iterable[Dataset | None]
) -> OperatorLineage[Any, Any]:
    """Return the lineage of a task, without the Nones."""
    from airflow.providers.openlineage.extractors import OperatorLineage

    return OperatorLineage(
        inputs=[each for each in inputs if each], outputs=[each for each in outputs if each]
    )


def s3_dataset(uri: str | None, rows: int | None = None) -> Dataset | None:
    """Return the dataset of an S3 object or prefix, ``s3://bucket/key``; None without a URI.

    :param rows: how many lines were written to it.
    """
    from airflow.providers.common.compat.openlineage.facet import (
        Dataset,
        OutputDataset,
        OutputStatisticsOutputDatasetFacet,
    )

    from airflow_provider_lookoutvision.operators.s3 import parse_s3_prefix

    if not uri:
        return None
    bucket, key = parse_s3_prefix("the dataset's URI", uri)
    namespace, name = f"s3://{bucket}", key or "/"
    if rows is None:
        return Dataset(namespace, name)
    statistics = OutputStatisticsOutputDatasetFacet(rowCount=rows)
    return OutputDataset(namespace, name, outputFacets={"outputStatistics": statistics})


def model_dataset(description: Mapping[str, Any] | None) -> Dataset | None:
    """Return the dataset of a model, with the metrics of its evaluation if it has been evaluated.

    :param description: its ModelDescription or ModelMetadata.
    """
    from airflow.providers.common.compat.openlineage.facet import DatasetFacet
    from openlineage.client.facet_v2 import dataset_type_dataset

    if not description:
        return None
    facets: dict[str, Any] = {"datasetType": dataset_type_dataset.DatasetTypeDatasetFacet("MODEL")}
    if metrics := description.get("Performance"):
        facets["lookoutvision_performance"] = DatasetFacet().with_additional_properties(**metrics)
    return _resource(asset_uri(description["ModelArn"]), facets)


def project_datasets(
    operator: LookoutVisionBaseOperator, project_name: str, *dataset_types: str
) -> list[Dataset]:
    """Return a project's datasets.

    :param dataset_types: only datasets of these types; by default all.
    """
    project = call_if_available(operator, "DescribeProject", ProjectName=project_name).get(
        "ProjectDescription"
    )
    if not project:
        return []
    types = [each["DatasetType"] for each in project["Datasets"]]
    return [
        _resource(dataset_uri(project["ProjectArn"], each))
        for each in types
        if each in (dataset_types or types)
    ]


def call_if_available(
    operator: LookoutVisionBaseOperator, operation: str, **parameters: Any
) -> dict[str, Any]:
    """Call the service and return its output, or an empty dict when it refuses or doesn't respond."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return operator.call(operation, **parameters)
    except (BotoCoreError, ClientError) as error:
        operator.log.warning("The lineage is incomplete: %s", error)
        return {}


def asset_to_openlineage(asset: Asset, lineage_context: Any) -> Dataset | None:  # noqa: ARG001 (as Airflow calls it)
    """Return the dataset of an asset of ours, or None; Airflow's OpenLineage provider calls this."""
    return _resource(asset.uri) if asset.uri.count("/") >= _SLASHES else None


def _resource(uri: str, facets: dict[str, DatasetFacet] | None = None) -> Dataset:
    from airflow.providers.common.compat.openlineage.facet import Dataset

    scheme, _, region, account, name = uri.split("/", _SLASHES)
    return Dataset(namespace=f"{scheme}//{region}/{account}", name=name, facets=facets or {})
