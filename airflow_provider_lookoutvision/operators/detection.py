"""The operator of detection: one image, or all of a prefix."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_lookoutvision.idempotency import tokens_of_other_epochs
from airflow_provider_lookoutvision.operators.base import no_retry_for_faults_of_the_input
from airflow_provider_lookoutvision.operators.batches import Checkpoint, Result, images, work_through
from airflow_provider_lookoutvision.operators.inspection import Inspector
from airflow_provider_lookoutvision.operators.pacing import Pace
from airflow_provider_lookoutvision.operators.s3 import (
    no_retry_for_faults_of_s3,
    s3_hook,
    split_s3_prefix,
    split_s3_uri,
)
from airflow_provider_lookoutvision.operators.versions import Model, ModelVersionMixin

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from airflow.providers.openlineage.extractors import OperatorLineage

ON_INVALID_IMAGE = ("fail", "record")

_TOKEN = "client-token"  # noqa: S105 (the name of an object's metadata)
_MOST_FAILURES_TOLD = 10


class LookoutVisionDetectAnomaliesOperator(ModelVersionMixin):
    """Ask a hosted model about one image, or about all images of a prefix, in S3.

    With ``image`` the result is the DetectAnomalyResult: ``IsAnomalous``, ``Confidence`` (of that verdict, 0
    to 1), and from a model that was trained with masks ``Anomalies``, which are areas as fractions of the
    image. Added are ``source-ref``, ``ModelVersion`` and, where a mask is stored, ``mask-ref``.

    With ``prefix`` and ``results`` all ``.jpg``, ``.jpeg`` and ``.png`` below the prefix are looked at, and
    ``results`` becomes JSON Lines in the order of the keys, an object an image: ``source-ref`` and what
    the result has of ``IsAnomalous``, ``Confidence``, ``Anomalies`` and ``mask-ref``; or ``source-ref`` and
    ``error`` (``Code``, ``Message``) of an image that can't be used. The result is a summary: ``total``,
    ``anomalous``, ``normal``, ``failed``, ``results``, ``anomalous_refs`` (the first ``max_refs``) and
    ``ModelVersion``. Either result's members are XComs of their own too.

    What is done is kept as it goes, below ``<results>.parts/``, and removed at the end: a retry, or a clear
    of a failed task, goes on where the task ended, and asks again only about images that have changed.
    Cleared after a success it does everything anew. Mapped tasks need an object each:
    ``results="s3://results/{{ ds }}/{{ ti.map_index }}.jsonl"``.

    :param project_name: the project.
    :param model_version: the version's number; or ``latest``, which is looked up once for all images.
    :param image: an image, ``s3://bucket/key``.
    :param prefix: all images whose keys begin like that, ``s3://bucket/prefix``; a folder ends with ``/``.
    :param results: where the results go then, ``s3://bucket/key``.
    :param store_masks: where masks go, ``s3://bucket/prefix``, as RGB PNGs of the image's size: that of
        ``s3://images/a/b.jpg`` to ``s3://bucket/prefix`` + ``a/b.jpg.png``. Stored are those of anomalous
        images, and those in which something is marked. Not below ``prefix``.
    :param on_invalid_image: what to do about images of a prefix that can't be used: ``record`` them in the
        results; or ``fail`` as well, when all others are done.
    :param fail_if_empty: whether a prefix without images is an error; by default it is worth a warning.
    :param max_workers: how many images to ask about at a time.
    :param max_refs: how many anomalous images the summary names.
    :param s3_conn_id: the connection for S3; by default ``aws_conn_id``.
    :raises AirflowFailException: when the model isn't hosted; when an input can't be read, or ``image``
        can't be used.
    :raises AirflowException: when the model is being started; when the service takes nothing for five
        minutes, or fails again and again.
    """

    template_fields: Sequence[str] = (
        *ModelVersionMixin.template_fields,
        "image",
        "prefix",
        "results",
        "store_masks",
        "on_invalid_image",
        "s3_conn_id",
    )

    _pace: Pace | None = None
    _model: Mapping[str, Any] | None = None
    _found: Mapping[str, Any] | None = None

    def __init__(
        self,
        *,
        image: str | None = None,
        prefix: str | None = None,
        results: str | None = None,
        store_masks: str | None = None,
        on_invalid_image: Literal["fail", "record"] = "record",
        fail_if_empty: bool = False,
        max_workers: int = 8,
        max_refs: int = 100,
        s3_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"multiple_outputs": True, **kwargs})
        self.image = image
        self.prefix = prefix
        self.results = results
        self.store_masks = store_masks
        self.on_invalid_image = on_invalid_image
        self.fail_if_empty = fail_if_empty
        self.max_workers = max_workers
        self.max_refs = max_refs
        self.s3_conn_id = s3_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Look at the image, or at all that aren't done yet."""
        self._check()
        self._pace = Pace(self.max_workers)
        with no_retry_for_faults_of_the_input(), no_retry_for_faults_of_s3():
            self._model = description = Model(self, self.project_name, str(self.model_version)).describe()
            model = {"ProjectName": self.project_name, "ModelVersion": description["ModelVersion"]}
            masks = None if self.store_masks is None else split_s3_prefix("store_masks", self.store_masks)
            inspector = Inspector(self._service, self._s3, model, self._pace, masks)
            if self.image is not None:
                found = self._look_at_one(inspector, self.image)
            else:
                found = self._look_at_all(inspector, self._tokens(context, description))
            self._found = found
            return {**found, "ModelVersion": description["ModelVersion"]}

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:
        """Return what OpenLineage is told: the images and the model in, the results and masks out."""
        from airflow_provider_lookoutvision import lineage

        found = self._found or {}
        masks = found.get("mask-ref") if self.image else found and self.store_masks
        return lineage.of(
            inputs=[lineage.s3(self.image or self.prefix), lineage.model(self._model)],
            outputs=[lineage.s3(found.get("results"), rows=found.get("total")), lineage.s3(masks or None)],
        )

    def on_kill(self) -> None:
        """End soon, and keep what is done."""
        if self._pace:
            self._pace.stopped = True

    @cached_property
    def _service(self) -> Any:
        return self.hook.client_without_retries(max_pool_connections=self.max_workers)

    @cached_property
    def _s3(self) -> Any:
        from botocore.config import Config

        hook = s3_hook(self, self.s3_conn_id)
        many = Config(max_pool_connections=self.max_workers + 1)
        return hook.get_client_type(hook.region_name, hook.config.merge(many))

    def _check(self) -> None:
        if self.on_invalid_image not in ON_INVALID_IMAGE:
            known = ", ".join(ON_INVALID_IMAGE)
            raise AirflowFailException(
                f"on_invalid_image is {self.on_invalid_image!r}; it must be one of {known}"
            )
        if self.max_workers < 1:
            raise AirflowFailException(f"max_workers is {self.max_workers}; it must be at least 1")
        given = (self.image is not None, self.prefix is not None, self.results is not None)
        if given not in ((True, False, False), (False, True, True)):
            raise AirflowFailException("Set either image, or prefix and results")
        if self.prefix is None or self.store_masks is None:
            return
        bucket, prefix = split_s3_prefix("prefix", self.prefix)
        masks_bucket, masks = split_s3_prefix("store_masks", self.store_masks)
        if bucket == masks_bucket and f"{masks}{prefix}".startswith(prefix):
            raise AirflowFailException(
                f"The masks in {self.store_masks} would be images below {self.prefix} the next time: store "
                "them elsewhere"
            )

    def _tokens(self, context: Context, description: Mapping[str, Any]) -> list[str]:
        """What this try's work is known by, and then what that of the tries before a clear is."""
        born = description["CreationTimestamp"].isoformat()
        purpose = (description["ModelArn"], born, str(self.prefix), str(self.store_masks))
        others = tokens_of_other_epochs(context, *purpose, namespace=self.hook.client_token_namespace)
        return [self.derived_token(context, *purpose), *others]

    def _look_at_one(self, inspector: Inspector, image: str) -> dict[str, Any]:
        line = inspector.look(*split_s3_uri("image", image)).line
        if error := line.get("error"):
            raise AirflowFailException(f"{image} can't be used: {error['Message']} ({error['Code']})")
        return line

    def _look_at_all(self, inspector: Inspector, tokens: Sequence[str]) -> dict[str, Any]:
        bucket, prefix = split_s3_prefix("prefix", str(self.prefix))
        place = dict(zip(("Bucket", "Key"), split_s3_uri("results", str(self.results)), strict=True))
        checkpoint = Checkpoint(self._s3, place["Bucket"], f"{place['Key']}.parts/", tokens)
        summary = _Summary(str(self.results), self.max_refs)
        if self._written_by(tokens[0], place):
            self.log.info("An earlier try has written %s", self.results)
            for text in self._s3.get_object(**place)["Body"].iter_lines():
                summary.add(json.loads(text))
        else:
            with tempfile.TemporaryFile() as file:

                def take(result: Result) -> None:
                    file.write(json.dumps(result.line, ensure_ascii=False).encode() + b"\n")
                    summary.add(result.line)

                work_through(
                    images(self._s3, bucket, prefix),
                    checkpoint,
                    lambda image: inspector.look(bucket, image.key),
                    self.max_workers,
                    take,
                    inspector.pace,
                )
                file.seek(0)
                extra = {"ContentType": "application/x-ndjson", "Metadata": {_TOKEN: tokens[0]}}
                self._s3.upload_fileobj(file, **place, ExtraArgs=extra)
        self._judge(summary)
        checkpoint.remove()
        return summary.result

    def _written_by(self, token: str, place: Mapping[str, str]) -> bool:
        from botocore.exceptions import ClientError

        try:
            found = self._s3.head_object(**place)
        except ClientError as error:
            if error.response["Error"]["Code"] == "404":
                return False
            raise
        return bool(found["Metadata"].get(_TOKEN) == token)

    def _judge(self, summary: _Summary) -> None:
        """Fail, or warn, as is wanted. What is done stays kept for a clear."""
        if not summary.total:
            if self.fail_if_empty:
                raise AirflowFailException(f"There are no images below {self.prefix}")
            self.log.warning("There are no images below %s", self.prefix)
        self.log.info("%s: %s", self.prefix, summary.told)
        if summary.failed:
            told = f"{summary.told}. The first that can't be used: {'; '.join(summary.failures)}"
            if self.on_invalid_image == "fail":
                raise AirflowFailException(
                    f"{told}. The results are in {self.results}; once these images are mended or gone, clear "
                    "this task: then it asks about them only"
                )
            self.log.warning("%s", told)


@dataclass
class _Summary:
    """What the lines of the results add up to."""

    results: str
    most_refs: int
    total: int = 0
    anomalous: int = 0
    failed: int = 0
    anomalous_refs: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def add(self, line: Mapping[str, Any]) -> None:
        """Count a line."""
        self.total += 1
        if error := line.get("error"):
            self.failed += 1
            if len(self.failures) < _MOST_FAILURES_TOLD:
                self.failures.append(f"{line['source-ref']}: {error['Message']}")
        elif line["IsAnomalous"]:
            self.anomalous += 1
            if len(self.anomalous_refs) < self.most_refs:
                self.anomalous_refs.append(line["source-ref"])

    @property
    def normal(self) -> int:
        """How many are neither anomalous nor failed."""
        return self.total - self.anomalous - self.failed

    @property
    def told(self) -> str:
        """The counts, for people."""
        return (
            f"{self.total} images, {self.anomalous} anomalous, {self.normal} normal, "
            f"{self.failed} that can't be used"
        )

    @property
    def result(self) -> dict[str, Any]:
        """The counts, for an XCom."""
        names = ("total", "anomalous", "normal", "failed", "results", "anomalous_refs")
        return {name: getattr(self, name) for name in names}
