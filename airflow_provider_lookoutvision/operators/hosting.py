"""The operators of hosting: start a model, stop a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_lookoutvision.idempotency import is_retry
from airflow_provider_lookoutvision.links.lookoutvision import MODEL_LINKS
from airflow_provider_lookoutvision.operators.api_rules import conform_input
from airflow_provider_lookoutvision.operators.async_operation import AsyncOperationMixin, CancelOnKillMixin
from airflow_provider_lookoutvision.operators.base import fail_fast_on_client_errors, to_json
from airflow_provider_lookoutvision.operators.client_token import ClientTokenMixin
from airflow_provider_lookoutvision.operators.model_version import (
    ModelVersion,
    ModelVersionMixin,
    is_looked_up,
)

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

_HOSTED = ("STARTING_HOSTING", "HOSTED", "SYSTEM_UPDATING")


class _HostingOperator(AsyncOperationMixin, ClientTokenMixin, ModelVersionMixin):
    """The base of both: they wait for one version of a model, and return its description."""

    template_fields: Sequence[str] = (*ClientTokenMixin.template_fields, "project_name", "model_version")
    operator_extra_links = MODEL_LINKS
    polls_before_deferring: ClassVar[bool] = True

    _model: ModelVersion

    def __init__(self, *, waiter_delay: float = 10, waiter_max_attempts: int = 360, **kwargs: Any) -> None:
        super().__init__(
            waiter_delay=waiter_delay,
            waiter_max_attempts=waiter_max_attempts,
            **{"multiple_outputs": True, **kwargs},
        )

    def waiter_args(self) -> dict[str, Any]:
        """The model to poll."""
        return self._model.args

    def result(self, context: Context, **state: Any) -> dict[str, Any]:
        """Return the model's description."""
        model = ModelVersion(self, self.project_name, state["model_version"])
        self.persist_links(context, self.project_name, model_version=model.version)
        description: dict[str, Any] = to_json(model.describe())
        return description

    def wait_for(self, context: Context, model: ModelVersion) -> dict[str, Any]:
        """Wait for this model, with ``wait_for_completion``, and return its description."""
        self._model = model
        self.persist_links(context, self.project_name, model_version=model.version)
        unfinished = {} if self.wait_for_completion else to_json(model.describe())
        return self.wait_or_defer(context, unfinished, model_version=model.version)


class LookoutVisionStartModelOperator(CancelOnKillMixin, _HostingOperator):
    """Host a model, wait until it is hosted, and return its description. A hosted model is a success.

    The result is the ModelDescription; ``ModelVersion`` is the number even if the parameter was ``latest``.
    Each member is an XCom of its own too. Give ``start.output["ModelVersion"]`` to the tasks that follow:
    then all of the run uses one version, and a start and a stop that are setup and teardown belong together.

    A model that somebody else has started is used as it is, with a warning if it has other inference units. A
    model that is stopping is waited for, in the task, and then started.

    :param project_name: the project.
    :param model_version: the version's number; or ``latest``, or a tag such as ``stage=production``, which is
        looked up once: a retry stays with the version that an earlier try has started.
    :param min_inference_units: how many units host it at least.
    :param max_inference_units: how many host it at most, when it is busy; by default no more.
    :param client_token: a token of your own, used as it is; by default the task instance's.
    :param cancel_on_kill: whether to stop the model when the task is killed while it waits. A model that
        somebody else has started isn't stopped.
    :raises AirflowFailException: when the model isn't trained, or can't have so many units.
    :raises AirflowException: when it is in training; or when hosting fails.
    """

    template_fields: Sequence[str] = (
        *_HostingOperator.template_fields,
        "min_inference_units",
        "max_inference_units",
    )
    waiter_name: ClassVar[str] = "ModelHosted"

    def __init__(
        self, *, min_inference_units: int = 1, max_inference_units: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.min_inference_units = min_inference_units
        self.max_inference_units = max_inference_units

    def execute(self, context: Context) -> dict[str, Any]:
        """Start the model, unless it is hosted, and wait for it."""
        self.check_parameters()
        with fail_fast_on_client_errors():
            token = self.token(context)
            model = self._find_own(context, token) or self.start_model(self.resolve_version(), token)
            return self.wait_for(context, model)

    def start_model(self, model: ModelVersion, token: str) -> ModelVersion:
        """Call StartModel, unless the model is hosted, or about to be."""
        return self._start(model, self._units(), token)

    def _units(self) -> dict[str, int]:
        units = {"MinInferenceUnits": self.min_inference_units, "MaxInferenceUnits": self.max_inference_units}
        return {name: count for name, count in units.items() if count is not None}

    def _find_own(self, context: Context, token: str) -> ModelVersion | None:
        """The model that an earlier try has started, when it had the name: the token shows whose it is."""
        if not is_looked_up(self.model_version) or not is_retry(context):
            return None
        conform_input("ListModels", {"ProjectName": self.project_name})
        for each in self.hook.iter_models(self.project_name):
            if each["Status"] in _HOSTED:
                model = ModelVersion(self, self.project_name, each["ModelVersion"])
                try:
                    self.call("StartModel", **model.args, **self._units(), ClientToken=token)
                except self.hook.conn.exceptions.ConflictException:
                    continue  # another has started it
                self.log.info("An earlier try has started model %s: this try goes on with it", model.name)
                return self._started(model)
        return None

    def _start(self, model: ModelVersion, units: Mapping[str, int], token: str) -> ModelVersion:
        exceptions = self.hook.conn.exceptions
        try:
            self.call("StartModel", **model.args, **units, ClientToken=token)
        except exceptions.ServiceQuotaExceededException as error:
            raise AirflowFailException(str(error)) from error  # of units: it is the same at a retry
        except exceptions.ConflictException as conflict:
            self.log.info("The service refuses: %s", conflict.response["Error"]["Message"])
            return self._after_conflict(model, units, token)
        self.log.info("Model %s is starting with %s", model.name, _units_text(units))
        return self._started(model)

    def _started(self, model: ModelVersion) -> ModelVersion:
        self.set_cancellation("StopModel", **model.args)
        return model

    def _after_conflict(self, model: ModelVersion, units: Mapping[str, int], token: str) -> ModelVersion:
        description = model.describe()
        if description["Status"] in _HOSTED:
            self.log.info("Model %s is %s already", model.name, description["Status"])
            if (hosted := _units_text(description)) != (wanted := _units_text(units)):
                self.log.warning(
                    "Model %s is hosted with %s, not with %s; to change them, stop it and start it again",
                    model.name,
                    hosted,
                    wanted,
                )
            return model
        if description["Status"] == "STOPPING_HOSTING":
            self.wait_in_task("ModelStopped", model.args)
        self.call("StartModel", **model.args, **units, ClientToken=token)
        return self._started(model)


class LookoutVisionStopModelOperator(_HostingOperator):
    """Stop hosting a model, wait until it has stopped, and return its description.

    The result is the ModelDescription, each member an XCom of its own too. A model that isn't hosted is a
    success; so is a model that is gone, or the missing output of a start that never ran, with an empty
    result. As a teardown it stops the model even if the work has failed::

        start = LookoutVisionStartModelOperator(task_id="start", ...).as_setup()
        stop = LookoutVisionStopModelOperator(
            task_id="stop", model_version=start.output["ModelVersion"], ...
        ).as_teardown()
        start >> work >> stop

    :param project_name: the project.
    :param model_version: the version's number; or ``latest``, or a tag, which may not be the one that was
        started.
    :param client_token: a token of your own, used as it is; by default the task instance's.
    """

    waiter_name: ClassVar[str] = "ModelStopped"

    def execute(self, context: Context) -> dict[str, Any]:
        """Stop the model, unless it isn't hosted, and wait for it."""
        self.check_parameters()
        # The output of a start that never ran: a teardown also runs when only another setup has.
        if self.model_version in (None, "None", ""):
            self.log.info("There is nothing to stop: no version was started")
            return {}
        with fail_fast_on_client_errors():
            try:
                model = self.resolve_version()
                if model.stop(self.token(context)):
                    return self.wait_for(context, model)
                return self.result(context, model_version=model.version)
            except self.hook.conn.exceptions.ResourceNotFoundException as error:
                self.log.info("There is nothing to stop: %s", error)
                return {}


def _units_text(members: Mapping[str, Any]) -> str:
    least = members["MinInferenceUnits"]
    most = members.get("MaxInferenceUnits") or least
    return f"{least} inference units" if least == most else f"{least} to {most} inference units"
