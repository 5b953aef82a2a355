"""One version of a project's models: what the operators that work on one share.

The state of a version is known only from a response, and may be another at the next call. So each change is
requested first, and only a refusal makes the operator look at the state: the work may be done already, or
something may have to end first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_lookoutvision.operators.api_rules import conform_input
from airflow_provider_lookoutvision.operators.base import LookoutVisionBaseOperator

LATEST = "latest"
GONE = "gone"


@dataclass(frozen=True)
class ModelVersion:
    """A version of a project's models, and the operator that works on it."""

    operator: LookoutVisionBaseOperator
    project_name: str
    version: str

    @property
    def name(self) -> str:
        """What the service's errors call it."""
        return f"{self.project_name}/{self.version}"

    @property
    def args(self) -> dict[str, str]:
        """The members that name it in every operation."""
        return {"ProjectName": self.project_name, "ModelVersion": self.version}

    def describe(self) -> dict[str, Any]:
        """Call DescribeModel, and return the ModelDescription."""
        answer = self.operator.call("DescribeModel", **self.args)
        description: dict[str, Any] = answer["ModelDescription"]
        return description

    def status(self) -> str:
        """The model's status, or ``GONE``."""
        try:
            return str(self.describe()["Status"])
        except self.operator.hook.conn.exceptions.ResourceNotFoundException:
            return GONE

    def stop(self, token: str) -> bool:
        """Call StopModel, unless the model isn't hosted any more.

        :return: whether it is stopping now.
        """
        exceptions = self.operator.hook.conn.exceptions
        try:
            self.operator.call("StopModel", **self.args, ClientToken=token)
        except exceptions.ResourceNotFoundException:
            return False
        except exceptions.ConflictException:
            status = self.status()
            if status in ("STARTING_HOSTING", "HOSTED", "SYSTEM_UPDATING"):
                raise
            self.operator.log.info("Model %s is %s: there is nothing to stop", self.name, status)
            return status == "STOPPING_HOSTING"
        self.operator.log.info("Model %s is stopping", self.name)
        return True

    def delete(self, token: str) -> None:
        """Call DeleteModel, unless the model is gone."""
        try:
            self.operator.call("DeleteModel", **self.args, ClientToken=token)
        except self.operator.hook.conn.exceptions.ResourceNotFoundException:
            self.operator.log.info("Model %s is already gone", self.name)
        else:
            self.operator.log.info("Model %s is deleted", self.name)


class ModelVersionMixin(LookoutVisionBaseOperator):
    """What an operator adds that works on one version of a project's models.

    :param project_name: the project.
    :param model_version: the version's number; or ``latest``, the highest number when the task runs; or a
        tag such as ``stage=production``, the highest number that has it.
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

    def tagged_version(self) -> ModelVersion:
        """Return the version; a tag is looked up, and ``latest`` is left to the service.

        :raises AirflowFailException: when no model has the tag.
        """
        version = resolve_tag(self, self.project_name, self.model_version)
        return ModelVersion(self, self.project_name, version)

    def resolve_version(self) -> ModelVersion:
        """Return the version by its number; ``latest``, or a tag, is looked up.

        :raises AirflowFailException: when no model has the tag.
        """
        model = self.tagged_version()
        if model.version != LATEST:
            return model
        return ModelVersion(self, self.project_name, model.describe()["ModelVersion"])


def is_looked_up(version: str) -> bool:
    """Whether it is no number: it may be another version at the next look."""
    return version == LATEST or _is_tag(version)


def parse_tag(parameter: str, text: str) -> tuple[str, str]:
    """Return the key and the value of ``key=value``.

    :raises AirflowFailException: when it is something else.
    """
    key, separator, value = text.partition("=")
    if not key or not separator:
        raise AirflowFailException(f"{parameter} is {text!r}; it must be key=value, as stage=production")
    return key, value


def resolve_tag(operator: LookoutVisionBaseOperator, project_name: str, version: str) -> str:
    """Return the highest version that has a tag; a number, or ``latest``, as it is.

    :param version: such as ``stage=production``.
    :raises AirflowFailException: when no model has the tag.
    """
    if not _is_tag(version):
        return version
    key, value = parse_tag("model_version", version)
    conform_input("ListModels", {"ProjectName": project_name})
    for model in operator.hook.tagged_models(project_name, {key: value}):
        return str(model["ModelVersion"])
    raise AirflowFailException(f"No model of project {project_name} is tagged {version}")


def _is_tag(version: str) -> bool:
    return "=" in version
