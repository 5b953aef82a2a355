"""The operators of models: train a model, delete a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_provider_lookoutvision.assets import emit_asset_event, models_uri
from airflow_provider_lookoutvision.links.lookoutvision import MODEL_LINKS
from airflow_provider_lookoutvision.operators.async_operation import AsyncOperationMixin, CancelOnKillMixin
from airflow_provider_lookoutvision.operators.base import fail_fast_on_client_errors, to_json
from airflow_provider_lookoutvision.operators.client_token import ClientTokenMixin
from airflow_provider_lookoutvision.operators.dataset_lock import retry_while_dataset_is_busy
from airflow_provider_lookoutvision.operators.model_version import GONE, ModelVersion, ModelVersionMixin
from airflow_provider_lookoutvision.operators.s3 import parse_s3_prefix
from airflow_provider_lookoutvision.operators.values import METRICS

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from airflow.providers.openlineage.extractors import OperatorLineage


class LookoutVisionCreateModelOperator(CancelOnKillMixin, ClientTokenMixin):
    """Train a model, once for this task instance, wait until it is evaluated, and return its description.

    The result is the ModelDescription: ``ModelVersion``, ``ModelArn``, ``Status``, ``Performance``
    (``F1Score``, ``Precision``, ``Recall``), where the evaluation is, and times as ISO 8601 in UTC, each an
    XCom of its own too. Without waiting it is the ModelMetadata, which has no ``Performance`` yet.

    A dataset that is being imported or changed is waited for. A retry finds the training that an earlier try
    started; a training that failed because of the service is started anew, under a new version number. A
    clear trains another version: that is what it is for. The asset event is emitted after the wait, since
    before it there is no model to use.

    :param project_name: the project. The model is trained on its datasets as they are when the training
        starts.
    :param output_s3_prefix: where the evaluation goes, ``s3://bucket/prefix``. The prefix is put before the
        files' names as it is: a folder ends with ``/``.
    :param description: a line of text, 1 to 500 characters.
    :param kms_key_id: the key for what the service keeps of the training.
    :param tags: the model's tags, as a dict, or as the API's list of ``Key`` and ``Value``.
    :param effort: ``quick``, or ``thorough``, which trains the network itself too, takes minutes longer, and
        finds and paints more where there are masks; by default what the service is set to. It becomes the
        model's tag ``lookoutvision:effort``.
    :param min_f1: the lowest acceptable F1 score, 0 to 1; below it the task fails, and keeps the model.
    :param client_token: a token of your own, used as it is; by default the task instance's. With your own, a
        clear finds the same training again.
    :param cancel_on_kill: whether to cancel the training, which deletes the model, when the task is killed
        while it waits. A retry then trains another version.
    :raises AirflowFailException: when the images are invalid, with the service's StatusMessage; or when the
        model is worse than ``min_f1``, with its metrics.
    :raises AirflowException: when the service fails, or already trains as many models as it may; a retry may
        succeed.
    """

    template_fields: Sequence[str] = (
        *ClientTokenMixin.template_fields,
        "project_name",
        "output_s3_prefix",
        "description",
        "kms_key_id",
        "tags",
        "effort",
        "min_f1",
    )
    operator_extra_links = MODEL_LINKS
    waiter_name: ClassVar[str] = "ModelTrained"

    _model: ModelVersion
    _made: Mapping[str, Any] | None = None

    def __init__(
        self,
        *,
        project_name: str,
        output_s3_prefix: str,
        description: str | None = None,
        kms_key_id: str | None = None,
        tags: Mapping[str, str] | Sequence[Mapping[str, str]] | None = None,
        effort: str | None = None,
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
        self.output_s3_prefix = output_s3_prefix
        self.description = description
        self.kms_key_id = kms_key_id
        self.tags = tags
        self.effort = effort
        self.min_f1 = min_f1
        if min_f1 is not None and not self.wait_for_completion:
            raise AirflowFailException(
                "min_f1 needs wait_for_completion: the score is known when the training has ended"
            )

    def execute(self, context: Context) -> dict[str, Any]:
        """Start the training, or find the one that this task instance started before, and wait for it."""
        self.check_parameters()
        with fail_fast_on_client_errors():
            metadata: dict[str, Any] = to_json(self._find_or_start(context, self.token(context)))
        self._made = metadata
        self._model = ModelVersion(self, self.project_name, metadata["ModelVersion"])
        self.set_cancellation("DeleteModel", **self._cancel_args(context, self._model))
        self.persist_links(context, self.project_name, model_version=self._model.version)
        self.log.info("Model %s: %s", self._model.name, metadata["ModelArn"])
        return self.wait_or_defer(context, metadata, model_version=self._model.version)

    def waiter_args(self) -> dict[str, Any]:
        """The model to poll."""
        return self._model.args

    def result(self, context: Context, **state: Any) -> dict[str, Any]:
        """Return the description of what has been trained, if it is good enough."""
        model = ModelVersion(self, self.project_name, state["model_version"])
        description: dict[str, Any] = to_json(model.describe())
        self._made = description
        metrics = description.get("Performance", {})
        shown = ", ".join(f"{name} {metrics.get(name, 0):.4f}" for name in METRICS)
        self.log.info("Model %s: %s", model.name, shown)
        if self.min_f1 is not None and metrics.get("F1Score", 0) < self.min_f1:
            raise AirflowFailException(
                f"Model {model.name} is not good enough: {shown}; min_f1 is {self.min_f1}. The model is kept"
            )
        emit_asset_event(context, models_uri(description["ModelArn"]), event_extra(model, description))
        return description

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:
        """Return the lineage: the project's datasets in, the model and its evaluation out."""
        from airflow_provider_lookoutvision import lineage

        made = self._made or {}
        return lineage.operator_lineage(
            inputs=lineage.project_datasets(self, self.project_name),
            outputs=[
                lineage.model_dataset(made),
                *map(lineage.s3_dataset, _places(made).values()),
            ],
        )

    def _find_or_start(self, context: Context, token: str) -> dict[str, Any]:
        self.log.info("Training a model of project %s with client token %s", self.project_name, token)
        exceptions = self.hook.conn.exceptions
        try:
            created = self._create(token)
            self.log_age(context, created)
            return created
        except exceptions.ConflictException as conflict:
            if conflict.response.get("ResourceType") != "MODEL":
                raise
            model = ModelVersion(self, self.project_name, conflict.response["ResourceId"].rpartition("/")[2])
            if model.status() != GONE:
                raise
            try:
                # If a killed try of this task instance has cancelled it, the service repeats its response.
                self.call("DeleteModel", **self._cancel_args(context, model))
            except exceptions.ResourceNotFoundException:
                raise conflict from None
        self.log.info("An earlier try was killed, and has cancelled the training of model %s", model.name)
        return self._find_or_start(context, self.derived_token(context, "after", model.version))

    def _cancel_args(self, context: Context, model: ModelVersion) -> dict[str, str]:
        return {**model.args, "ClientToken": self.derived_token(context, "cancel", model.version)}

    def _create(self, token: str) -> dict[str, Any]:
        bucket, prefix = parse_s3_prefix("output_s3_prefix", self.output_s3_prefix)
        effort = [{"Key": "lookoutvision:effort", "Value": self.effort}] if self.effort else []
        optional = {
            "Description": self.description,
            "KmsKeyId": self.kms_key_id,
            "Tags": [*(self.tags or ()), *effort],
        }
        try:
            answer = retry_while_dataset_is_busy(
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
                f"{error}. Let the task retry: give it retries and a retry_delay for as long as trainings "
                "take"
            ) from error
        metadata: dict[str, Any] = answer["ModelMetadata"]
        return metadata


class LookoutVisionDeleteModelOperator(AsyncOperationMixin, ClientTokenMixin, ModelVersionMixin):
    """Delete a model, and wait until it is gone. A model that is already gone is a success.

    A model in training is deleted too, which cancels the training. The evaluation stays in its bucket. A stop
    is waited for in the task.

    :param project_name: the project.
    :param model_version: the version's number.
    :param stop_if_hosted: stop a hosted model, and then delete it; by default a hosted model is an error.
    :param client_token: a token of your own for the deletion, used as it is; by default the task instance's.
    :raises AirflowFailException: when the model is hosted, and ``stop_if_hosted`` isn't set.
    """

    template_fields: Sequence[str] = (*ClientTokenMixin.template_fields, "project_name", "model_version")
    waiter_name: ClassVar[str] = "ModelDeleted"

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
        self.check_parameters()
        model = self._model_version()
        with fail_fast_on_client_errors():
            try:
                model.delete(self.token(context))
            except self.hook.conn.exceptions.ConflictException:
                if not self.stop_if_hosted:
                    raise
                if model.stop(self.derived_token(context, "StopModel")):
                    self.wait_in_task("ModelStopped", model.args)
                model.delete(self.token(context))
        self.wait_or_defer(context, {})

    def waiter_args(self) -> dict[str, Any]:
        """The model to poll."""
        return self._model_version().args

    def result(self, context: Context, **_: Any) -> Any:
        """Return nothing: the model is gone."""

    def _model_version(self) -> ModelVersion:
        # Not "latest": the API doesn't delete by that name, so that no retry deletes a second version.
        return ModelVersion(self, self.project_name, self.model_version)


def event_extra(model: ModelVersion, description: Mapping[str, Any]) -> dict[str, Any]:
    """What an asset event has of a model: its names, metrics and places."""
    metrics = description.get("Performance", {})
    return {**model.args, "ModelArn": description["ModelArn"], **metrics, **_places(description)}


def _places(description: Mapping[str, Any]) -> dict[str, str]:
    """Where the evaluation is, by the members' names, as ``s3://bucket/key``."""
    evaluation = {name: description.get(name) for name in ("EvaluationManifest", "EvaluationResult")}
    return {name: f"s3://{each['Bucket']}/{each['Key']}" for name, each in evaluation.items() if each}
