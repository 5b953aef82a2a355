"""The operators of datasets: create, update, delete."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_lookoutvision.operators.base import (
    LookoutVisionBaseOperator,
    for_xcom,
    no_retry_for_faults_of_the_input,
)
from airflow_provider_lookoutvision.operators.clearing import when_datasets_are_free
from airflow_provider_lookoutvision.operators.creating import LookoutVisionCreateBaseOperator
from airflow_provider_lookoutvision.operators.s3 import no_retry_for_faults_of_s3, s3_hook, split_s3_uri
from airflow_provider_lookoutvision.operators.tokens import TokenMixin
from airflow_provider_lookoutvision.operators.waiting import WaitingMixin

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from airflow.providers.openlineage.extractors import OperatorLineage

DatasetType = Literal["train", "test"]

LARGEST_CHANGES = 10 * 1024 * 1024


class LookoutVisionCreateDatasetOperator(WaitingMixin, LookoutVisionCreateBaseOperator):
    """Create a dataset, once for this task instance, wait until it is imported, and return its description.

    The result is the DatasetDescription: ``ProjectName``, ``DatasetType``, ``Status``, ``StatusMessage``,
    ``ImageStats`` (``Total``, ``Labeled``, ``Normal``, ``Anomaly``) and times as ISO 8601 in UTC, each an
    XCom of its own too. Without waiting it is the DatasetMetadata, which has no ``ImageStats``.

    A retry finds the dataset that an earlier try made; one whose import failed is imported anew.

    :param project_name: the project.
    :param dataset_type: ``train`` or ``test``.
    :param manifest: the Ground Truth manifest, ``s3://bucket/key``; None for an empty dataset.
    :param manifest_version_id: the version of the manifest's object.
    :param client_token: a token of your own, used as it is; by default the task instance's.
    :param if_exists: what to do about a dataset that somebody else has made: ``fail`` or ``use``.
    :raises AirflowFailException: when the manifest is at fault, with the service's StatusMessage.
    :raises AirflowException: when the service is, so that a retry helps.
    """

    template_fields: Sequence[str] = (
        *LookoutVisionCreateBaseOperator.template_fields,
        "project_name",
        "dataset_type",
        "manifest",
        "manifest_version_id",
    )
    noun: ClassVar[str] = "dataset"
    waiter: ClassVar[str] = "DatasetCreated"

    _imports: bool | None = None  # until it is known whether this task makes the dataset, or takes another's

    def __init__(
        self,
        *,
        project_name: str,
        dataset_type: DatasetType,
        manifest: str | None = None,
        manifest_version_id: str | None = None,
        waiter_delay: float = 5,
        waiter_max_attempts: int = 720,
        **kwargs: Any,
    ) -> None:
        super().__init__(waiter_delay=waiter_delay, waiter_max_attempts=waiter_max_attempts, **kwargs)
        self.project_name = project_name
        self.dataset_type = dataset_type
        self.manifest = manifest
        self.manifest_version_id = manifest_version_id

    @property
    def resource_id(self) -> str:
        """The project's name and the type."""
        return f"{self.project_name}/{self.dataset_type}"

    def execute(self, context: Context) -> dict[str, Any]:
        """Create the dataset, or find the one that this task instance made before, and wait for it."""
        with no_retry_for_faults_of_the_input():
            metadata = self.create_or_find(context)
        result: dict[str, Any] = for_xcom(metadata)
        self._imports = bool(self._imports)
        return self.wait_then(context, result, imports=self._imports)

    def waiter_arguments(self) -> dict[str, Any]:
        """Which dataset to ask about."""
        return {"ProjectName": self.project_name, "DatasetType": self.dataset_type}

    def result(self, context: Context, **state: Any) -> dict[str, Any]:
        """Return the description of what has been made."""
        self._imports = state.get("imports", True)
        description: dict[str, Any] = for_xcom(self.describe())
        self.log.info("Dataset %s: %s", self.resource_id, description["ImageStats"])
        return description

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:
        """Return what OpenLineage is told: the manifest in, the dataset out; or another's dataset in."""
        from airflow_provider_lookoutvision import lineage

        if self._imports is None:
            return lineage.of(inputs=[lineage.s3(self.manifest)], outputs=[])
        there = lineage.datasets(self, self.project_name, self.dataset_type)
        if not self._imports:
            return lineage.of(inputs=there, outputs=[])
        return lineage.of(inputs=[lineage.s3(self.manifest)], outputs=there)

    def create(self, token: str) -> dict[str, Any]:
        """Call CreateDataset."""
        parameters: dict[str, Any] = self.waiter_arguments()
        if self.manifest:
            bucket, key = split_s3_uri("manifest", self.manifest)
            version = {"VersionId": self.manifest_version_id} if self.manifest_version_id else {}
            location = {"Bucket": bucket, "Key": key, **version}
            parameters["DatasetSource"] = {"GroundTruthManifest": {"S3Object": location}}
        metadata: dict[str, Any] = self.call("CreateDataset", **parameters, ClientToken=token)[
            "DatasetMetadata"
        ]
        self._imports = True
        return metadata

    def describe(self) -> dict[str, Any]:
        """Call DescribeDataset."""
        answer = self.call("DescribeDataset", **self.waiter_arguments())
        description: dict[str, Any] = answer["DatasetDescription"]
        return description


class LookoutVisionUpdateDatasetEntriesOperator(WaitingMixin, LookoutVisionBaseOperator):
    """Add entries to a dataset and replace others, wait until that is done, and return its description.

    The service takes at most 10 MiB in one update, all of it or nothing. More is sent in parts, one after
    another, each with a wait; a retry goes on at the part that failed. A dataset that is being made, or
    changed by another task, is waited for, in the task: mapped tasks may change one.

    :param project_name: the project.
    :param dataset_type: ``train`` or ``test``.
    :param changes: the entries: JSON Lines as one text, or a list of objects.
    :param changes_s3_uri: the entries as an object of JSON Lines in S3, ``s3://bucket/key``, instead.
    :param s3_conn_id: the connection for that; by default ``aws_conn_id``.
    :raises AirflowFailException: when the entries are at fault; the dataset is as before.
    """

    template_fields: Sequence[str] = (
        *LookoutVisionBaseOperator.template_fields,
        "project_name",
        "dataset_type",
        "changes",
        "changes_s3_uri",
        "s3_conn_id",
    )
    waiter: ClassVar[str] = "DatasetUpdated"

    def __init__(
        self,
        *,
        project_name: str,
        dataset_type: DatasetType,
        changes: str | Sequence[Mapping[str, Any]] | None = None,
        changes_s3_uri: str | None = None,
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
        self.s3_conn_id = s3_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Send the first part, and wait."""
        return self._send(context, 0)

    def waiter_arguments(self) -> dict[str, Any]:
        """Which dataset to ask about."""
        return {"ProjectName": self.project_name, "DatasetType": self.dataset_type}

    def result(self, context: Context, **state: Any) -> dict[str, Any]:
        """Send the next part, or return the description when all are done."""
        part = state["part"] + 1
        if part < len(self._parts()):
            return self._send(context, part)
        answer = self.call("DescribeDataset", **self.waiter_arguments())
        description: dict[str, Any] = for_xcom(answer["DatasetDescription"])
        return description

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:
        """Return what OpenLineage is told: the entries' object in, the dataset out."""
        from airflow_provider_lookoutvision import lineage

        return lineage.of(
            inputs=[lineage.s3(self.changes_s3_uri)],
            outputs=lineage.datasets(self, self.project_name, self.dataset_type),
        )

    def _send(self, context: Context, part: int) -> dict[str, Any]:
        parts = self._parts()
        self.log.info("Sending part %d of %d: %d bytes", part + 1, len(parts), len(parts[part]))
        with no_retry_for_faults_of_the_input():
            answer = when_datasets_are_free(
                self,
                lambda: self.call(
                    "UpdateDatasetEntries",
                    **self.waiter_arguments(),
                    Changes=parts[part],
                    ClientToken=self.derived_token(context, "UpdateDatasetEntries", str(part)),
                ),
            )
        last = part + 1 == len(parts)
        return self.wait_then(context, answer, always=not last, part=part)

    def _parts(self) -> list[bytes]:
        if (self.changes is None) == (self.changes_s3_uri is None):
            raise AirflowFailException("Set one of changes and changes_s3_uri")
        if self.changes_s3_uri is not None:
            text = self._read_s3(self.changes_s3_uri)
        elif isinstance(self.changes, str):
            text = self.changes.encode()
        else:
            text = "\n".join(json.dumps(entry, ensure_ascii=False) for entry in self.changes or ()).encode()
        parts = list(split_lines(text, LARGEST_CHANGES))
        if not parts:
            raise AirflowFailException("There are no entries: changes is empty")
        return parts

    def _read_s3(self, uri: str) -> bytes:
        bucket, key = split_s3_uri("changes_s3_uri", uri)
        with no_retry_for_faults_of_s3(uri):
            answer = s3_hook(self, self.s3_conn_id).conn.get_object(Bucket=bucket, Key=key)
            content: bytes = answer["Body"].read()
        return content


class LookoutVisionDeleteDatasetOperator(TokenMixin):
    """Delete a dataset. One that is already gone is success; its images stay where they are.

    While the dataset is made or changed the service refuses, and the task is left to Airflow's retries.

    :param project_name: the project.
    :param dataset_type: ``train`` or ``test``.
    :param client_token: a token of your own, used as it is; by default the task instance's.
    """

    template_fields: Sequence[str] = (*TokenMixin.template_fields, "project_name", "dataset_type")

    def __init__(self, *, project_name: str, dataset_type: DatasetType, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.project_name = project_name
        self.dataset_type = dataset_type

    def execute(self, context: Context) -> None:
        """Delete the dataset, unless it is gone."""
        with no_retry_for_faults_of_the_input():
            delete_dataset(self, self.project_name, self.dataset_type, self.token(context))


def delete_dataset(
    operator: LookoutVisionBaseOperator, project_name: str, dataset_type: str, token: str
) -> None:
    """Call DeleteDataset; a dataset that is gone is fine."""
    try:
        operator.call("DeleteDataset", ProjectName=project_name, DatasetType=dataset_type, ClientToken=token)
    except operator.hook.conn.exceptions.ResourceNotFoundException:
        operator.log.info("Dataset %s/%s is already gone", project_name, dataset_type)
    else:
        operator.log.info("Dataset %s/%s is deleted", project_name, dataset_type)


def split_lines(text: bytes, most: int) -> Iterator[bytes]:
    """Split JSON Lines into parts of at most ``most`` bytes, between lines."""
    part = b""
    for line in text.splitlines(keepends=True):
        if not line.strip():
            continue
        if part and len(part) + len(line) > most:
            yield part
            part = b""
        part += line
    if part:
        yield part
