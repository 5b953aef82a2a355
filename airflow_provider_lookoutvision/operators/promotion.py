"""The operator of promotion: put a model into use, if it is better than the one in use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, AirflowSkipException

from airflow_provider_lookoutvision.assets import emit_asset_event, models_uri
from airflow_provider_lookoutvision.operators.api_rules import conform_input
from airflow_provider_lookoutvision.operators.base import fail_fast_on_client_errors, to_json
from airflow_provider_lookoutvision.operators.hosting import LookoutVisionStartModelOperator
from airflow_provider_lookoutvision.operators.model_version import ModelVersion, parse_tag
from airflow_provider_lookoutvision.operators.models import event_extra

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

PROMOTED_BY = "promoted-by"

_USABLE = ("TRAINED", "STARTING_HOSTING", "HOSTED", "SYSTEM_UPDATING", "STOPPING_HOSTING", "HOSTING_FAILED")
_PASSING = ("TRAINING",)


class LookoutVisionPromoteModelOperator(LookoutVisionStartModelOperator):
    """Put a model into use, if it is better than the one in use: compare them, start it, and tag it.

    The model in use is the one that has ``tag``; ``model_version="stage=production"`` names it to the other
    operators. A candidate whose metric is at least that of the model in use, plus ``min_gain``, is started,
    waited for, and tagged, and the model in use gets ``replaced_tag`` instead: first the one and then the
    other, so that there is a model in use at any time. Without a model in use any candidate is promoted.

    The result is the candidate's ModelDescription, times as ISO 8601 in UTC, and ``promoted``,
    ``compared_with`` (the versions in use until then) and ``replaced`` (those that were, and are no more).
    Each member is an XCom of its own too. The model that was replaced stays hosted, if it is: to stop it, map
    :class:`.LookoutVisionStopModelOperator` over ``promote.output["replaced"]``.

    A promotion takes effect once: the candidate's tag ``promoted-by`` has the client token, so that a retry
    finishes what an earlier try began, and leaves alone what a later promotion has decided. Two promotions at
    a time may both win: let one run at a time (``max_active_runs=1``).

    :param project_name: the project.
    :param model_version: the candidate: a version's number; or ``latest``, or a tag such as
        ``stage=candidate``, the highest number that has it.
    :param metric: ``F1Score``, ``Precision`` or ``Recall``, of the evaluations. They are comparable if both
        models were evaluated on the same images; if the dataset has changed in between, the log warns.
    :param min_gain: how much better the candidate must be at least, -1 to 1.
    :param tag: the tag of the model in use, ``key=value``.
    :param replaced_tag: the tag that the model in use gets instead; None only removes ``tag``.
    :param if_not_better: what to do about a candidate that isn't: ``skip`` the task, and so what follows;
        ``fail`` it; or ``succeed``, with ``promoted`` False.
    :param start: whether to start the candidate before it is tagged. The next four are for that.
    :param min_inference_units: how many units host it at least.
    :param max_inference_units: how many host it at most, when it is busy; by default no more.
    :param wait_for_completion: whether to wait until it is hosted, and then tag it.
    :param cancel_on_kill: whether to stop it when the task is killed while it waits.
    :param client_token: a token of your own, used as it is; by default the task instance's.
    :raises AirflowFailException: when the candidate isn't trained; or isn't better, and ``if_not_better`` is
        ``fail``.
    :raises AirflowSkipException: when it isn't better, and ``if_not_better`` is ``skip``.
    :raises AirflowException: when it is in training; or when hosting fails.
    """

    template_fields: Sequence[str] = (
        *LookoutVisionStartModelOperator.template_fields,
        *("metric", "min_gain", "tag", "replaced_tag", "if_not_better"),
    )

    def __init__(
        self,
        *,
        metric: Literal["F1Score", "Precision", "Recall"] = "F1Score",
        min_gain: float | str = 0.0,
        tag: str = "stage=production",
        replaced_tag: str | None = "stage=retired",
        if_not_better: Literal["skip", "fail", "succeed"] = "skip",
        start: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.metric = metric
        self.min_gain = min_gain
        self.tag = tag
        self.replaced_tag = replaced_tag
        self.if_not_better = if_not_better
        self.start = start

    def execute(self, context: Context) -> dict[str, Any]:
        """Compare the candidate with the model in use, start it, and tag it."""
        self.check_parameters()
        parse_tag("tag", self.tag)
        if self.replaced_tag:
            parse_tag("replaced_tag", self.replaced_tag)
        conform_input("ListModels", {"ProjectName": self.project_name})
        with fail_fast_on_client_errors():
            if done := self._earlier_promotion(context):
                return done
            candidate = self.resolve_version()
            description = candidate.describe()
            self.persist_links(context, self.project_name, model_version=candidate.version)
            self._check_status(candidate, description["Status"])
            in_use = self._in_use()
            others = [each for each in in_use if each["ModelVersion"] != candidate.version]
            versions = [each["ModelVersion"] for each in others]
            # A model that is in use already is not compared: then only the others are to be replaced.
            if len(others) == len(in_use) and (reason := self._shortfall(description, others)):
                self._refuse(f"Model {candidate.name} is not promoted: {reason}")
                return self._result(description, promoted=False, compared_with=versions)
            if not self.start:
                return self.result(context, model_version=candidate.version, compared_with=versions)
            self._model = self.start_model(candidate, self.token(context))
            if not self.wait_for_completion:
                self.clear_cancellation()
                return self.result(context, model_version=candidate.version, compared_with=versions)
            return self.wait_or_defer(context, {}, model_version=candidate.version, compared_with=versions)

    def result(self, context: Context, **state: Any) -> dict[str, Any]:
        """Tag the model, and those that it replaces, and return its description."""
        model = ModelVersion(self, self.project_name, state["model_version"])
        key, value = parse_tag("tag", self.tag)
        self.hook.tag(model.describe()["ModelArn"], {key: value, PROMOTED_BY: self._record(context)})
        self.log.info("Model %s is %s", model.name, self.tag)
        return self._replace_others(context, model, state["compared_with"])

    def _earlier_promotion(self, context: Context) -> dict[str, Any] | None:
        """Finish what an earlier try has begun; None if there is nothing."""
        key, value = parse_tag("tag", self.tag)
        for each in self.hook.tagged_models(self.project_name, {PROMOTED_BY: self._record(context)}):
            model = ModelVersion(self, self.project_name, each["ModelVersion"])
            self.log.info("An earlier try has promoted model %s", model.name)
            self.persist_links(context, self.project_name, model_version=model.version)
            if self.hook.tags(each["ModelArn"]).get(key) == value:
                return self._replace_others(context, model, [])
            self.log.warning("Model %s is not %s any more: another has replaced it", model.name, self.tag)
            return self._result(model.describe(), promoted=True)
        return None

    def _replace_others(
        self, context: Context, model: ModelVersion, compared_with: Sequence[str]
    ) -> dict[str, Any]:
        key, _ = parse_tag("tag", self.tag)
        new = dict([parse_tag("replaced_tag", self.replaced_tag)]) if self.replaced_tag else {}
        others = [each for each in self._in_use() if each["ModelVersion"] != model.version]
        for other in others:
            if new:
                self.hook.tag(other["ModelArn"], new)
            if key not in new:
                self.hook.untag(other["ModelArn"], key)
            self.log.info("Model %s/%s is replaced", self.project_name, other["ModelVersion"])
        replaced = [each["ModelVersion"] for each in others]
        description = model.describe()
        extra = {**event_extra(model, description), "replaced": replaced}
        emit_asset_event(context, models_uri(description["ModelArn"], self.tag), extra)
        return self._result(description, promoted=True, compared_with=compared_with, replaced=replaced)

    def _refuse(self, text: str) -> None:
        if self.if_not_better == "fail":
            raise AirflowFailException(text)
        if self.if_not_better == "skip":
            raise AirflowSkipException(text)
        self.log.info("%s", text)

    def _result(
        self,
        description: Mapping[str, Any],
        *,
        promoted: bool,
        compared_with: Sequence[str] = (),
        replaced: Sequence[str] = (),
    ) -> dict[str, Any]:
        more = {"promoted": promoted, "compared_with": list(compared_with), "replaced": list(replaced)}
        return {**to_json(dict(description)), **more}

    def _record(self, context: Context) -> str:
        return self.token(context, "promote")

    def _in_use(self) -> list[dict[str, Any]]:
        key, value = parse_tag("tag", self.tag)
        return list(self.hook.tagged_models(self.project_name, {key: value}))

    def _shortfall(self, candidate: Mapping[str, Any], in_use: Sequence[Mapping[str, Any]]) -> str:
        """Why the candidate is not good enough; empty if it is."""
        metric = candidate.get("Performance", {}).get(self.metric, 0.0)
        self.log.info("Candidate: model %s with %s %.4f", candidate["ModelVersion"], self.metric, metric)
        min_gain, shortfall = float(self.min_gain), ""
        for each in in_use:
            best = each.get("Performance", {}).get(self.metric, 0.0)
            self.log.info("In use: model %s with %s %.4f", each["ModelVersion"], self.metric, best)
            self._warn_of_other_images(each)
            if metric < best + min_gain:
                shortfall = shortfall or (
                    f"its {self.metric} is {metric:.4f}, and that of model {each['ModelVersion']}, which is "
                    f"in use, {best:.4f}; min_gain is {min_gain:g}"
                )
        return shortfall

    def _warn_of_other_images(self, in_use: Mapping[str, Any]) -> None:
        exceptions = self.hook.conn.exceptions
        for dataset_type in ("test", "train"):
            try:
                answer = self.call("DescribeDataset", ProjectName=self.project_name, DatasetType=dataset_type)
            except (exceptions.ResourceNotFoundException, exceptions.AccessDeniedException):
                continue
            if answer["DatasetDescription"]["LastUpdatedTimestamp"] > in_use["CreationTimestamp"]:
                self.log.warning(
                    "The %s dataset has changed since model %s was trained: the two were not evaluated on "
                    "the same images",
                    dataset_type,
                    in_use["ModelVersion"],
                )
            return

    def _check_status(self, model: ModelVersion, status: str) -> None:
        if status in _PASSING:
            raise AirflowException(f"Model {model.name} is {status}. Wait for it, or let the task retry")
        if status not in _USABLE:
            raise AirflowFailException(f"Model {model.name} is {status}, and can't be promoted")
