"""Sensors: wait for what something else does, in a task, between tasks, or in the triggerer.

Each returns the description of what it has waited for, with times as ISO 8601 in UTC.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NoReturn

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)

from airflow_provider_lookoutvision.operators.base import (
    LookoutVisionBaseOperator,
    for_xcom,
    no_retry_for_faults_of_the_input,
)
from airflow_provider_lookoutvision.operators.waiting import check_event, failures_of_waits, trigger
from airflow_provider_lookoutvision.waiters.waiter import Progress, Wait

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

ModelState = Literal["trained", "hosted", "stopped"]

_GRACE = timedelta(minutes=5)
_MODEL_WAITERS = {"trained": "ModelTrained", "hosted": "ModelHosted", "stopped": "ModelStopped"}
# After a start these are its failure. A sensor may be there before the start that it waits for.
_BEFORE_THE_START = ("TRAINING", "STOPPING_HOSTING")


class LookoutVisionBaseSensor(LookoutVisionBaseOperator, BaseSensorOperator):
    """The base of the sensors.

    :param deferrable: wait in the triggerer, without a worker's slot; ``poke_interval`` and ``timeout`` hold
        there too.
    """

    description: ClassVar[str]

    def __init__(
        self,
        *,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.deferrable = deferrable

    @property
    @abstractmethod
    def wait(self) -> Wait:
        """What it waits for."""

    def poke(self, context: Context) -> PokeReturnValue:
        """Ask once; then defer, if that is wanted."""
        answer = self._check(self._progress)
        if answer is None and self.deferrable:
            self._defer_until(time.time() + self.timeout)
        return PokeReturnValue(is_done=answer is not None, xcom_value=self._result(answer))

    def execute_complete(self, context: Context, event: Mapping[str, Any] | None = None) -> Any:
        """Go on when the trigger has fired."""
        if event and event["status"] == "timeout":
            raise AirflowSensorTimeout(event["message"])
        ends_at = check_event(event)["ends_at"]
        answer = self._check(Progress(self.wait, self.log, ends_at))
        if answer is None:
            # The latest model is another one by now, to be waited for as long as there is time left.
            self._defer_until(ends_at)
        return self._result(answer)

    @cached_property
    def _progress(self) -> Progress:
        return Progress(self.wait, self.log)

    def _check(self, progress: Progress) -> Mapping[str, Any] | None:
        with no_retry_for_faults_of_the_input(), failures_of_waits():
            return progress.check(self.hook)

    def _defer_until(self, ends_at: float) -> NoReturn:
        # The trigger ends in time, and says what it has seen last. Airflow's own timeout is for one that
        # isn't run.
        left = timedelta(seconds=max(0.0, ends_at - time.time()))
        self.defer(
            trigger=trigger(self, self.wait, ends_at=ends_at, return_value={"ends_at": ends_at}),
            method_name="execute_complete",
            timeout=min(filter(None, (left + _GRACE, self.execution_timeout))),
        )

    def _result(self, answer: Mapping[str, Any] | None) -> Any:
        return for_xcom(answer[self.description]) if answer else None

    def _wait_for(self, waiter: str, passing: Sequence[str] = (), **arguments: str) -> Wait:
        interval = max(self.poke_interval, 1.0)
        return Wait(waiter, arguments, interval, max(1, round(self.timeout / interval)), passing)


class LookoutVisionDatasetSensor(LookoutVisionBaseSensor):
    """Wait until a dataset can be used: created, and no update under way.

    :param project_name: the project.
    :param dataset_type: ``train`` or ``test``.
    :raises AirflowFailException: when it could not be created because of its manifest, with the
        StatusMessage.
    :raises AirflowException: when it could not for another reason, or there is no such dataset.
    """

    template_fields: Sequence[str] = (
        *LookoutVisionBaseOperator.template_fields,
        "project_name",
        "dataset_type",
    )
    description: ClassVar[str] = "DatasetDescription"

    def __init__(self, *, project_name: str, dataset_type: Literal["train", "test"], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.project_name = project_name
        self.dataset_type = dataset_type

    @property
    def wait(self) -> Wait:
        """Which dataset."""
        return self._wait_for("DatasetCreated", ProjectName=self.project_name, DatasetType=self.dataset_type)


class LookoutVisionModelSensor(LookoutVisionBaseSensor):
    """Wait until a model is trained, hosted, or no longer hosted.

    :param project_name: the project.
    :param model_version: the version's number, or ``latest``: the highest that there is, at each question.
    :param state: ``trained``, ``hosted`` or ``stopped``. What is in training, or being stopped, may still be
        hosted.
    :raises AirflowFailException: when the training failed because of its images, with the StatusMessage.
    :raises AirflowException: when the state can't come any more, or there is no such model.
    """

    template_fields: Sequence[str] = (
        *LookoutVisionBaseOperator.template_fields,
        "project_name",
        "model_version",
        "state",
    )
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

    @property
    def wait(self) -> Wait:
        """Which model, and for which state."""
        if self.state not in _MODEL_WAITERS:
            raise AirflowFailException(
                f"state is {self.state!r}; it must be one of {', '.join(_MODEL_WAITERS)}"
            )
        return self._wait_for(
            _MODEL_WAITERS[self.state],
            _BEFORE_THE_START if self.state == "hosted" else (),
            ProjectName=self.project_name,
            ModelVersion=str(self.model_version),
        )


class LookoutVisionModelPackagingJobSensor(LookoutVisionBaseSensor):
    """Wait until a model packaging job has succeeded.

    :param project_name: the project.
    :param job_name: the job.
    :raises AirflowException: when it failed, with its StatusMessage, or there is no such job.
    """

    template_fields: Sequence[str] = (*LookoutVisionBaseOperator.template_fields, "project_name", "job_name")
    description: ClassVar[str] = "ModelPackagingDescription"

    def __init__(self, *, project_name: str, job_name: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.project_name = project_name
        self.job_name = job_name

    @property
    def wait(self) -> Wait:
        """Which job."""
        return self._wait_for(
            "ModelPackagingJobSucceeded", ProjectName=self.project_name, JobName=self.job_name
        )
