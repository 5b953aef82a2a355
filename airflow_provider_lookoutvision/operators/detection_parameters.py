"""Which parameters of detection go together, and where what it stores is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_lookoutvision.operators.s3 import parse_s3_prefix, parse_s3_uri

if TYPE_CHECKING:
    from airflow_provider_lookoutvision.operators.detection import LookoutVisionDetectAnomaliesOperator


def check(operator: LookoutVisionDetectAnomaliesOperator) -> None:
    """Check them.

    :raises AirflowFailException: naming those that contradict each other, or are missing.
    """
    if operator.max_workers < 1:
        raise AirflowFailException(f"max_workers is {operator.max_workers}; it must be at least 1")
    given = tuple(
        each is not None
        for each in (operator.image_s3_uri, operator.images_s3_prefix, operator.results_s3_uri)
    )
    if given not in ((True, False, False), (False, True, True)):
        raise AirflowFailException("Set either image_s3_uri, or images_s3_prefix and results_s3_uri")
    if operator.image_s3_uri is not None and operator.engine == "ray":
        raise AirflowFailException('engine="ray" is for images_s3_prefix')
    if operator.image_s3_uri is not None and (operator.max_anomaly_rate, operator.min_images) != (None, None):
        raise AirflowFailException("max_anomaly_rate and min_images are for images_s3_prefix")
    if operator.heatmaps_s3_prefix is not None and not operator.store_heatmaps:
        raise AirflowFailException("heatmaps_s3_prefix is set, and store_heatmaps isn't: set it to True")
    if operator.image_s3_uri is not None and operator.store_heatmaps and operator.heatmaps_s3_prefix is None:
        raise AirflowFailException("store_heatmaps needs heatmaps_s3_prefix, for the map of one image")
    _check_apart(operator, "masks", operator.masks_s3_prefix)
    if operator.store_heatmaps:
        bucket, prefix = heatmaps(operator) or ("", "")
        _check_apart(operator, "heatmaps", f"s3://{bucket}/{prefix}")


def heatmaps(operator: LookoutVisionDetectAnomaliesOperator) -> tuple[str, str] | None:
    """The bucket and the prefix of the heat maps, if they are stored."""
    if not operator.store_heatmaps:
        return None
    if operator.heatmaps_s3_prefix is not None:
        return parse_s3_prefix("heatmaps_s3_prefix", operator.heatmaps_s3_prefix)
    bucket, key = parse_s3_uri("results_s3_uri", str(operator.results_s3_uri))
    return bucket, f"{key}.heatmaps/"


def _check_apart(operator: LookoutVisionDetectAnomaliesOperator, what: str, stored: str | None) -> None:
    if operator.images_s3_prefix is None or stored is None:
        return
    bucket, prefix = parse_s3_prefix("images_s3_prefix", operator.images_s3_prefix)
    other_bucket, other = parse_s3_prefix(f"{what}_s3_prefix", stored)
    if bucket == other_bucket and f"{other}{prefix}".startswith(prefix):
        raise AirflowFailException(
            f"{what}_s3_prefix {stored} is below images_s3_prefix {operator.images_s3_prefix}: the {what} "
            "would be images the next time. Store them elsewhere"
        )
