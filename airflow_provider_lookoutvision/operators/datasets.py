"""The operators of datasets: create a dataset, update its entries, delete it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_lookoutvision import manifests
from airflow_provider_lookoutvision.assets import dataset_uri, emit_asset_event, has_outlets
from airflow_provider_lookoutvision.idempotency import is_retry
from airflow_provider_lookoutvision.links.lookoutvision import DATASET_LINKS
from airflow_provider_lookoutvision.operators.async_operation import AsyncOperationMixin
from airflow_provider_lookoutvision.operators.base import (
    LookoutVisionBaseOperator,
    fail_fast_on_client_errors,
    to_json,
)
from airflow_provider_lookoutvision.operators.client_token import ClientTokenMixin
from airflow_provider_lookoutvision.operators.create_base import LookoutVisionCreateBaseOperator
from airflow_provider_lookoutvision.operators.dataset_lock import retry_while_dataset_is_busy
from airflow_provider_lookoutvision.operators.parameters import changes
from airflow_provider_lookoutvision.operators.s3 import fail_fast_on_s3_errors, parse_s3_uri, s3_hook

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from airflow.providers.openlineage.extractors import OperatorLineage

DatasetType = Literal["train", "test"]

LARGEST_CHANGES = 10 * 1024 * 1024


class LookoutVisionCreateDatasetOperator(AsyncOperationMixin, LookoutVisionCreateBaseOperator):
    """Create a dataset, once for this task instance, wait until it is imported, and return its description.

    The result is the DatasetDescription: ``ProjectName``, ``DatasetType``, ``Status``, ``StatusMessage``,
    ``ImageStats`` (``Total``, ``Labeled``, ``Normal``, ``Anomaly``) and times as ISO 8601 in UTC, each an
    XCom of its own too. Without waiting it is the DatasetMetadata, which has no ``ImageStats``.

    A retry finds the dataset that an earlier try created; one whose import failed is imported anew.

    :param project_name: the project.
    :param dataset_type: ``train`` or ``test``.
    :param manifest_s3_uri: the Ground Truth manifest, ``s3://bucket/key``; None for an empty dataset.
    :param manifest_version_id: the version of the manifest's S3 object.
    :param client_token: a token of your own, used as it is; by default the task instance's.
    :param if_exists: what to do about a dataset that this task instance did not create: ``fail``, or ``skip``
        the creation and use it. ``use`` is an alias of ``skip``.
    :raises AirflowFailException: when the manifest is invalid, with the service's StatusMessage.
    :raises AirflowException: when the service fails; a retry may succeed.
    """

    template_fields: Sequence[str] = (
        *LookoutVisionCreateBaseOperator.template_fields,
        "project_name",
        "dataset_type",
        "manifest_s3_uri",
        "manifest_version_id",
    )
    operator_extra_links = DATASET_LINKS
    noun: ClassVar[str] = "dataset"
    waiter_name: ClassVar[str] = "DatasetCreated"

    def __init__(
        self,
        *,
        project_name: str,
        dataset_type: DatasetType,
        manifest_s3_uri: str | None = None,
        manifest_version_id: str | None = None,
        waiter_delay: float = 5,
        waiter_max_attempts: int = 720,
        **kwargs: Any,
    ) -> None:
        super().__init__(waiter_delay=waiter_delay, waiter_max_attempts=waiter_max_attempts, **kwargs)
        self.project_name = project_name
        self.dataset_type = dataset_type
        self.manifest_s3_uri = manifest_s3_uri
        self.manifest_version_id = manifest_version_id

    @property
    def resource_id(self) -> str:
        """The project's name and the type."""
        return f"{self.project_name}/{self.dataset_type}"

    def execute(self, context: Context) -> dict[str, Any]:
        """Create the dataset, or find the one that this task instance created before, and wait for it."""
        self.check_parameters()
        with fail_fast_on_client_errors():
            metadata = self.create_or_find(context)
        self.persist_links(context, self.project_name, dataset_type=self.dataset_type)
        result: dict[str, Any] = to_json(metadata)
        return self.wait_or_defer(context, result, imports=self.is_own)

    def waiter_args(self) -> dict[str, Any]:
        """The dataset to poll."""
        return {"ProjectName": self.project_name, "DatasetType": self.dataset_type}

    def result(self, context: Context, **state: Any) -> dict[str, Any]:
        """Return the description of the dataset."""
        self.is_own = state.get("imports", True)
        description: dict[str, Any] = to_json(self.describe())
        self.log.info("Dataset %s: %s", self.resource_id, description["ImageStats"])
        if self.is_own:
            announce_dataset(self, context, description, manifest_s3_uri=self.manifest_s3_uri)
        return description

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:
        """Return the lineage: the manifest in, the dataset out; or another task's dataset in."""
        from airflow_provider_lookoutvision import lineage

        if self.is_own is None:
            return lineage.operator_lineage(inputs=[lineage.s3_dataset(self.manifest_s3_uri)], outputs=[])
        datasets = lineage.project_datasets(self, self.project_name, self.dataset_type)
        if not self.is_own:
            return lineage.operator_lineage(inputs=datasets, outputs=[])
        return lineage.operator_lineage(inputs=[lineage.s3_dataset(self.manifest_s3_uri)], outputs=datasets)

    def create(self, token: str) -> dict[str, Any]:
        """Call CreateDataset."""
        parameters: dict[str, Any] = self.waiter_args()
        if self.manifest_s3_uri is not None:
            bucket, key = parse_s3_uri("manifest_s3_uri", self.manifest_s3_uri)
            version = {"VersionId": self.manifest_version_id} if self.manifest_version_id else {}
            location = {"Bucket": bucket, "Key": key, **version}
            parameters["DatasetSource"] = {"GroundTruthManifest": {"S3Object": location}}
        answer = self.call("CreateDataset", **parameters, ClientToken=token)
        metadata: dict[str, Any] = answer["DatasetMetadata"]
        return metadata

    def describe(self) -> dict[str, Any]:
        """Call DescribeDataset."""
        answer = self.call("DescribeDataset", **self.waiter_args())
        description: dict[str, Any] = answer["DatasetDescription"]
        return description


class LookoutVisionUpdateDatasetEntriesOperator(AsyncOperationMixin, LookoutVisionBaseOperator):
    """Add entries to a dataset and replace others, wait until that is done, and return its description.

    The service takes at most 10 MiB in one update, and applies all of it or nothing. More is sent in parts,
    one after another, each with a wait; a retry goes on at the part that failed. A dataset that is being
    imported, or changed by another task, is waited for, in the task: mapped tasks may change one dataset.

    :param project_name: the project.
    :param dataset_type: ``train`` or ``test``.
    :param changes: the entries: JSON Lines in one string, a list of objects or of lines, or one object.
    :param changes_s3_uri: instead, an S3 object of JSON Lines, ``s3://bucket/key``.
    :param labels: instead, the label of each image, ``{"s3://bucket/key": "anomaly"}``, or ``normal``. An
        image that has a mask in the dataset loses it.
    :param s3_conn_id: the connection for that; by default ``aws_conn_id``.
    :raises AirflowFailException: when the entries are invalid; the dataset is as before.
    """

    template_fields: Sequence[str] = (
        *LookoutVisionBaseOperator.template_fields,
        "project_name",
        "dataset_type",
        "changes",
        "changes_s3_uri",
        "labels",
        "s3_conn_id",
    )
    operator_extra_links = DATASET_LINKS
    waiter_name: ClassVar[str] = "DatasetUpdated"

    def __init__(
        self,
        *,
        project_name: str,
        dataset_type: DatasetType,
        changes: str | Mapping[str, Any] | Iterable[str | Mapping[str, Any]] | None = None,
        changes_s3_uri: str | None = None,
        labels: Mapping[str, str] | None = None,
        s3_conn_id: str | None = None,
        waiter_delay: float = 5,
        waiter_max_attempts: int = 720,
        **kwargs: Any,
    ) -> None:
        super().__init__(waiter_delay=waiter_delay, waiter_max_attempts=waiter_max_attempts, **kwargs)
        self.project_name = project_name
        self.dataset_type = dataset_type
        self.changes = changes
        self.changes_s3_uri = changes_s3_uri
        self.labels = labels
        self.s3_conn_id = s3_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Send the first part, and wait."""
        self.check_parameters()
        self.persist_links(context, self.project_name, dataset_type=self.dataset_type)
        return self._send(context, 0)

    def waiter_args(self) -> dict[str, Any]:
        """The dataset to poll."""
        return {"ProjectName": self.project_name, "DatasetType": self.dataset_type}

    def result(self, context: Context, **state: Any) -> dict[str, Any]:
        """Send the next part, or return the description after the last."""
        part = state["part"] + 1
        if part < len(self._parts(context)):
            return self._send(context, part)
        answer = self.call("DescribeDataset", **self.waiter_args())
        description: dict[str, Any] = to_json(answer["DatasetDescription"])
        announce_dataset(self, context, description, changes_s3_uri=self.changes_s3_uri)
        return description

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:
        """Return the lineage: the object of the entries in, the dataset out."""
        from airflow_provider_lookoutvision import lineage

        return lineage.operator_lineage(
            inputs=[lineage.s3_dataset(self.changes_s3_uri)],
            outputs=lineage.project_datasets(self, self.project_name, self.dataset_type),
        )

    def _send(self, context: Context, part: int) -> dict[str, Any]:
        parts = self._parts(context)
        again = ", again if an earlier try has sent it: it counts once" if is_retry(context) else ""
        self.log.info("Sending part %d of %d: %d bytes%s", part + 1, len(parts), len(parts[part]), again)
        with fail_fast_on_client_errors():
            answer = retry_while_dataset_is_busy(
                self,
                lambda: self.call(
                    "UpdateDatasetEntries",
                    **self.waiter_args(),
                    Changes=parts[part],
                    ClientToken=self.derived_token(context, "UpdateDatasetEntries", str(part)),
                ),
            )
        last = part + 1 == len(parts)
        return self.wait_or_defer(context, answer, must_wait=not last, part=part)

    def _parts(self, context: Context) -> list[bytes]:
        if [self.changes, self.changes_s3_uri, self.labels].count(None) != 2:
            raise AirflowFailException("Set one of changes, changes_s3_uri and labels")
        lines: Any = self.changes
        if self.changes_s3_uri is not None:
            lines = self._read_s3(self.changes_s3_uri)
        elif self.labels is not None:
            lines = self._labelled(self.labels, context)
        parts = list(manifests.split_lines(str(lines).encode(), LARGEST_CHANGES))
        if not parts:
            empty = self.changes_s3_uri or ("labels" if self.changes is None else "changes")
            raise AirflowFailException(f"There are no entries: {empty} is empty")
        return parts

    def _labelled(self, labels: Mapping[str, str], context: Context) -> str:
        # A time of the run: each try sends the same bytes.
        run: Any = context["dag_run"]
        try:
            return manifests.labelled(labels, run.logical_date or run.run_after)
        except manifests.InvalidLayout as error:
            raise AirflowFailException(str(error)) from error

    def _read_s3(self, uri: str) -> str | None:
        bucket, key = parse_s3_uri("changes_s3_uri", uri)
        with fail_fast_on_s3_errors(uri):
            answer = s3_hook(self, self.s3_conn_id).conn.get_object(Bucket=bucket, Key=key)
            content: bytes = answer["Body"].read()
        try:
            return changes(uri, content.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            raise AirflowFailException(f"{uri} is not UTF-8: {error}") from error


class LookoutVisionDeleteDatasetOperator(ClientTokenMixin):
    """Delete a dataset. A dataset that is already gone is a success. Its images stay in their bucket.

    While the dataset is being imported or changed the service refuses, and Airflow's retries try again.

    :param project_name: the project.
    :param dataset_type: ``train`` or ``test``.
    :param client_token: a token of your own, used as it is; by default the task instance's.
    """

    template_fields: Sequence[str] = (*ClientTokenMixin.template_fields, "project_name", "dataset_type")

    def __init__(self, *, project_name: str, dataset_type: DatasetType, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.project_name = project_name
        self.dataset_type = dataset_type

    def execute(self, context: Context) -> None:
        """Delete the dataset, unless it is gone."""
        self.check_parameters()
        with fail_fast_on_client_errors():
            delete_dataset(self, self.project_name, self.dataset_type, self.token(context))


def announce_dataset(
    operator: LookoutVisionBaseOperator,
    context: Context,
    description: Mapping[str, Any],
    **source: str | None,
) -> None:
    """Emit the event of a dataset's asset, if the task has outlets.

    :param description: its DatasetDescription, as JSON.
    :param source: where its entries are from, by the parameter's name.
    """
    if not has_outlets(context):
        return
    project = operator.call("DescribeProject", ProjectName=description["ProjectName"])["ProjectDescription"]
    uri = dataset_uri(project["ProjectArn"], description["DatasetType"])
    names = ("ProjectName", "DatasetType", "ImageStats", "LastUpdatedTimestamp")
    extra = {name: description[name] for name in names if name in description}
    emit_asset_event(context, uri, extra | {name: place for name, place in source.items() if place})


def delete_dataset(
    operator: LookoutVisionBaseOperator, project_name: str, dataset_type: str, token: str
) -> None:
    """Call DeleteDataset, unless the dataset is gone."""
    try:
        operator.call("DeleteDataset", ProjectName=project_name, DatasetType=dataset_type, ClientToken=token)
    except operator.hook.conn.exceptions.ResourceNotFoundException:
        operator.log.info("Dataset %s/%s is already gone", project_name, dataset_type)
    else:
        operator.log.info("Dataset %s/%s is deleted", project_name, dataset_type)
