"""People in the loop: images that a model is unsure of become labels, by people in Airflow's own UI.

It needs Airflow 3.1, whose ``HITLOperator`` waits for an answer without a worker's slot.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from inspect import signature
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowOptionalProviderFeatureException,
    AirflowSkipException,
    TaskGroup,
    task,
)

from airflow_provider_lookoutvision.manifests import LABELS
from airflow_provider_lookoutvision.operators.s3 import fail_fast_on_s3_errors, parse_s3_uri

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import XComArg

log = logging.getLogger(__name__)

UNSURE = "unsure"
LONGEST_EXPIRY = timedelta(days=7)  # of a presigned URL


def review_images(
    images: Sequence[str] | Sequence[Sequence[str]] | XComArg,
    *,
    aws_conn_id: str | None = "aws_default",
    s3_conn_id: str | None = None,
    response_timeout: timedelta | None = None,
    expires_in: timedelta = LONGEST_EXPIRY,
    group_id: str = "review_images",
    **arguments: Any,
) -> XComArg:
    """Have people label images, as a group of tasks, and return the labels, ``{uri: "normal" or "anomaly"}``.

    ::

        labels = review_images(detect.output["uncertain_refs"])
        LookoutVisionUpdateDatasetEntriesOperator(
            task_id="label", project_name="machined-parts", dataset_type="train", labels=labels
        )

    The tasks are ``present``, ``review``, which is mapped over the images and shows each with its picture,
    and ``labels``. An image that somebody is ``unsure`` of has no label; without any label ``labels`` is
    skipped, and so is what follows.

    :param images: the images, ``s3://bucket/key``; or the ``uncertain_refs`` of one
        :class:`.LookoutVisionDetectAnomaliesOperator` or of a mapped one.
    :param aws_conn_id: the connection for S3, unless ``s3_conn_id`` is given. The pictures are URLs that it
        signs: what it takes for S3's address must be one that the reviewers' browsers reach, too.
    :param s3_conn_id: the connection for S3.
    :param response_timeout: how long to wait for an answer; then the image counts as ``unsure``. By default
        as long as it takes.
    :param expires_in: how long the pictures can be seen, 7 days at most. Whoever has a picture's URL can see
        it for so long; Airflow keeps the URL with the task.
    :param group_id: the group's name; a second group of that name in a DAG gets a number.
    :param arguments: further parameters of Airflow's ``HITLOperator``, such as ``assigned_users``,
        ``notifiers`` and ``params``.
    :raises AirflowOptionalProviderFeatureException: before Airflow 3.1, or with a standard provider that has
        no ``HITLOperator``.
    """
    try:
        from airflow.providers.standard.operators.hitl import HITLOperator
    except ImportError as error:
        raise AirflowOptionalProviderFeatureException(
            "review_images needs Airflow 3.1, and an apache-airflow-providers-standard with HITLOperator"
        ) from error

    if response_timeout is not None:
        new = "response_timeout" in signature(HITLOperator.__init__).parameters
        arguments = {**arguments, "response_timeout" if new else "execution_timeout": response_timeout}
    given: Any = images  # to a type checker a task takes what its function takes
    with TaskGroup(group_id, tooltip="Images for people to label", add_suffix_on_collision=True):
        presented = task(task_id="present")(_present)(
            given, aws_conn_id=s3_conn_id or aws_conn_id, expires_in=int(expires_in.total_seconds())
        )
        reviewed: Any = HITLOperator.partial(
            **{
                "task_id": "review",
                "options": [*LABELS, UNSURE],
                "defaults": [UNSURE],
                "map_index_template": "{{ task.subject }}",
                **arguments,
            }
        ).expand_kwargs(presented)
        labels: Any = task(task_id="labels", multiple_outputs=False)(_labels)(given, reviewed.output)
    return labels  # type: ignore[no-any-return]


def _present(
    images: Iterable[str | Iterable[str]], aws_conn_id: str | None, expires_in: int
) -> list[dict[str, str]]:
    """The subject and body of each image's review, with its picture."""
    from botocore.config import Config

    from airflow_provider_lookoutvision.hooks.connection import LookoutVisionS3Hook

    hook = LookoutVisionS3Hook(aws_conn_id=aws_conn_id)
    # botocore would sign as S3 did before 2014, which neither new regions nor our own S3 take.
    client = hook.get_client_type(hook.region_name, hook.config.merge(Config(signature_version="s3v4")))
    presented = []
    for uri in _flat(images):
        bucket, key = parse_s3_uri("images", uri)
        with fail_fast_on_s3_errors(uri):
            url = client.generate_presigned_url(
                "get_object", {"Bucket": bucket, "Key": key}, ExpiresIn=expires_in
            )
        body = f"![The image]({url})\n\n`{uri}`\n\nIs it normal, or an anomaly?"
        presented.append({"subject": key.rpartition("/")[2], "body": body})
    return presented


def _labels(images: Iterable[str | Iterable[str]], responses: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The label of each image that somebody was sure of."""
    chosen = {
        uri: response["chosen_options"][0] for uri, response in zip(_flat(images), responses, strict=True)
    }
    labels = {uri: label for uri, label in chosen.items() if label in LABELS}
    log.info("%d of %d images are labelled", len(labels), len(chosen))
    if not labels:
        raise AirflowSkipException("Nobody has labelled an image")
    return labels


def _flat(images: Iterable[str | Iterable[str]]) -> list[str]:
    """Each image once: a mapped detection has a list for each of its tasks."""
    lists = ([each] if isinstance(each, str) else each for each in images)
    return list(dict.fromkeys(uri for each in lists for uri in each))
