"""The hook: boto3's Lookout for Vision client, as a connection configures it.

The client is the API: ``hook.conn`` has the model's operations, and ``hook.get_waiter`` its waiters. The hook
adds what today's boto3 lacks: the API model, and an error instead of a request to the AWS service, which has
ended.
"""

from __future__ import annotations

import json
import math
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException
from botocore.config import Config

from airflow_provider_lookoutvision.hooks.connection import (
    LookoutVisionConnectionMixin,
    form_behaviour,
    form_widgets,
    s3_failure,
)
from airflow_provider_lookoutvision.hooks.endpoint import check_answers, configuration_errors, refuse_aws
from airflow_provider_lookoutvision.model import register_service_model
from airflow_provider_lookoutvision.provider_info import CONNECTION_TYPE, CONNECTION_TYPE_NAME

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterator, Mapping

SERVICE = "lookoutvision"
THRESHOLD_TAG = "lookoutvision:threshold"


class LookoutVisionHook(LookoutVisionConnectionMixin):
    """Interact with a Lookout for Vision service, by a connection of the type ``lookoutvision`` or ``aws``.

    Everything that the connection type ``aws`` offers works: keys, assumed roles, profiles, web identity,
    region, proxies, ``verify``, ``config_kwargs`` and endpoints. Three extras are this provider's own:
    ``client_token_namespace``, ``requests_per_second`` and ``console_url``.

    :param aws_conn_id: the Airflow connection; ``None`` for boto3's own configuration.
    :param region_name: the AWS region; by default the connection's.
    :param verify: whether, or with which bundle, TLS certificates are verified.
    :param config: botocore's client configuration, as a ``botocore.config.Config`` or its arguments.
    :raises LookoutVisionConfigurationError: when a client is made and no region or no usable endpoint is
        configured, or when something answers that is no Lookout for Vision service.

    .. seealso:: :class:`airflow.providers.amazon.aws.hooks.base_aws.AwsBaseHook`
    """

    conn_type = CONNECTION_TYPE_NAME
    hook_name = CONNECTION_TYPE["hook-name"]

    if TYPE_CHECKING:
        conn: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "client_type": SERVICE})

    @property
    def client_token_namespace(self) -> str:
        """The extra ``client_token_namespace`` of the connection; empty without one."""
        return str(self.conn_config.extra_config.get("client_token_namespace") or "")

    @property
    def console_url(self) -> str:
        """The service's console: the connection's extra of that name, or ``/console`` at its endpoint."""
        given = self.conn_config.extra_config.get("console_url")
        return str(given or f"{self.conn.meta.endpoint_url.rstrip('/')}/console").rstrip("/")

    @property
    def requests_per_second(self) -> float:
        """How often a triggerer's waits together poll each operation: the connection's extra of that name.

        By default 5, which the AWS service allowed.

        :raises AirflowFailException: when it isn't a number above 0.
        """
        given = self.conn_config.extra_config.get("requests_per_second")
        if given is None:
            return 5.0
        try:
            rate = float(given)
        except (TypeError, ValueError):
            rate = math.nan
        if not 0 < rate < math.inf:
            raise AirflowFailException(
                f"The extra requests_per_second of the connection {self.aws_conn_id!r} is {given!r}; it must "
                "be a number above 0, such as 5 or 0.5"
            )
        return rate

    def iter_projects(self) -> Iterator[dict[str, Any]]:
        """Yield the ProjectMetadata of all projects, page by page."""
        for page in self.conn.get_paginator("list_projects").paginate():
            yield from page["Projects"]

    def iter_dataset_entries(
        self, project_name: str, dataset_type: str, **filters: Any
    ) -> Iterator[dict[str, Any]]:
        """Yield the entries of a dataset, page by page, each JSON line as a dict.

        :param filters: the other members of ListDatasetEntries, such as ``Labeled=True``.
        """
        pages = self.conn.get_paginator("list_dataset_entries").paginate(
            ProjectName=project_name, DatasetType=dataset_type, **filters
        )
        for page in pages:
            yield from map(json.loads, page["DatasetEntries"])

    def iter_models(self, project_name: str) -> Iterator[dict[str, Any]]:
        """Yield the ModelMetadata of a project's models, page by page, the oldest version first."""
        for page in self.conn.get_paginator("list_models").paginate(ProjectName=project_name):
            yield from page["Models"]

    def latest_model(self, project_name: str, status: str | Collection[str] = ()) -> dict[str, Any] | None:
        """Return the ModelMetadata of a project's newest model, or None if it has none.

        The API's own ``latest`` is the highest version in any state.

        :param status: only models with this status, such as ``TRAINED``, or with one of these.
        """
        wanted = (status,) if isinstance(status, str) else status
        models = (each for each in self.iter_models(project_name) if not wanted or each["Status"] in wanted)
        return max(models, key=lambda each: int(each["ModelVersion"]), default=None)

    def tagged_models(self, project_name: str, tags: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        """Yield the ModelMetadata of the models that have all these tags, the newest first.

        It takes a request for each model: ListModels has no tags.
        """
        newest_first = sorted(self.iter_models(project_name), key=lambda each: -int(each["ModelVersion"]))
        for model in newest_first:
            try:
                found = self.tags(model["ModelArn"])
            except self.conn.exceptions.ResourceNotFoundException:
                continue  # deleted meanwhile
            if tags.items() <= found.items():
                yield model

    def iter_model_packaging_jobs(self, project_name: str) -> Iterator[dict[str, Any]]:
        """Yield the ModelPackagingJobMetadata of a project's model packaging jobs, page by page."""
        pages = self.conn.get_paginator("list_model_packaging_jobs").paginate(ProjectName=project_name)
        for page in pages:
            yield from page["ModelPackagingJobs"]

    def tags(self, arn: str) -> dict[str, str]:
        """Return the tags of a model.

        :param arn: its ModelArn.
        """
        tags = self.conn.list_tags_for_resource(ResourceArn=arn)["Tags"]
        return {tag["Key"]: tag["Value"] for tag in tags}

    def tag(self, arn: str, tags: Mapping[str, str]) -> None:
        """Add tags to a model; an existing tag gets the new value, and the others stay."""
        listed = [{"Key": key, "Value": value} for key, value in tags.items()]
        self.conn.tag_resource(ResourceArn=arn, Tags=listed)

    def untag(self, arn: str, *keys: str) -> None:
        """Remove tags from a model; a missing tag is no error."""
        self.conn.untag_resource(ResourceArn=arn, TagKeys=list(keys))

    def set_threshold(self, project_name: str, model_version: str, threshold: float) -> None:
        """Set the threshold of a trained model's verdicts, from the next detection on; 0.5 is a model's own.

        An image is anomalous when the probability of that is above the threshold. It is kept as the model's
        tag ``lookoutvision:threshold``.

        :param model_version: the version's number, or ``latest``.
        :param threshold: between 0 and 1.
        """
        arn = self.conn.describe_model(ProjectName=project_name, ModelVersion=model_version)[
            "ModelDescription"
        ]["ModelArn"]
        self.tag(arn, {THRESHOLD_TAG: repr(float(threshold))})

    def get_session(self, region_name: str | None = None, deferrable: bool = False) -> Any:
        """Return a boto3 session, or an aiobotocore session, that knows the service."""
        session = super().get_session(region_name=region_name, deferrable=deferrable)
        register_service_model(session)
        return session

    def get_client_type(
        self, region_name: str | None = None, config: Any = None, deferrable: bool = False
    ) -> Any:
        """Return a client; with ``deferrable``, an async context manager of an aiobotocore client."""
        with configuration_errors(self.aws_conn_id):
            client = super().get_client_type(region_name=region_name, config=config, deferrable=deferrable)
        if deferrable:
            return self._checked(client)
        self._check(client)
        return client

    def client_without_retries(self, deferrable: bool = False, **config: Any) -> Any:
        """Return a client that sends each request once, for callers with retries of their own.

        :param deferrable: return an async context manager of an aiobotocore client.
        :param config: further arguments of ``botocore.config.Config``.
        """
        once = self.config.merge(Config(retries={"total_max_attempts": 1}, **config))
        return self.get_client_type(self.region_name, once, deferrable)

    def test_connection(self) -> tuple[bool, str]:
        """List one project, and the buckets of the S3 that a connection of the type ``lookoutvision`` has.

        The inherited test calls STS, which says nothing about this service.
        """
        try:
            self.conn.list_projects(MaxResults=1)
            failure = s3_failure(self.aws_conn_id)
        except Exception as error:
            return False, f"{type(error).__name__}: {error}"
        if failure:
            return False, f"{self.conn.meta.endpoint_url} answers, but {failure}"
        return True, f"{self.conn.meta.endpoint_url} answers in region {self.conn.meta.region_name}."

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the fields of the connection's form."""
        return form_widgets()

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return which standard fields the connection's form has."""
        return form_behaviour()

    @asynccontextmanager
    async def _checked(self, creating: AbstractAsyncContextManager[Any]) -> AsyncIterator[Any]:
        async with AsyncExitStack() as stack:
            with configuration_errors(self.aws_conn_id):
                client = await stack.enter_async_context(creating)
            self._check(client)
            yield client

    def _check(self, client: Any) -> None:
        refuse_aws(client, self.aws_conn_id)
        check_answers(client, self.aws_conn_id)
