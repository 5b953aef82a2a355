"""The operator that imports what was saved elsewhere: ``lookoutvision import`` as a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_provider_lookoutvision.links.lookoutvision import DATASET_LINKS
from airflow_provider_lookoutvision.operators.base import (
    LookoutVisionBaseOperator,
    fail_fast_on_client_errors,
    to_json,
)
from airflow_provider_lookoutvision.operators.datasets import announce_dataset
from airflow_provider_lookoutvision.operators.parameters import CHECKS, Check, s3_folder
from airflow_provider_lookoutvision.operators.s3 import s3_hook
from airflow_provider_lookoutvision.operators.values import choice

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from airflow.providers.openlineage.extractors import OperatorLineage

    from airflow_provider_lookoutvision.moving.plan import Plan


class LookoutVisionImportDatasetsOperator(LookoutVisionBaseOperator):
    """Import images and labels into projects and datasets, once for this task instance.

    The sources are those of ``lookoutvision import``: manifests, what ListDatasetEntries returned, the
    console's bucket, folders, MVTec's layout, COCO, Label Studio, CSV. All is checked before anything is
    changed. A retry goes on where an earlier try was, and a dataset that has all these entries is a success,
    whoever made it. The task waits in its worker, whose disk a path refers to. Masks that have to be painted
    (COCO, Label Studio, MVTec with several defects) need the extra ``moving`` there.

    The result is a dict: ``datasets`` has the ImageStats of each, by ``<project>/<type>``, ``missing`` what
    was left out, and ``uploaded`` the number of objects written. A task with outlets announces each dataset
    that it has made or changed.

    :param source: a path, or ``s3://bucket/prefix/``.
    :param project_name: the project, where the source doesn't say.
    :param images_s3_prefix: where what isn't in S3 goes, ``s3://bucket/prefix/``.
    :param reference_map: references that begin with a key lead to its value, ``{"s3://old/": "s3://new/"}``.
    :param source_format: of a source that may be of several formats.
    :param dataset_type: the dataset, where the source doesn't say; by default ``train``.
    :param test_size: the part of the images to test with, 0 to 1, instead of what the source says.
    :param seed: another one divides them otherwise.
    :param labels: what labels of the source mean, ``{"passed": "normal"}``.
    :param mask_colors: the colours of the classes in their masks, ``{"scratch": "#FF0000"}``.
    :param mask_class: one class for all masks.
    :param masks: whether to import masks.
    :param skip_missing: whether to leave out images that aren't there, instead of failing.
    :param overwrite: whether to overwrite other objects below ``images_s3_prefix``.
    :param create_bucket: whether to make the bucket, if there is none.
    :param if_exists: about a dataset with other entries: ``fail``, ``skip`` it, or ``update`` it with what it
        lacks.
    :param s3_conn_id: the connection for S3; by default ``aws_conn_id``.
    :raises AirflowFailException: when the source can't be imported as it is, with the reason.
    :raises AirflowException: when the service is at fault.
    """

    template_fields: Sequence[str] = (
        *LookoutVisionBaseOperator.template_fields,
        "source",
        "project_name",
        "images_s3_prefix",
        "reference_map",
        "source_format",
        "dataset_type",
        "test_size",
        "seed",
        "labels",
        "mask_colors",
        "mask_class",
        "if_exists",
        "s3_conn_id",
    )

    operator_extra_links = DATASET_LINKS

    parameter_checks: ClassVar[Mapping[str, Check]] = {
        **CHECKS,
        "dataset_type": partial(choice, of=("train", "test"), optional=True),
        "if_exists": partial(choice, of=("fail", "skip", "update")),
        "images_s3_prefix": s3_folder,
    }

    _result: Mapping[str, Any] | None = None

    def __init__(
        self,
        *,
        source: str,
        project_name: str | None = None,
        images_s3_prefix: str | None = None,
        reference_map: Mapping[str, str] | None = None,
        source_format: str | None = None,
        dataset_type: str | None = None,
        test_size: float | str | None = None,
        seed: int | str = 0,
        labels: Mapping[str, str] | None = None,
        mask_colors: Mapping[str, str] | None = None,
        mask_class: str | None = None,
        masks: bool = True,
        skip_missing: bool = False,
        overwrite: bool = False,
        create_bucket: bool = False,
        if_exists: str = "fail",
        s3_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"multiple_outputs": True, **kwargs})
        self.source = source
        self.project_name = project_name
        self.images_s3_prefix = images_s3_prefix
        self.reference_map = reference_map
        self.source_format = source_format
        self.dataset_type = dataset_type
        self.test_size: Any = test_size
        self.seed: Any = seed
        self.labels = labels
        self.mask_colors = mask_colors
        self.mask_class = mask_class
        self.masks = masks
        self.skip_missing = skip_missing
        self.overwrite = overwrite
        self.create_bucket = create_bucket
        self.if_exists = if_exists
        self.s3_conn_id = s3_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Plan the import, and carry it out."""
        from airflow_provider_lookoutvision.moving import importing
        from airflow_provider_lookoutvision.moving.errors import MovingError, ServiceFault

        self.check_parameters()
        s3 = s3_hook(self, self.s3_conn_id).conn
        try:
            with fail_fast_on_client_errors():
                plan = self._plan(s3)
                self._persist_links(context, plan)
                imported = importing.carry_out(
                    plan,
                    client=self.hook.conn,
                    s3=s3,
                    if_exists=self.if_exists,
                    create_bucket=self.create_bucket,
                    token=lambda *purpose: self.derived_token(context, *purpose),
                    say=self.log.info,
                )
        except ServiceFault as error:
            raise AirflowException(str(error)) from error
        except MovingError as error:
            raise AirflowFailException(str(error)) from error
        except ModuleNotFoundError as error:
            raise AirflowFailException(
                f"{error.name} is not installed on this worker: pip install "
                "'airflow-provider-lookoutvision[moving]'"
            ) from error
        for description, changed in imported.values():
            if changed:
                announce_dataset(self, context, to_json(description), source=self.source)
        stats = {name: description["ImageStats"] for name, (description, _) in imported.items()}
        self._result = {"datasets": stats, "missing": plan.missing, "uploaded": len(plan.uploads)}
        return dict(self._result)

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:
        """Return the lineage: the source in, if it is in S3; the datasets out."""
        from airflow_provider_lookoutvision import lineage

        made = (self._result or {}).get("datasets", {})
        return lineage.operator_lineage(
            inputs=[lineage.s3_dataset(self.source)] if self.source.startswith("s3://") else [],
            outputs=[
                dataset for name in made for dataset in lineage.project_datasets(self, *name.rsplit("/", 1))
            ],
        )

    def _persist_links(self, context: Context, plan: Plan) -> None:
        """Link to the project if it is one, and to the dataset if it is one."""
        projects = {dataset.project for dataset in plan.datasets}
        types = {dataset.type for dataset in plan.datasets}
        if len(projects) == 1:
            self.persist_links(context, *projects, dataset_type=types.pop() if len(types) == 1 else "")

    def _plan(self, s3: Any) -> Plan:
        from airflow_provider_lookoutvision.moving import formats, places, plan
        from airflow_provider_lookoutvision.moving.errors import MovingError
        from airflow_provider_lookoutvision.moving.reading import check_project_name, make_options

        check_project_name(self.project_name)
        options = make_options(
            dataset=self.dataset_type,
            labels=self.labels or {},
            colors=self.mask_colors or {},
            mask_class=self.mask_class,
            masks=self.masks,
            test_size=self.test_size or None,
            seed=self.seed,
        )
        maps = places.check_maps(self.reference_map or {})
        source, name = formats.open_source(self.source, lambda: s3)
        kind, reading = formats.read(source, name, options, self.source_format)
        self.log.info("%s: %d images, as %s", self.source, len(reading.entries), kind)
        made = plan.make_plan(
            source,
            reading.entries,
            s3=s3,
            project=self.project_name,
            maps=maps,
            to=self.images_s3_prefix,
            skip_missing=self.skip_missing,
            overwrite=self.overwrite,
        )
        for remark in (*reading.remarks, *made.remarks, *made.datasets):
            self.log.info("%s", remark)
        if made.missing and not self.skip_missing:
            self.log.error("Missing:\n%s", "\n".join(made.missing))
            raise MovingError(
                f"{len(made.missing)} images or masks are missing, listed in the log. reference_map says "
                "where they are, skip_missing leaves them out"
            )
        return made
