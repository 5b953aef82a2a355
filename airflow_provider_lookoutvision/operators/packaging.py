"""The operator of model packaging jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_lookoutvision.operators.base import for_xcom, no_retry_for_faults_of_the_input
from airflow_provider_lookoutvision.operators.tokens import TokenMixin
from airflow_provider_lookoutvision.operators.versions import ModelVersionMixin
from airflow_provider_lookoutvision.operators.waiting import WaitingMixin

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from airflow.providers.openlineage.extractors import OperatorLineage


class LookoutVisionStartModelPackagingJobOperator(WaitingMixin, TokenMixin, ModelVersionMixin):
    """Package a model for an edge device, once for this task instance, and return the job's description.

    The result is the ModelPackagingDescription, times as ISO 8601 in UTC, each member an XCom of its own too.
    Without waiting it is ``ProjectName`` and ``JobName``.

    A retry asks with the same client token. Of a service that repeats its answer to that, instead of
    beginning a job that has failed anew, only a clear starts another.

    A service that has no packaging jobs, such as this package's own until it has them, refuses with
    ``NotImplementedException``.

    :param project_name: the project.
    :param model_version: the version's number, or ``latest``.
    :param configuration: the API's ModelPackagingConfiguration, ``{"Greengrass": {...}}``.
    :param job_name: a name for the job; by default the service makes one.
    :param description: of the job.
    :param client_token: a token of your own, used as it is; by default the task instance's.
    :raises AirflowFailException: when the request is at fault.
    :raises AirflowException: when the job fails, with its StatusMessage.
    """

    template_fields: Sequence[str] = (
        *TokenMixin.template_fields,
        "project_name",
        "model_version",
        "configuration",
        "job_name",
        "description",
    )
    waiter: ClassVar[str] = "ModelPackagingJobSucceeded"

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
        optional = {"JobName": self.job_name, "Description": self.description}
        with no_retry_for_faults_of_the_input():
            answer = self.call(
                "StartModelPackagingJob",
                ProjectName=self.project_name,
                ModelVersion=str(self.model_version),
                Configuration=self.configuration,
                ClientToken=self.token(context),
                **{name: value for name, value in optional.items() if value},
            )
        self._job = answer["JobName"]
        unwaited = {"ProjectName": self.project_name, "JobName": self._job}
        return self.wait_then(context, unwaited, job_name=self._job)

    def waiter_arguments(self) -> dict[str, Any]:
        """Which job to ask about."""
        return {"ProjectName": self.project_name, "JobName": self._job}

    def result(self, context: Context, **state: Any) -> dict[str, Any]:
        """Return the job's description."""
        answer = self.call(
            "DescribeModelPackagingJob", ProjectName=self.project_name, JobName=state["job_name"]
        )
        description: dict[str, Any] = for_xcom(answer["ModelPackagingDescription"])
        self._made = description
        return description

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:
        """Return what OpenLineage is told: the model in, the place of the component out."""
        from airflow_provider_lookoutvision import lineage

        # The job knows the number of a version that was asked for as the latest.
        version = (self._made or {}).get("ModelVersion", str(self.model_version))
        answer = lineage.ask(self, "DescribeModel", ProjectName=self.project_name, ModelVersion=version)
        place = self.configuration["Greengrass"]["S3OutputLocation"]
        return lineage.of(
            inputs=[lineage.model(answer.get("ModelDescription"))],
            outputs=[lineage.s3(f"s3://{place['Bucket']}/{place.get('Prefix', '')}")],
        )
