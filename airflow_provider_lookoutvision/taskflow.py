"""For DAGs that are written as functions: from labelled images in S3 to a project's datasets, in one call.

Not a ``@task`` decorator, since there is nothing of the user's to decorate: a function that is called inside
a ``@dag`` function as a ``@task_group`` is, and whose result is passed on to tasks as theirs are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

from airflow.providers.common.compat.sdk import TaskGroup

from airflow_provider_lookoutvision.operators.datasets import LookoutVisionCreateDatasetOperator
from airflow_provider_lookoutvision.operators.manifests import LookoutVisionBuildManifestOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import XComArg

_OF_MANIFESTS_ONLY = {"s3_conn_id"}
_OF_DATASETS_ONLY = {"deferrable", "if_exists", "waiter_delay", "waiter_max_attempts"}


class ImageDataset(TypedDict):
    """What :func:`image_dataset` returns. A task takes one of these, or all: ``report(dataset)``."""

    project_name: XComArg
    """The project's name, as soon as all its datasets can be used."""
    manifests: XComArg
    """Where the manifests are, and the counts: what ``LookoutVisionBuildManifestOperator`` returns."""
    train: XComArg
    """The DatasetDescription of the train dataset."""
    test: NotRequired[XComArg]
    """That of the test dataset, if there is one."""


def image_dataset(
    project_name: str | XComArg,
    *,
    images: str | XComArg,
    destination: str | XComArg,
    test_share: float | str | XComArg = 0.0,
    seed: int | str | XComArg = 0,
    mask_colors: Mapping[str, str] | XComArg | None = None,
    group_id: str = "image_dataset",
    **arguments: Any,
) -> ImageDataset:
    """Make manifests of labelled images in S3, and a project's datasets of these, as a group of tasks.

    ::

        @dag(...)
        def line_1():
            dataset = image_dataset(
                "machined-parts",
                images="s3://images/line-1/",
                destination="s3://images/manifests/line-1/",
                test_share=0.25,
            )
            train_model(dataset["project_name"])

    The tasks are ``build_manifest``, ``create_train_dataset`` and, with ``test_share``,
    ``create_test_dataset``, one after another. What takes ``dataset["project_name"]`` waits for all of them.

    :param project_name: the project, which exists: a name, a template, or ``create.output["ProjectName"]``.
    :param images: the folders' place, ``s3://bucket/prefix/``; or a table, ``s3://bucket/key.csv``. See
        :class:`.LookoutVisionBuildManifestOperator`, whose this and the next four are.
    :param destination: where the manifests go, ``s3://bucket/prefix/``.
    :param test_share: the part of each label, and class, that is to test with, 0 to 1. By default there is no
        test dataset; a template or an output must be above 0, since the tasks are there by then.
    :param seed: another one divides the images otherwise.
    :param mask_colors: the colour of each class in its masks, ``{"scratch": "#FF0000"}``.
    :param group_id: the group's name; a second one of that name in a DAG is numbered.
    :param arguments: what the operators take besides: ``aws_conn_id``, ``region_name``, ``verify`` and
        ``botocore_config``; ``s3_conn_id``; ``if_exists``, ``deferrable``, ``waiter_delay`` and
        ``waiter_max_attempts`` of the datasets; ``retries`` and all else that a task of Airflow has. What
        isn't given is as the DAG's ``default_args`` say.
    """
    for_manifests = {name: each for name, each in arguments.items() if name not in _OF_DATASETS_ONLY}
    for_datasets = {name: each for name, each in arguments.items() if name not in _OF_MANIFESTS_ONLY}
    for_manifests |= {"images": images, "destination": destination}
    for_manifests |= {"test_share": test_share, "seed": seed, "mask_colors": mask_colors}
    with TaskGroup(group_id, tooltip="Images as datasets", add_suffix_on_collision=True):
        manifests: Any = LookoutVisionBuildManifestOperator(task_id="build_manifest", **for_manifests).output

        def created(dataset_type: Any) -> Any:
            return LookoutVisionCreateDatasetOperator(
                task_id=f"create_{dataset_type}_dataset",
                dataset_type=dataset_type,
                manifest=manifests[dataset_type],
                wait_for_completion=True,
                **{"project_name": project_name, **for_datasets},
            ).output

        train = created("train")
        if not test_share:
            return {"project_name": train["ProjectName"], "manifests": manifests, "train": train}
        # One after the other, so that there is a task whose end is that of both.
        test = created("test")
        train >> test
        return {"project_name": test["ProjectName"], "manifests": manifests, "train": train, "test": test}
