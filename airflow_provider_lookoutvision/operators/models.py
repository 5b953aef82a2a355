"""The operators of models: train, delete."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_provider_lookoutvision.assets import announce
from airflow_provider_lookoutvision.operators.base import for_xcom, no_retry_for_faults_of_the_input
from airflow_provider_lookoutvision.operators.clearing import when_datasets_are_free
from airflow_provider_lookoutvision.operators.s3 import split_s3_prefix
from airflow_provider_lookoutvision.operators.tokens import TokenMixin
from airflow_provider_lookoutvision.operators.versions import GONE, Model, ModelVersionMixin
from airflow_provider_lookoutvision.operators.waiting import CancelOnKillMixin, WaitingMixin

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from airflow.providers.openlineage.extractors import OperatorLineage

_FIGURES = ("F1Score", "Precision", "Recall")


class LookoutVisionCreateModelOperator(CancelOnKillMixin, TokenMixin):
    """Train a model, once for this task instance, wait until it is evaluated, and return its description.

    The result is the ModelDescription: ``ModelVersion``, ``ModelArn``, ``Status``, ``Performance``
    (``F1Score``, ``Precision``, ``Recall``), where the evaluation is, and times as ISO 8601 in UTC, each an
    XCom of its own too. Without waiting it is the ModelMetadata, which has no ``Performance`` yet.

    A dataset that is being made or changed is waited for. A retry finds the training that an earlier try
    began; one that failed through a fault of the service is begun anew, under a new version number. A clear
    trains another version: that is what it is for. The asset event needs the wait, since before there is no
    model to use.

    :param project_name: the project. It is trained on its datasets as they are when the training begins.
    :param output_location: where the evaluation goes, ``s3://bucket/prefix``. The prefix is put before the
        files' names as it is: for a folder let it end with ``/``.
    :param description: 1 to 500 letters, digits, ``.``, ``-`` and ``_``.
    :param kms_key_id: the key for what the service keeps of the training.
    :param tags: the model's tags, as a dict, or as the API's list of ``Key`` and ``Value``.
    :param min_f1: the least F1 score, 0 to 1; the task fails, and keeps the model, when it is lower.
    :param client_token: a token of your own, used as it is; by default the task instance's. With your own, a
        clear finds the same training again.
    :param cancel_on_kill: whether to cancel the training, which deletes the model, when the task is killed
        while it waits. A retry then trains another version.
    :raises AirflowFailException: when the images are at fault, with the service's StatusMessage; or when the
        model is worse than ``min_f1``, with its figures.
    :raises AirflowException: when the service is at fault, or trains as many as it may, so that a retry
        helps.
    """

    template_fields: Sequence[str] = (
        *TokenMixin.template_fields,
        "project_name",
        "output_location",
        "description",
        "kms_key_id",
        "tags",
        "min_f1",
    )
    waiter: ClassVar[str] = "ModelTrained"
    asks_before_deferring: ClassVar[bool] = True

    _model: Model
    _made: Mapping[str, Any] | None = None

    def __init__(
        self,
        *,
        project_name: str,
        output_location: str,
        description: str | None = None,
        kms_key_id: str | None = None,
        tags: Mapping[str, str] | Sequence[Mapping[str, str]] | None = None,
        min_f1: float | str | None = None,
        waiter_delay: float = 30,
        waiter_max_attempts: int = 6000,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            waiter_delay=waiter_delay,
            waiter_max_attempts=waiter_max_attempts,
            **{"multiple_outputs": True, **kwargs},
        )
        self.project_name = project_name
        self.output_location = output_location
        self.description = description
        self.kms_key_id = kms_key_id
        self.tags = tags
        self.min_f1 = min_f1
        if min_f1 is not None and not self.wait_for_completion:
            raise AirflowFailException("min_f1 needs wait_for_completion: the score is known at the end")

    def execute(self, context: Context) -> dict[str, Any]:
        """Begin the training, or find the one that this task instance began before, and wait for it."""
        self._least_f1()  # a wrong one is found now, not after the training
        with no_retry_for_faults_of_the_input():
            metadata: dict[str, Any] = for_xcom(self._begin(context, self.token(context)))
        self._made = metadata
        self._model = Model(self, self.project_name, metadata["ModelVersion"])
        self.begun("DeleteModel", **self._cancelling(context, self._model))
        self.log.info("Model %s: %s", self._model.name, metadata["ModelArn"])
        return self.wait_then(context, metadata, model_version=self._model.version)

    def waiter_arguments(self) -> dict[str, Any]:
        """Which model to ask about."""
        return self._model.arguments

    def result(self, context: Context, **state: Any) -> dict[str, Any]:
        """Return the description of what has been trained, if it is good enough."""
        model = Model(self, self.project_name, state["model_version"])
        description: dict[str, Any] = for_xcom(model.describe())
        self._made = description
        figures = description.get("Performance", {})
        told = ", ".join(f"{name} {figures.get(name, 0):.4f}" for name in _FIGURES)
        self.log.info("Model %s: %s", model.name, told)
        least = self._least_f1()
        if least is not None and figures.get("F1Score", 0) < least:
            raise AirflowFailException(
                f"Model {model.name} is not good enough: {told}; min_f1 is {least}. The model is kept"
            )
        announce(context, description["ModelArn"], {"ModelVersion": model.version, **figures})
        return description

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:
        """Return what OpenLineage is told: the project's datasets in, the model and its evaluation out."""
        from airflow_provider_lookoutvision import lineage

        made = self._made or {}
        evaluation = [made[name] for name in ("EvaluationManifest", "EvaluationResult") if name in made]
        return lineage.of(
            inputs=lineage.datasets(self, self.project_name),
            outputs=[
                lineage.model(made),
                *(lineage.s3(f"s3://{each['Bucket']}/{each['Key']}") for each in evaluation),
            ],
        )

    def _least_f1(self) -> float | None:
        if self.min_f1 is None:
            return None
        try:
            least = float(self.min_f1)
        except (TypeError, ValueError):
            least = -1
        if not 0 <= least <= 1:
            raise AirflowFailException(f"min_f1 is {self.min_f1!r}; it must be a number from 0 to 1")
        return least

    def _begin(self, context: Context, token: str) -> dict[str, Any]:
        self.log.info("Training a model of project %s with client token %s", self.project_name, token)
        exceptions = self.hook.conn.exceptions
        try:
            return self._create(token)
        except exceptions.ConflictException as conflict:
            if conflict.response.get("ResourceType") != "MODEL":
                raise
            model = Model(self, self.project_name, conflict.response["ResourceId"].rpartition("/")[2])
            if model.status() != GONE:
                raise
            try:
                # If a killed try of this task instance has cancelled it, the service repeats its answer.
                self.call("DeleteModel", **self._cancelling(context, model))
            except exceptions.ResourceNotFoundException:
                raise conflict from None
        self.log.info("An earlier try was killed, and has cancelled the training of model %s", model.name)
        return self._begin(context, self.derived_token(context, "after", model.version))

    def _cancelling(self, context: Context, model: Model) -> dict[str, str]:
        return {**model.arguments, "ClientToken": self.derived_token(context, "cancel", model.version)}

    def _create(self, token: str) -> dict[str, Any]:
        bucket, prefix = split_s3_prefix("output_location", self.output_location)
        optional = {
            "Description": self.description,
            "KmsKeyId": self.kms_key_id,
            "Tags": _tag_list(self.tags),
        }
        try:
            answer = when_datasets_are_free(
                self,
                lambda: self.call(
                    "CreateModel",
                    ProjectName=self.project_name,
                    OutputConfig={"S3Location": {"Bucket": bucket, "Prefix": prefix}},
                    ClientToken=token,
                    **{name: value for name, value in optional.items() if value},
                ),
            )
        except self.hook.conn.exceptions.ServiceQuotaExceededException as error:
            raise AirflowException(
                f"{error}. A retry of this task asks again: give it as many retries, and as long a "
                "retry_delay, as trainings take to end"
            ) from error
        metadata: dict[str, Any] = answer["ModelMetadata"]
        return metadata


class LookoutVisionDeleteModelOperator(WaitingMixin, TokenMixin, ModelVersionMixin):
    """Delete a model, and wait until it is gone. One that is already gone is success.

    A model that is being trained is deleted too: that cancels the training. Its evaluation stays where it is.
    A stop is waited for in the task.

    :param project_name: the project.
    :param model_version: the version's number.
    :param stop_if_hosted: stop a model that is hosted, and then delete it; by default that is an error.
    :param client_token: a token of your own for the deletion, used as it is; by default the task instance's.
    :raises AirflowFailException: when the model is hosted, and ``stop_if_hosted`` isn't set.
    """

    template_fields: Sequence[str] = (*TokenMixin.template_fields, "project_name", "model_version")
    waiter: ClassVar[str] = "ModelDeleted"
    asks_before_deferring: ClassVar[bool] = True

    def __init__(
        self,
        *,
        stop_if_hosted: bool = False,
        waiter_delay: float = 2,
        waiter_max_attempts: int = 300,
        **kwargs: Any,
    ) -> None:
        super().__init__(waiter_delay=waiter_delay, waiter_max_attempts=waiter_max_attempts, **kwargs)
        self.stop_if_hosted = stop_if_hosted

    def execute(self, context: Context) -> None:
        """Delete the model, unless it is gone."""
        model = self._named()
        with no_retry_for_faults_of_the_input():
            try:
                model.delete(self.token(context))
            except self.hook.conn.exceptions.ConflictException:
                if not self.stop_if_hosted:
                    raise
                if model.stop(self.derived_token(context, "StopModel")):
                    self.wait_in_task("ModelStopped", model.arguments)
                model.delete(self.token(context))
        self.wait_then(context, {})

    def waiter_arguments(self) -> dict[str, Any]:
        """Which model to ask about."""
        return self._named().arguments

    def result(self, context: Context, **_: Any) -> Any:
        """Return nothing: the model is gone."""

    def _named(self) -> Model:
        # The API deletes nothing by the name of latest, so that no retry deletes a second one.
        return Model(self, self.project_name, str(self.model_version))


def _tag_list(tags: Mapping[str, str] | Sequence[Mapping[str, str]] | None) -> list[dict[str, str]]:
    if isinstance(tags, str):
        raise AirflowFailException(
            f"tags is {tags!r}; it must be a dict, or a list: let the DAG render_template_as_native_obj"
        )
    if isinstance(tags, Mapping):
        tags = [{"Key": key, "Value": value} for key, value in tags.items()]
    # A DAG that renders templates to native objects makes a number of "7".
    return [{name: str(text) for name, text in tag.items()} for tag in tags or ()]
