"""The operators of projects: create a project, delete a project."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowException

from airflow_provider_lookoutvision.assets import asset_uri, emit_asset_event
from airflow_provider_lookoutvision.links.lookoutvision import PROJECT_LINKS
from airflow_provider_lookoutvision.operators.async_operation import PollingMixin
from airflow_provider_lookoutvision.operators.base import (
    fail_fast_on_client_errors,
    to_json,
)
from airflow_provider_lookoutvision.operators.client_token import ClientTokenMixin
from airflow_provider_lookoutvision.operators.create_base import LookoutVisionCreateBaseOperator
from airflow_provider_lookoutvision.operators.datasets import delete_dataset
from airflow_provider_lookoutvision.operators.model_version import ModelVersion

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

_HOSTED = {"STARTING_HOSTING", "HOSTED", "SYSTEM_UPDATING", "STOPPING_HOSTING"}


class LookoutVisionCreateProjectOperator(LookoutVisionCreateBaseOperator):
    """Create a project, once for this task instance, and return its ProjectMetadata.

    The result is a dict of ``ProjectArn``, ``ProjectName`` and ``CreationTimestamp`` (ISO 8601, UTC), and
    each is an XCom of its own too, so that ``create.output["ProjectName"]`` feeds another task.

    A retry, or a clear, of the task that created the project finds it again: the service keeps the client
    token that created a project, and answers it with that project. What happens to a project that this task
    instance did not create is up to ``if_exists``.

    :param project_name: the project's name: 1 to 255 letters, digits, ``-`` and ``_``, the first no
        punctuation.
    :param client_token: a token of your own, used as it is; by default the task instance's. With your own,
        the project is found after a clear only if the token is still the same.
    :param if_exists: what to do about a project of that name that this task instance did not create:
        ``fail``, without retries, or ``skip`` the creation and use it. ``use`` is an alias of ``skip``.
    :raises AirflowFailException: when the name is invalid, taken, or another than an earlier try created a
        project with.
    """

    template_fields: Sequence[str] = (*LookoutVisionCreateBaseOperator.template_fields, "project_name")
    operator_extra_links = PROJECT_LINKS
    noun: ClassVar[str] = "project"

    def __init__(self, *, project_name: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.project_name = project_name

    @property
    def resource_id(self) -> str:
        """The project's name."""
        return self.project_name

    def execute(self, context: Context) -> dict[str, Any]:
        """Create the project, or find the one that this task instance created before."""
        self.check_parameters()
        with fail_fast_on_client_errors():
            project = self.create_or_find(context)
        self.log.info("Project %s: %s", self.project_name, project["ProjectArn"])
        self.persist_links(context, self.project_name)
        metadata: dict[str, Any] = to_json(project)
        if self.is_own:
            emit_asset_event(context, asset_uri(metadata["ProjectArn"]), metadata)
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


class LookoutVisionDeleteProjectOperator(PollingMixin, ClientTokenMixin):
    """Delete a project. A project that is already gone is a success.

    :param project_name: the project's name.
    :param cascade: first delete its models and datasets, since the service deletes only an empty project.
        Hosted models are stopped, trainings cancelled, imports waited for, in the task. Images and the
        evaluations of models stay in their buckets. A retry goes on where an earlier try ended.
    :param client_token: a token of your own for the project's deletion, used as it is; by default the task
        instance's.
    :raises AirflowFailException: when the project isn't empty, and ``cascade`` isn't set.
    """

    template_fields: Sequence[str] = (*ClientTokenMixin.template_fields, "project_name", "cascade")

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
        self.check_parameters()
        with fail_fast_on_client_errors():
            try:
                if self.cascade:
                    self._delete_models(context)
                    self._delete_datasets(context)
                self.call("DeleteProject", ProjectName=self.project_name, ClientToken=self.token(context))
            except self.hook.conn.exceptions.ResourceNotFoundException:
                self.log.info("Project %s is already gone", self.project_name)
            else:
                self.log.info("Project %s is deleted", self.project_name)

    def _delete_models(self, context: Context) -> None:
        models = [
            (ModelVersion(self, self.project_name, each["ModelVersion"]), each["Status"])
            for each in self.hook.iter_models(self.project_name)
        ]
        stopping = [
            model
            for model, status in models
            if status in _HOSTED and model.stop(self.derived_token(context, "StopModel", model.version))
        ]
        for model in stopping:
            self.wait_in_task("ModelStopped", model.args)
        for model, _ in models:
            model.delete(self.derived_token(context, "DeleteModel", model.version))
        for model, _ in models:
            self.wait_in_task("ModelDeleted", model.args)

    def _delete_datasets(self, context: Context) -> None:
        project = self.call("DescribeProject", ProjectName=self.project_name)["ProjectDescription"]
        for dataset in project["Datasets"]:
            dataset_type = dataset["DatasetType"]
            try:
                self.wait_in_task(
                    "DatasetCreated", {"ProjectName": self.project_name, "DatasetType": dataset_type}
                )
            except AirflowException as failure:
                if self._killed:
                    raise
                self.log.info("Deleting it nevertheless: %s", failure)  # its creation may have failed
            token = self.derived_token(context, "DeleteDataset", dataset_type)
            delete_dataset(self, self.project_name, dataset_type, token)
