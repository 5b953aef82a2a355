"""The operators of projects: create, delete."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_provider_lookoutvision.assets import announce
from airflow_provider_lookoutvision.operators.base import (
    for_xcom,
    no_retry_for_faults_of_the_input,
)
from airflow_provider_lookoutvision.operators.creating import LookoutVisionCreateBaseOperator
from airflow_provider_lookoutvision.operators.datasets import delete_dataset
from airflow_provider_lookoutvision.operators.tokens import TokenMixin
from airflow_provider_lookoutvision.operators.versions import Model
from airflow_provider_lookoutvision.operators.waiting import PatientMixin

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

_IN_SERVICE = {"STARTING_HOSTING", "HOSTED", "SYSTEM_UPDATING", "STOPPING_HOSTING"}


class LookoutVisionCreateProjectOperator(LookoutVisionCreateBaseOperator):
    """Create a project, once for this task instance, and return its ProjectMetadata.

    The result is a dict of ``ProjectArn``, ``ProjectName`` and ``CreationTimestamp`` (ISO 8601, UTC), and
    each is an XCom of its own too, so that ``create.output["ProjectName"]`` feeds another task.

    A retry, or a clear, of a task that made the project finds it again, by proof: the service keeps the
    client token that made a project, and answers it with that project. A project that this task instance did
    not make is somebody else's, and ``if_exists`` says what then.

    :param project_name: the project's name: 1 to 255 letters, digits, ``-`` and ``_``, the first no
        punctuation.
    :param client_token: a token of your own, used as it is; by default the task instance's. With your own,
        finding the project after a clear is up to the token.
    :param if_exists: what to do about somebody else's project of that name: ``fail``, without retries, or
        ``use`` it.
    :raises AirflowFailException: when the name is invalid, taken, or not the one an earlier try made a
        project with.
    """

    template_fields: Sequence[str] = (*LookoutVisionCreateBaseOperator.template_fields, "project_name")
    noun: ClassVar[str] = "project"

    def __init__(self, *, project_name: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.project_name = project_name

    @property
    def resource_id(self) -> str:
        """The project's name."""
        return self.project_name

    def execute(self, context: Context) -> dict[str, Any]:
        """Create the project, or find the one that this task instance made before."""
        with no_retry_for_faults_of_the_input():
            project = self.create_or_find(context)
        self.log.info("Project %s: %s", self.project_name, project["ProjectArn"])
        metadata: dict[str, Any] = for_xcom(project)
        announce(context, metadata["ProjectArn"], metadata)
        return metadata

    def create(self, token: str) -> dict[str, Any]:
        """Call CreateProject."""
        answer = self.call("CreateProject", ProjectName=self.project_name, ClientToken=token)
        metadata: dict[str, Any] = answer["ProjectMetadata"]
        return metadata

    def describe(self) -> dict[str, Any]:
        """Call DescribeProject, and return what CreateProject would."""
        description = self.call("DescribeProject", ProjectName=self.project_name)["ProjectDescription"]
        return {name: description[name] for name in ("ProjectArn", "ProjectName", "CreationTimestamp")}


class LookoutVisionDeleteProjectOperator(PatientMixin, TokenMixin):
    """Delete a project. One that is already gone is success.

    :param project_name: the project's name.
    :param cascade: delete its models and datasets too, first, as the service demands. Hosted models are
        stopped, trainings cancelled, imports waited for, in the task. Images, and the evaluations of models,
        stay where they are. A retry goes on where an earlier try ended.
    :param client_token: a token of your own for the project's deletion, used as it is; by default the task
        instance's.
    :raises AirflowFailException: when the project isn't empty, and ``cascade`` isn't set.
    """

    template_fields: Sequence[str] = (*TokenMixin.template_fields, "project_name", "cascade")

    def __init__(
        self,
        *,
        project_name: str,
        cascade: bool = False,
        waiter_delay: float = 2,
        waiter_max_attempts: int = 900,
        **kwargs: Any,
    ) -> None:
        super().__init__(waiter_delay=waiter_delay, waiter_max_attempts=waiter_max_attempts, **kwargs)
        self.project_name = project_name
        self.cascade = cascade

    def execute(self, context: Context) -> None:
        """Delete the project, unless it is gone."""
        cascade = self._cascades()
        with no_retry_for_faults_of_the_input():
            try:
                if cascade:
                    self._delete_models(context)
                    self._delete_datasets(context)
                self.call("DeleteProject", ProjectName=self.project_name, ClientToken=self.token(context))
            except self.hook.conn.exceptions.ResourceNotFoundException:
                self.log.info("Project %s is already gone", self.project_name)
            else:
                self.log.info("Project %s is deleted", self.project_name)

    def _cascades(self) -> bool:
        # A template renders to text, and "False" would be true.
        told = str(self.cascade).strip().lower()
        if told not in ("true", "false"):
            raise AirflowFailException(f"cascade is {self.cascade!r}; it must be true or false")
        return told == "true"

    def _delete_models(self, context: Context) -> None:
        models = [
            (Model(self, self.project_name, each["ModelVersion"]), each["Status"])
            for each in self.hook.iter_models(self.project_name)
        ]
        stopping = [
            model
            for model, status in models
            if status in _IN_SERVICE and model.stop(self.derived_token(context, "StopModel", model.version))
        ]
        for model in stopping:
            self.wait_in_task("ModelStopped", model.arguments)
        for model, _ in models:
            model.delete(self.derived_token(context, "DeleteModel", model.version))
        for model, _ in models:
            self.wait_in_task("ModelDeleted", model.arguments)

    def _delete_datasets(self, context: Context) -> None:
        project = self.call("DescribeProject", ProjectName=self.project_name)["ProjectDescription"]
        for dataset in project["Datasets"]:
            dataset_type = dataset["DatasetType"]
            arguments = {"ProjectName": self.project_name, "DatasetType": dataset_type}
            try:
                self.wait_in_task("DatasetCreated", arguments)
            except AirflowException as failure:
                if self._killed:
                    raise
                self.log.info("Going on to delete it: %s", failure)  # such as one that could not be made
            token = self.derived_token(context, "DeleteDataset", dataset_type)
            delete_dataset(self, self.project_name, dataset_type, token)
