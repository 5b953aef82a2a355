"""One version of a project's models: what the operators that work on one share.

Which state a version is in is only known when the service has answered, and may be another by the next call.
So each change is asked for first, and only a refusal makes it look at the state: to find what was wanted
done already, or to wait for what is in the way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_lookoutvision.operators.base import LookoutVisionBaseOperator

LATEST = "latest"
GONE = "gone"


@dataclass(frozen=True)
class Model:
    """A version of a project's models, and the operator that works on it."""

    operator: LookoutVisionBaseOperator
    project_name: str
    version: str

    @property
    def name(self) -> str:
        """What the service's errors call it."""
        return f"{self.project_name}/{self.version}"

    @property
    def arguments(self) -> dict[str, str]:
        """The members that name it in every operation."""
        return {"ProjectName": self.project_name, "ModelVersion": self.version}

    def describe(self) -> dict[str, Any]:
        """Call DescribeModel, and return the ModelDescription."""
        answer = self.operator.call("DescribeModel", **self.arguments)
        description: dict[str, Any] = answer["ModelDescription"]
        return description

    def status(self) -> str:
        """The model's status, or ``GONE``."""
        try:
            return str(self.describe()["Status"])
        except self.operator.hook.conn.exceptions.ResourceNotFoundException:
            return GONE

    def stop(self, token: str) -> bool:
        """Call StopModel, unless nothing hosts the model any more.

        :return: whether it is stopping now.
        """
        exceptions = self.operator.hook.conn.exceptions
        try:
            self.operator.call("StopModel", **self.arguments, ClientToken=token)
        except exceptions.ResourceNotFoundException:
            return False
        except exceptions.ConflictException:
            status = self.status()
            if status in ("STARTING_HOSTING", "HOSTED", "SYSTEM_UPDATING"):
                raise
            self.operator.log.info("Model %s is %s: nothing to stop", self.name, status)
            return status == "STOPPING_HOSTING"
        self.operator.log.info("Model %s is told to stop", self.name)
        return True

    def delete(self, token: str) -> None:
        """Call DeleteModel, unless the model is gone."""
        try:
            self.operator.call("DeleteModel", **self.arguments, ClientToken=token)
        except self.operator.hook.conn.exceptions.ResourceNotFoundException:
            self.operator.log.info("Model %s is already gone", self.name)
        else:
            self.operator.log.info("Model %s is deleted", self.name)


class ModelVersionMixin(LookoutVisionBaseOperator):
    """What an operator adds that works on one version of a project's models.

    :param project_name: the project.
    :param model_version: the version's number; or ``latest``, which is the highest number when the task runs.
    """

    template_fields: Sequence[str] = (
        *LookoutVisionBaseOperator.template_fields,
        "project_name",
        "model_version",
    )

    def __init__(self, *, project_name: str, model_version: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.project_name = project_name
        self.model_version = model_version

    def numbered(self) -> Model:
        """Return the model by its number, which ``latest`` is looked up for."""
        # A DAG that renders templates to native objects makes a number of it.
        model = Model(self, self.project_name, str(self.model_version))
        if model.version != LATEST:
            return model
        return Model(self, self.project_name, model.describe()["ModelVersion"])
