"""Sensors: they wait for work that something else began, by poking, rescheduling, or in the triggerer.

Each returns the description of what it waited for, with times as ISO 8601 in UTC.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NoReturn

from airflow.providers.common.compat.sdk import (
    AirflowSensorTimeout,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)

from airflow_provider_lookoutvision.links.lookoutvision import DATASET_LINKS, MODEL_LINKS
from airflow_provider_lookoutvision.operators.api_rules import conform_input
from airflow_provider_lookoutvision.operators.async_operation import (
    DEFER_AFTER_SECONDS,
    validate_execute_complete_event,
    waiter_failures_as_airflow_exceptions,
    waiter_trigger,
)
from airflow_provider_lookoutvision.operators.base import (
    LookoutVisionBaseOperator,
    fail_fast_on_client_errors,
    to_json,
)
from airflow_provider_lookoutvision.operators.model_version import resolve_tag
from airflow_provider_lookoutvision.waiters.waiter import WaiterRun, WaiterSpec

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

ModelState = Literal["trained", "hosted", "stopped", "TRAINED", "HOSTED", "STOPPED"]

_GRACE = timedelta(minutes=5)
_MODEL_WAITERS = {"trained": "ModelTrained", "hosted": "ModelHosted", "stopped": "ModelStopped"}
# For an operator that has called StartModel these are failures. A sensor may run before that call.
_BEFORE_START = ("TRAINING", "STOPPING_HOSTING")


class LookoutVisionBaseSensor(LookoutVisionBaseOperator, BaseSensorOperator):
    """The base of the sensors.

    :param deferrable: wait in the triggerer, without a worker's slot; ``poke_interval`` and ``timeout`` hold
        there too.
    :param defer_after: for so many seconds a deferrable sensor waits itself, since a deferral takes longer
        than a short wait; 0 polls once.
    """

    description: ClassVar[str]
    project_name: str

    def __init__(
        self,
        *,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        defer_after: float = DEFER_AFTER_SECONDS,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.deferrable = deferrable
        self.defer_after = defer_after

    @property
    @abstractmethod
    def waiter_spec(self) -> WaiterSpec:
        """What it waits for."""

    def poke(self, context: Context) -> PokeReturnValue:
        """Poll once, or for ``defer_after`` if the sensor is deferrable; then defer."""
        self.check_parameters()
        end_time = time.time() + self.timeout
        response = self._check()
        if response is None and self.deferrable:
            self._defer_until(end_time)
        return PokeReturnValue(is_done=response is not None, xcom_value=self._result(context, response))

    def execute_complete(self, context: Context, event: Mapping[str, Any] | None = None) -> Any:
        """Go on when the trigger has fired."""
        if event and event["status"] == "timeout":
            raise AirflowSensorTimeout(event["message"])
        self.check_parameters()
        end_time = validate_execute_complete_event(event)["end_time"]
        response = self._check(end_time)
        if response is None:
            # "latest" is another model by now. It is waited for in the time that is left.
            self._defer_until(end_time)
        return self._result(context, response)

    @cached_property
    def _waiter_run(self) -> WaiterRun:
        return WaiterRun(self.waiter_spec, self.log)

    def _check(self, end_time: float | None = None) -> Mapping[str, Any] | None:
        with fail_fast_on_client_errors(), waiter_failures_as_airflow_exceptions():
            run = self._waiter_run if end_time is None else WaiterRun(self.waiter_spec, self.log, end_time)
            conform_input(run.spec.operation, run.spec.waiter_args)
            if not self.deferrable:
                return run.check(self.hook)
            return run.wait_briefly(min(self.defer_after, self.timeout), self.hook)

    def _defer_until(self, end_time: float) -> NoReturn:
        # The trigger ends in time, and reports the last status. Airflow's own timeout is for a trigger that
        # no triggerer runs.
        left = timedelta(seconds=max(0.0, end_time - time.time()))
        trigger = waiter_trigger(
            self,
            self.waiter_spec,
            start_time=end_time - self.timeout,
            end_time=end_time,
            return_value={"end_time": end_time},
        )
        self.defer(
            trigger=trigger,
            method_name="execute_complete",
            timeout=min(filter(None, (left + _GRACE, self.execution_timeout))),
        )

    def _result(self, context: Context, response: Mapping[str, Any] | None) -> Any:
        if not response:
            return None
        found = to_json(response[self.description])
        names = {"dataset_type": "DatasetType", "model_version": "ModelVersion"}
        given = {name: found[member] for name, member in names.items() if member in found}
        self.persist_links(context, self.project_name, **given)
        return found

    def _spec(self, waiter_name: str, tolerated_states: Sequence[str] = (), **waiter_args: str) -> WaiterSpec:
        delay = max(self.poke_interval, 1.0)
        max_attempts = max(1, round(self.timeout / delay))
        return WaiterSpec(waiter_name, waiter_args, delay, max_attempts, tolerated_states)


class LookoutVisionDatasetSensor(LookoutVisionBaseSensor):
    """Wait until a dataset can be used: created, and no update under way.

    :param project_name: the project.
    :param dataset_type: ``train`` or ``test``.
    :raises AirflowFailException: when it could not be created because of its manifest, with the
        StatusMessage; or when there is no such dataset.
    :raises AirflowException: when it could not be created for another reason.
    """

    template_fields: Sequence[str] = (
        *LookoutVisionBaseOperator.template_fields,
        "project_name",
        "dataset_type",
    )
    operator_extra_links = DATASET_LINKS
    description: ClassVar[str] = "DatasetDescription"

    def __init__(self, *, project_name: str, dataset_type: Literal["train", "test"], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.project_name = project_name
        self.dataset_type = dataset_type

    @property
    def waiter_spec(self) -> WaiterSpec:
        """The dataset to wait for."""
        return self._spec("DatasetCreated", ProjectName=self.project_name, DatasetType=self.dataset_type)


class LookoutVisionModelSensor(LookoutVisionBaseSensor):
    """Wait until a model is trained, hosted, or no longer hosted.

    :param project_name: the project.
    :param model_version: the version's number; or ``latest``, the highest number at each poll; or a tag such
        as ``stage=production``, the highest number that has it when the sensor begins, is rescheduled, or has
        been deferred.
    :param state: ``trained``, ``hosted`` or ``stopped``, in lower or upper case. For ``hosted``, a model that
        is in training or stopping is waited for, since a start may follow.
    :raises AirflowFailException: when the training failed because of its images, with the StatusMessage; or
        when there is no such model.
    :raises AirflowException: when the state can't come any more.
    """

    template_fields: Sequence[str] = (
        *LookoutVisionBaseOperator.template_fields,
        "project_name",
        "model_version",
        "state",
    )
    operator_extra_links = MODEL_LINKS
    description: ClassVar[str] = "ModelDescription"

    def __init__(
        self,
        *,
        project_name: str,
        model_version: str | int = "latest",
        state: ModelState = "trained",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.project_name = project_name
        self.model_version = model_version
        self.state = state

    @cached_property
    def _version(self) -> str:
        return resolve_tag(self, self.project_name, str(self.model_version))

    @property
    def waiter_spec(self) -> WaiterSpec:
        """The model and the state to wait for."""
        return self._spec(
            _MODEL_WAITERS[self.state],
            _BEFORE_START if self.state == "hosted" else (),
            ProjectName=self.project_name,
            ModelVersion=self._version,
        )


class LookoutVisionModelPackagingJobSensor(LookoutVisionBaseSensor):
    """Wait until a model packaging job has succeeded.

    :param project_name: the project.
    :param job_name: the job.
    :raises AirflowFailException: when there is no such job.
    :raises AirflowException: when it failed, with its StatusMessage.
    """

    template_fields: Sequence[str] = (*LookoutVisionBaseOperator.template_fields, "project_name", "job_name")
    operator_extra_links = MODEL_LINKS
    description: ClassVar[str] = "ModelPackagingDescription"

    def __init__(self, *, project_name: str, job_name: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.project_name = project_name
        self.job_name = job_name

    @property
    def waiter_spec(self) -> WaiterSpec:
        """The job to wait for."""
        return self._spec("ModelPackagingJobSucceeded", ProjectName=self.project_name, JobName=self.job_name)
