"""For TaskFlow DAGs: from labelled images in S3 to a project's datasets, in one call.

It is not a ``@task`` decorator, since there is no function of the user's to decorate. It is called inside a
``@dag`` function like a ``@task_group``, and its result is passed to tasks in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

from airflow.providers.common.compat.sdk import TaskGroup

from airflow_provider_lookoutvision.operators.datasets import LookoutVisionCreateDatasetOperator
from airflow_provider_lookoutvision.operators.manifests import LookoutVisionBuildManifestOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import XComArg

_MANIFEST_PARAMETERS = {"s3_conn_id"}
_DATASET_PARAMETERS = {"deferrable", "if_exists", "waiter_delay", "waiter_max_attempts"}


class ImageDataset(TypedDict):
    """What :func:`image_dataset` returns. A task takes one of the members, or all: ``report(dataset)``."""

    project_name: XComArg
    """The project's name, available when all its datasets can be used."""
    manifests: XComArg
    """What ``LookoutVisionBuildManifestOperator`` returns: the manifests' URIs, and the counts."""
    train: XComArg
    """The DatasetDescription of the train dataset."""
    test: NotRequired[XComArg]
    """The DatasetDescription of the test dataset, if there is one."""


def image_dataset(
    project_name: str | XComArg,
    *,
    manifests_s3_prefix: str | XComArg,
    images_s3_prefix: str | XComArg | None = None,
    table_s3_uri: str | XComArg | None = None,
    test_size: float | str | XComArg = 0.0,
    seed: int | str | XComArg = 0,
    mask_colors: Mapping[str, str] | XComArg | None = None,
    group_id: str = "image_dataset",
    **arguments: Any,
) -> ImageDataset:
    """Build manifests of labelled images in S3, and a project's datasets from these, as a group of tasks.

    ::

        @dag(...)
        def line_1():
            dataset = image_dataset(
                "machined-parts",
                images_s3_prefix="s3://images/line-1/",
                manifests_s3_prefix="s3://images/manifests/line-1/",
                test_size=0.25,
            )
            train_model(dataset["project_name"])

    The tasks are ``build_manifest``, ``create_train_dataset`` and, with ``test_size``,
    ``create_test_dataset``, one after another. A task that takes ``dataset["project_name"]`` waits for all of
    them.

    :param project_name: the project, which must exist: a name, a template, or
        ``create.output["ProjectName"]``.
    :param manifests_s3_prefix: where the manifests go, ``s3://bucket/prefix/``. This and the next five are
        parameters of :class:`.LookoutVisionBuildManifestOperator`.
    :param images_s3_prefix: where the folders of images are, ``s3://bucket/prefix/``.
    :param table_s3_uri: instead, a table of the images, ``s3://bucket/key.csv``.
    :param test_size: the fraction of each label, and class, for the test dataset, 0 to 1. By default there is
        no test dataset; a template or an output must render to more than 0, since the tasks exist by then.
    :param seed: another seed splits the images in another way.
    :param mask_colors: the colour of each class in its masks, ``{"scratch": "#FF0000"}``.
    :param group_id: the group's name; a second group of that name in a DAG gets a number.
    :param arguments: further parameters of the operators: ``aws_conn_id``, ``region_name``, ``verify`` and
        ``botocore_config``; ``s3_conn_id``; ``if_exists``, ``deferrable``, ``waiter_delay`` and
        ``waiter_max_attempts`` of the datasets; ``retries`` and all others of an Airflow task. The defaults
        are those of the DAG's ``default_args``.
    """
    for_manifests = {name: each for name, each in arguments.items() if name not in _DATASET_PARAMETERS}
    for_datasets = {name: each for name, each in arguments.items() if name not in _MANIFEST_PARAMETERS}
    for_manifests |= {"images_s3_prefix": images_s3_prefix, "table_s3_uri": table_s3_uri}
    for_manifests |= {"manifests_s3_prefix": manifests_s3_prefix, "test_size": test_size}
    for_manifests |= {"seed": seed, "mask_colors": mask_colors}
    with TaskGroup(group_id, tooltip="Images as datasets", add_suffix_on_collision=True):
        manifests: Any = LookoutVisionBuildManifestOperator(task_id="build_manifest", **for_manifests).output

        def created(dataset_type: Any) -> Any:
            return LookoutVisionCreateDatasetOperator(
                task_id=f"create_{dataset_type}_dataset",
                dataset_type=dataset_type,
                manifest_s3_uri=manifests[f"{dataset_type}_manifest_s3_uri"],
                wait_for_completion=True,
                **{"project_name": project_name, **for_datasets},
            ).output

        train = created("train")
        if not test_size:
            return {"project_name": train["ProjectName"], "manifests": manifests, "train": train}
        # One after the other, so that the second one ends when both have.
        test = created("test")
        train >> test
        return {"project_name": test["ProjectName"], "manifests": manifests, "train": train, "test": test}
