"""The operator of thresholds: set the threshold of a model, or choose it by a target."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_lookoutvision.links.lookoutvision import MODEL_LINKS
from airflow_provider_lookoutvision.operators.base import fail_fast_on_client_errors
from airflow_provider_lookoutvision.operators.model_version import ModelVersionMixin
from airflow_provider_lookoutvision.operators.s3 import fail_fast_on_s3_errors, s3_hook

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

_TARGETS = ("threshold", "min_recall", "min_precision")


class LookoutVisionSetThresholdOperator(ModelVersionMixin):
    """Set the threshold of a trained model, without training it anew; it is in use at the next detection.

    An image is anomalous when the probability of that is above the threshold, which is 0.5 until it is set. A
    lower one finds more anomalies and has more false alarms. With ``min_recall`` or ``min_precision`` it is
    chosen from the model's EvaluationResult, that is, by its test images: a target of 0.99 means little on
    ten anomalies. The threshold is a tag of the model, ``lookoutvision:threshold``, and in its StatusMessage.

    The result is ``ModelVersion``, ``Threshold``, and for a target ``Precision``, ``Recall`` and ``F1Score``
    of the test images with that threshold; each member is an XCom of its own too.

    :param project_name: the project.
    :param model_version: the version's number; or ``latest``, the highest number when the task runs; or a
        tag such as ``stage=production``, the highest number that has it.
    :param threshold: between 0 and 1. Exactly one of this, ``min_recall`` and ``min_precision`` is given.
    :param min_recall: the fraction of the anomalous test images, 0 to 1, that are found at least: of the
        thresholds that do, the one with the highest precision.
    :param min_precision: the fraction of what is called anomalous, 0 to 1, that is so at least: of the
        thresholds that do, the one with the highest recall.
    :param s3_conn_id: the connection for S3, where the EvaluationResult is; by default ``aws_conn_id``.
    :raises AirflowFailException: when no threshold reaches the target, with the best that there is; when the
        model isn't trained; when the service doesn't know the setting.
    """

    operator_extra_links = MODEL_LINKS
    template_fields: Sequence[str] = (*ModelVersionMixin.template_fields, *_TARGETS, "s3_conn_id")

    def __init__(
        self,
        *,
        threshold: float | str | None = None,
        min_recall: float | str | None = None,
        min_precision: float | str | None = None,
        s3_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"multiple_outputs": True, **kwargs})
        self.threshold = threshold
        self.min_recall = min_recall
        self.min_precision = min_precision
        self.s3_conn_id = s3_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Set the threshold."""
        self.check_parameters()
        name, value = self._target()
        with fail_fast_on_client_errors(), fail_fast_on_s3_errors():
            description = self.tagged_version().describe()
            self.persist_links(context, self.project_name, model_version=description["ModelVersion"])
            if name == "threshold":
                chosen: Mapping[str, float] = {"Threshold": value}
            else:
                chosen = choose(self._operating_points(description), name, value)
            self.hook.set_threshold(self.project_name, description["ModelVersion"], chosen["Threshold"])
        result = {"ModelVersion": description["ModelVersion"], **chosen}
        self.log.info(
            "Model %s/%s: %s",
            self.project_name,
            result["ModelVersion"],
            ", ".join(f"{member} {number:.4g}" for member, number in chosen.items()),
        )
        return result

    def _target(self) -> tuple[str, float]:
        given = [(name, getattr(self, name)) for name in _TARGETS if getattr(self, name) is not None]
        if len(given) != 1:
            raise AirflowFailException(f"Set exactly one of {', '.join(_TARGETS)}; {len(given)} are set")
        name, value = given[0]
        if name == "threshold" and value in (0, 1):
            raise AirflowFailException(f"{name} is {value:g}; it must be a number between 0 and 1")
        return name, value

    def _operating_points(self, description: Mapping[str, Any]) -> Sequence[Mapping[str, float]]:
        place = description.get("EvaluationResult")
        if place is None:
            raise AirflowFailException(
                f"Model {self.project_name}/{description['ModelVersion']} is {description['Status']}, and "
                "has no evaluation to choose by"
            )
        hook = s3_hook(self, self.s3_conn_id)
        content = hook.conn.get_object(Bucket=place["Bucket"], Key=place["Key"])["Body"].read()
        results = json.loads(content)["AggregatedEvaluationResults"]
        points: Sequence[Mapping[str, float]] = results.get("OperatingPoints", ())
        if not points:
            raise AirflowFailException(
                f"s3://{place['Bucket']}/{place['Key']} has no OperatingPoints: the model was tested on no "
                "anomalous image, or by an older service. Train it anew, with a test dataset that has some"
            )
        return points


def choose(points: Sequence[Mapping[str, float]], target: str, value: float) -> Mapping[str, float]:
    """The operating point that reaches a target and is best in the other metric; of equals, the highest.

    :param target: ``min_recall`` or ``min_precision``.
    :raises AirflowFailException: when none reaches it.
    """
    metric, other = ("Recall", "Precision") if target == "min_recall" else ("Precision", "Recall")
    reaching = [point for point in points if point[metric] >= value]
    if not reaching:
        best = max(points, key=lambda point: point[metric])
        shown = ", ".join(f"{name} {number:.4g}" for name, number in best.items())
        raise AirflowFailException(
            f"No threshold has {target} {value:g} on the test images; the best: {shown}"
        )
    return max(reaching, key=lambda point: (point[other], point["Threshold"]))
