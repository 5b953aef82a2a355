"""The operators of hosting: start a model, stop it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_lookoutvision.operators.base import for_xcom, no_retry_for_faults_of_the_input
from airflow_provider_lookoutvision.operators.tokens import TokenMixin
from airflow_provider_lookoutvision.operators.versions import LATEST, Model, ModelVersionMixin
from airflow_provider_lookoutvision.operators.waiting import CancelOnKillMixin, WaitingMixin

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

_HOSTED = ("STARTING_HOSTING", "HOSTED", "SYSTEM_UPDATING")


class _HostingOperator(WaitingMixin, TokenMixin, ModelVersionMixin):
    """What starting and stopping share: one version, waited for, whose description is the result."""

    template_fields: Sequence[str] = (*TokenMixin.template_fields, "project_name", "model_version")

    asks_before_deferring: ClassVar[bool] = True

    _model: Model

    def __init__(self, *, waiter_delay: float = 10, waiter_max_attempts: int = 360, **kwargs: Any) -> None:
        super().__init__(
            waiter_delay=waiter_delay,
            waiter_max_attempts=waiter_max_attempts,
            **{"multiple_outputs": True, **kwargs},
        )

    def waiter_arguments(self) -> dict[str, Any]:
        """Which model to ask about."""
        return self._model.arguments

    def result(self, context: Context, **state: Any) -> dict[str, Any]:
        """Return the model's description."""
        model = Model(self, self.project_name, state["model_version"])
        description: dict[str, Any] = for_xcom(model.describe())
        return description

    def wait_for(self, context: Context, model: Model) -> dict[str, Any]:
        """Wait for this model, if that is wanted, and return its description."""
        self._model = model
        unwaited = {} if self.wait_for_completion else for_xcom(model.describe())
        return self.wait_then(context, unwaited, model_version=model.version)


class LookoutVisionStartModelOperator(CancelOnKillMixin, _HostingOperator):
    """Host a model, wait until it is hosted, and return its description. One that is hosted is success.

    The result is the ModelDescription, with ``ModelVersion`` as a number in a text even if that was
    ``latest``, and each member is an XCom of its own too. Give ``start.output["ModelVersion"]`` to what
    follows: then all of the run speaks of one version, and a start and a stop that are a setup and a teardown
    are a pair.

    A model that somebody else has started is used as it is, with a warning if it has other inference units.
    One that is being stopped is waited for, in the task, and then started.

    :param project_name: the project.
    :param model_version: the version's number; or ``latest``, which is looked up once: a retry stays with
        what an earlier try has started.
    :param min_inference_units: how many units host it at least.
    :param max_inference_units: how many host it at most, when it has much to do; by default no more.
    :param client_token: a token of your own, used as it is; by default the task instance's.
    :param cancel_on_kill: whether to stop the model when the task is killed while it waits. One that somebody
        else has started isn't stopped.
    :raises AirflowFailException: when the model isn't trained, or may not have so many units.
    :raises AirflowException: when it is being trained; or when hosting fails.
    """

    template_fields: Sequence[str] = (
        *_HostingOperator.template_fields,
        "min_inference_units",
        "max_inference_units",
    )
    waiter: ClassVar[str] = "ModelHosted"

    def __init__(
        self, *, min_inference_units: int = 1, max_inference_units: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.min_inference_units = min_inference_units
        self.max_inference_units = max_inference_units

    def execute(self, context: Context) -> dict[str, Any]:
        """Start the model, unless it is hosted, and wait for it."""
        with no_retry_for_faults_of_the_input():
            model = self._start(self.numbered(), self._units(), self.token(context))
            return self.wait_for(context, model)

    def _units(self) -> dict[str, int]:
        units = {"MinInferenceUnits": self.min_inference_units, "MaxInferenceUnits": self.max_inference_units}
        try:
            return {name: int(count) for name, count in units.items() if count is not None}
        except (TypeError, ValueError) as error:
            raise AirflowFailException(f"Inference units are counted: {error}") from error

    def _start(self, model: Model, units: Mapping[str, int], token: str) -> Model:
        exceptions = self.hook.conn.exceptions
        try:
            self.call("StartModel", **model.arguments, **units, ClientToken=token)
        except exceptions.ServiceQuotaExceededException as error:
            raise AirflowFailException(str(error)) from error  # units: there won't be more of them later
        except exceptions.ConflictException as conflict:
            return self._after(conflict.response, model, units, token)
        self.log.info("Model %s is told to start with %s", model.name, _told(units))
        return self._started(model)

    def _started(self, model: Model) -> Model:
        self.begun("StopModel", **model.arguments)
        return model

    def _after(self, refusal: Mapping[str, Any], model: Model, units: Mapping[str, int], token: str) -> Model:
        started = str(refusal.get("ResourceId", ""))
        if self.model_version == LATEST and started != model.name:
            project_name, _, version = started.rpartition("/")
            if project_name == self.project_name and version:
                self.log.info("An earlier try has started model %s, which was the latest then", started)
                model = self._started(Model(self, project_name, version))
        description = model.describe()
        if description["Status"] in _HOSTED:
            self.log.info("Model %s is %s already", model.name, description["Status"])
            if (hosted := _told(description)) != (wanted := _told(units)):
                self.log.warning(
                    "Model %s is hosted with %s, not with %s; to change that, stop it and start it again",
                    model.name,
                    hosted,
                    wanted,
                )
            return model
        if description["Status"] == "STOPPING_HOSTING":
            self.wait_in_task("ModelStopped", model.arguments)
        self.call("StartModel", **model.arguments, **units, ClientToken=token)
        return self._started(model)


class LookoutVisionStopModelOperator(_HostingOperator):
    """Stop hosting a model, wait until it has stopped, and return its description.

    The result is the ModelDescription, each member an XCom of its own too. A model that isn't hosted is
    success, and so is one that is gone, or that no start has named, with an empty result. As a teardown it
    stops the model whatever has become of the work::

        start = LookoutVisionStartModelOperator(task_id="start", ...).as_setup()
        stop = LookoutVisionStopModelOperator(
            task_id="stop", model_version=start.output["ModelVersion"], ...
        ).as_teardown()
        start >> work >> stop

    :param project_name: the project.
    :param model_version: the version's number; or ``latest``, which may be another one than was started.
    :param client_token: a token of your own, used as it is; by default the task instance's.
    """

    waiter: ClassVar[str] = "ModelStopped"

    def execute(self, context: Context) -> dict[str, Any]:
        """Stop the model, unless it isn't hosted, and wait for it."""
        # What a start that never ran has returned: a teardown runs for another setup's sake too.
        if self.model_version in (None, "None", ""):
            self.log.info("There is nothing to stop: no version was started")
            return {}
        with no_retry_for_faults_of_the_input():
            try:
                model = self.numbered()
                if model.stop(self.token(context)):
                    return self.wait_for(context, model)
                return self.result(context, model_version=model.version)
            except self.hook.conn.exceptions.ResourceNotFoundException as error:
                self.log.info("There is nothing to stop: %s", error)
                return {}


def _told(members: Mapping[str, Any]) -> str:
    least = members["MinInferenceUnits"]
    most = members.get("MaxInferenceUnits") or least
    return f"{least} inference units" if least == most else f"{least} to {most} inference units"
