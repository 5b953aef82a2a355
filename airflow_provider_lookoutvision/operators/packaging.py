"""The operator of model packaging jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_lookoutvision.links.lookoutvision import MODEL_LINKS
from airflow_provider_lookoutvision.operators.async_operation import AsyncOperationMixin
from airflow_provider_lookoutvision.operators.base import fail_fast_on_client_errors, to_json
from airflow_provider_lookoutvision.operators.client_token import ClientTokenMixin
from airflow_provider_lookoutvision.operators.model_version import ModelVersionMixin

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from airflow.providers.openlineage.extractors import OperatorLineage


class LookoutVisionStartModelPackagingJobOperator(AsyncOperationMixin, ClientTokenMixin, ModelVersionMixin):
    """Package a model for an edge device, once for this task instance, and return the job's description.

    The result is the ModelPackagingDescription, times as ISO 8601 in UTC, each member an XCom of its own too.
    Without waiting it is ``ProjectName`` and ``JobName``.

    A retry uses the same client token. A service may answer it with the failed job instead of starting it
    anew; then only a clear starts another job.

    :param project_name: the project.
    :param model_version: the version's number, or ``latest``, or a tag such as ``stage=production``.
    :param configuration: the API's ModelPackagingConfiguration, ``{"Greengrass": {...}}``.
    :param job_name: a name for the job; by default the service makes one.
    :param description: of the job.
    :param client_token: a token of your own, used as it is; by default the task instance's.
    :raises AirflowFailException: when the request is invalid.
    :raises AirflowException: when the job fails, with its StatusMessage.
    """

    template_fields: Sequence[str] = (
        *ClientTokenMixin.template_fields,
        "project_name",
        "model_version",
        "configuration",
        "job_name",
        "description",
    )
    operator_extra_links = MODEL_LINKS
    waiter_name: ClassVar[str] = "ModelPackagingJobSucceeded"

    _job: str
    _made: Mapping[str, Any] | None = None

    def __init__(
        self,
        *,
        configuration: Mapping[str, Any],
        job_name: str | None = None,
        description: str | None = None,
        waiter_delay: float = 15,
        waiter_max_attempts: int = 480,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            waiter_delay=waiter_delay,
            waiter_max_attempts=waiter_max_attempts,
            **{"multiple_outputs": True, **kwargs},
        )
        self.configuration = configuration
        self.job_name = job_name
        self.description = description

    def execute(self, context: Context) -> dict[str, Any]:
        """Start the job, or find the one that this task instance started before, and wait for it."""
        self.check_parameters()
        optional = {"JobName": self.job_name, "Description": self.description}
        with fail_fast_on_client_errors():
            answer = self.call(
                "StartModelPackagingJob",
                ProjectName=self.project_name,
                ModelVersion=self.tagged_version().version,
                Configuration=self.configuration,
                ClientToken=self.token(context),
                **{name: value for name, value in optional.items() if value},
            )
        self._job = answer["JobName"]
        unfinished = {"ProjectName": self.project_name, "JobName": self._job}
        return self.wait_or_defer(context, unfinished, job_name=self._job)

    def waiter_args(self) -> dict[str, Any]:
        """The job to poll."""
        return {"ProjectName": self.project_name, "JobName": self._job}

    def result(self, context: Context, **state: Any) -> dict[str, Any]:
        """Return the job's description."""
        answer = self.call(
            "DescribeModelPackagingJob", ProjectName=self.project_name, JobName=state["job_name"]
        )
        description: dict[str, Any] = to_json(answer["ModelPackagingDescription"])
        self._made = description
        self.persist_links(context, self.project_name, model_version=description.get("ModelVersion", ""))
        return description

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:
        """Return the lineage: the model in, the component out."""
        from airflow_provider_lookoutvision import lineage

        # The job has the number of a version that was named "latest".
        version = (self._made or {}).get("ModelVersion", self.model_version)
        answer = lineage.call_if_available(
            self, "DescribeModel", ProjectName=self.project_name, ModelVersion=version
        )
        location = self.configuration["Greengrass"]["S3OutputLocation"]
        return lineage.operator_lineage(
            inputs=[lineage.model_dataset(answer.get("ModelDescription"))],
            outputs=[lineage.s3_dataset(f"s3://{location['Bucket']}/{location.get('Prefix', '')}")],
        )
