"""The operator of detection: one image, or all images below a prefix."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_lookoutvision.assets import emit_asset_event, verdicts_uri
from airflow_provider_lookoutvision.batches.image_detector import ImageDetector
from airflow_provider_lookoutvision.batches.images import ListingDigest, Result, list_images
from airflow_provider_lookoutvision.batches.job import Batch
from airflow_provider_lookoutvision.batches.results import Checkpoint, ResultsObject
from airflow_provider_lookoutvision.idempotency import previous_tokens
from airflow_provider_lookoutvision.links.lookoutvision import VERDICTS_LINKS
from airflow_provider_lookoutvision.model.anomaly_maps import request_anomaly_maps
from airflow_provider_lookoutvision.operators import detection_parameters
from airflow_provider_lookoutvision.operators.adaptive_concurrency import AdaptiveConcurrency, TaskStopped
from airflow_provider_lookoutvision.operators.base import fail_fast_on_client_errors
from airflow_provider_lookoutvision.operators.batch import process_images
from airflow_provider_lookoutvision.operators.detection_summary import Gates, Summary
from airflow_provider_lookoutvision.operators.model_version import ModelVersionMixin
from airflow_provider_lookoutvision.operators.s3 import (
    fail_fast_on_s3_errors,
    parse_s3_prefix,
    parse_s3_uri,
    s3_hook,
)

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from airflow.providers.openlineage.extractors import OperatorLineage


class LookoutVisionDetectAnomaliesOperator(ModelVersionMixin):
    """Detect anomalies in one image, or in all images below a prefix, in S3, with a hosted model.

    With ``image_s3_uri`` the result is the DetectAnomalyResult: ``IsAnomalous``, ``Confidence`` (of that
    verdict, 0 to 1), and from a model that was trained with masks ``Anomalies``, whose areas are fractions of
    the image. Added are ``source-ref``, ``ModelVersion`` and, where a mask is stored, ``mask-ref``.

    With ``images_s3_prefix`` and ``results_s3_uri`` every ``.jpg``, ``.jpeg`` and ``.png`` below the prefix
    is processed. The object at ``results_s3_uri`` becomes JSON Lines in the order of the keys, one object for
    each image: ``source-ref`` and ``IsAnomalous``, ``Confidence``, ``Anomalies`` and ``mask-ref`` as above;
    or ``source-ref`` and ``error`` (``Code``, ``Message``) of an image that can't be used. The result is a
    summary: ``total``, ``anomalous``, ``normal``, ``failed``, ``anomaly_rate`` and ``mean_confidence`` of the
    images with a verdict (0 to 1, or None), ``results_s3_uri``, ``anomalous_s3_uris`` (the first
    ``max_anomalous_s3_uris``), ``uncertain_refs`` (the ``max_uncertain`` with the lowest confidences, the
    lowest first) and ``ModelVersion``. Each member of either result is an XCom of its own too. The counts and
    rates are metrics of Airflow too: see :mod:`.detection_summary`.

    Results are saved while they come in, below ``<results_s3_uri>.parts/``, and the parts are removed at the
    end: a retry, or a clear of a failed task, goes on where the task ended, and sends only new or changed
    images. A task that is cleared after a success starts anew. Mapped tasks need an object each:
    ``results_s3_uri="s3://results/{{ ds }}/{{ ti.map_index }}.jsonl"``.

    :param project_name: the project.
    :param model_version: the version's number; or ``latest``, or a tag such as ``stage=production``, which is
        looked up once for all images.
    :param image_s3_uri: one image, ``s3://bucket/key``.
    :param images_s3_prefix: all images whose keys begin like this, ``s3://bucket/prefix``; a folder ends with
        ``/``.
    :param results_s3_uri: where their results go, ``s3://bucket/key``.
    :param masks_s3_prefix: where masks go, ``s3://bucket/prefix``, as RGB PNGs of the image's size: the mask
        of ``s3://images/a/b.jpg`` at ``s3://bucket/prefix`` + ``a/b.jpg.png``. Masks are stored of anomalous
        images, and of images with a marked defect. The prefix must not be below ``images_s3_prefix``.
    :param store_heatmaps: whether to store the anomaly map of every image, also from a model that makes no
        masks: a grey PNG in the image's proportions, 640 pixels wide or high at most, the lighter the more
        anomalous. ``heatmap-ref`` is added to its result, and ``Probability``, that the image is anomalous,
        whatever the model's threshold. It needs this package's service.
    :param heatmaps_s3_prefix: where they go, as ``masks_s3_prefix``; by default, for a prefix, below
        ``<results_s3_uri>.heatmaps/``.
    :param on_invalid_image: what to do about images below a prefix that can't be used: ``record`` them in the
        results; or also ``fail``, when all others are processed.
    :param fail_if_empty: whether a prefix without images is an error; by default it is a warning.
    :param max_workers: how many images to send at a time.
    :param max_anomalous_s3_uris: how many anomalous images the summary names.
    :param max_uncertain: how many uncertain images the summary names.
    :param max_anomaly_rate: a gate for a prefix: the highest acceptable fraction of anomalous images among
        those with a verdict, 0 to 1.
    :param min_images: another: how many images must have a verdict at least.
    :param on_gate_failure: what to do about a batch that fails a gate, when its results are written: ``fail``
        the task, or ``warn`` in its log.
    :param engine: ``service``: the images are sent to the hosted model. ``ray``: a Ray Data job processes
        them on the cluster of the service, which must run with ``--cluster``; the model needs only be
        trained. The results, and what becomes of them, are the same. The nodes read and write S3, with an
        access of their own. ``max_workers`` is then how many detectors may run, each with a CPU.
    :param ray_conn_id: the connection of the type ``http`` to the cluster's dashboard, ``http://head:8265``.
    :param s3_conn_id: the connection for S3; by default ``aws_conn_id``.
    :raises AirflowFailException: when the model isn't hosted; when an input can't be read, or the one image
        can't be used; when the batch fails a gate.
    :raises AirflowException: when the model is starting; when the service accepts nothing for five minutes,
        or fails five times on one image.
    """

    template_fields: Sequence[str] = (
        *ModelVersionMixin.template_fields,
        "image_s3_uri",
        "images_s3_prefix",
        "results_s3_uri",
        "masks_s3_prefix",
        "heatmaps_s3_prefix",
        "on_invalid_image",
        "max_anomaly_rate",
        "min_images",
        "on_gate_failure",
        "engine",
        "ray_conn_id",
        "s3_conn_id",
    )

    operator_extra_links = VERDICTS_LINKS
    _concurrency: AdaptiveConcurrency | None = None
    _stopped = False
    _model: Mapping[str, Any] | None = None
    _found: Mapping[str, Any] | None = None

    def __init__(
        self,
        *,
        image_s3_uri: str | None = None,
        images_s3_prefix: str | None = None,
        results_s3_uri: str | None = None,
        masks_s3_prefix: str | None = None,
        store_heatmaps: bool = False,
        heatmaps_s3_prefix: str | None = None,
        on_invalid_image: Literal["fail", "record"] = "record",
        fail_if_empty: bool = False,
        max_workers: int = 8,
        max_anomalous_s3_uris: int = 100,
        max_uncertain: int = 10,
        max_anomaly_rate: float | str | None = None,
        min_images: int | str | None = None,
        on_gate_failure: Literal["fail", "warn"] = "fail",
        engine: Literal["service", "ray"] = "service",
        ray_conn_id: str = "ray_default",
        s3_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"multiple_outputs": True, **kwargs})
        self.image_s3_uri = image_s3_uri
        self.images_s3_prefix = images_s3_prefix
        self.results_s3_uri = results_s3_uri
        self.masks_s3_prefix = masks_s3_prefix
        self.store_heatmaps = store_heatmaps
        self.heatmaps_s3_prefix = heatmaps_s3_prefix
        self.on_invalid_image = on_invalid_image
        self.fail_if_empty = fail_if_empty
        self.max_workers = max_workers
        self.max_anomalous_s3_uris = max_anomalous_s3_uris
        self.max_uncertain = max_uncertain
        self.max_anomaly_rate = max_anomaly_rate
        self.min_images = min_images
        self.on_gate_failure = on_gate_failure
        self.engine = engine
        self.ray_conn_id = ray_conn_id
        self.s3_conn_id = s3_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Process the one image, or all images without a saved result."""
        self.check_parameters()
        detection_parameters.check(self)
        gates = Gates(self.max_anomaly_rate, self.min_images, self.on_gate_failure)
        self._concurrency = AdaptiveConcurrency(self.max_workers)
        self._concurrency.stopped = self._stopped  # it may have been killed already
        with fail_fast_on_client_errors(), fail_fast_on_s3_errors():
            self._model = description = self.tagged_version().describe()
            version = description["ModelVersion"]
            names = {"ProjectName": self.project_name, "ModelVersion": version}
            results = {"results_s3_uri": self.results_s3_uri} if self.results_s3_uri else {}
            self.persist_links(context, self.project_name, model_version=version, **results)
            prefix = self.masks_s3_prefix
            masks = None if prefix is None else parse_s3_prefix("masks_s3_prefix", prefix)
            heatmaps = detection_parameters.heatmaps(self)
            detector = ImageDetector(self._service, self._s3, names, self._concurrency, masks, heatmaps)
            if self.image_s3_uri is not None:
                found = self._process_one(detector, self.image_s3_uri)
            else:
                options = self._results_of(description)
                report = partial(self._report, context, gates)
                found = self._process_all(detector, self._tokens(context, options), options, report)
            self._found = found
            extra = {**names, "ModelArn": description["ModelArn"], **found}
            extra.pop("anomalous_s3_uris", None)  # they are many, and in the results
            emit_asset_event(context, verdicts_uri(description["ModelArn"]), extra)
            return {**found, "ModelVersion": version}

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:
        """Return the lineage: the images and the model in, the results and masks out."""
        from airflow_provider_lookoutvision import lineage

        found = self._found or {}
        masks = found.get("mask-ref") if self.image_s3_uri else found and self.masks_s3_prefix
        heatmaps = detection_parameters.heatmaps(self) if found else None
        results = lineage.s3_dataset(found.get("results_s3_uri"), rows=found.get("total"))
        return lineage.operator_lineage(
            inputs=[
                lineage.s3_dataset(self.image_s3_uri or self.images_s3_prefix),
                lineage.model_dataset(self._model),
            ],
            outputs=[
                results,
                lineage.s3_dataset(masks or None),
                lineage.s3_dataset("s3://{}/{}".format(*heatmaps) if heatmaps else None),
            ],
        )

    def on_kill(self) -> None:
        """Stop soon, and save the results so far. It logs nothing: see ``PollingMixin.on_kill``."""
        self._stopped = True
        if self._concurrency:
            self._concurrency.stopped = True

    @cached_property
    def _service(self) -> Any:
        client = self.hook.client_without_retries(max_pool_connections=self.max_workers)
        if self.store_heatmaps:
            request_anomaly_maps(client)
        return client

    @cached_property
    def _s3(self) -> Any:
        from botocore.config import Config

        hook = s3_hook(self, self.s3_conn_id)
        many = Config(max_pool_connections=self.max_workers + 1)
        return hook.get_client_type(hook.region_name, hook.config.merge(many))

    def _results_of(self, description: Mapping[str, Any]) -> tuple[str, ...]:
        """What the results depend on besides the images: the model and its threshold, and the parameters."""
        created = description["CreationTimestamp"].isoformat()
        threshold = description["StatusMessage"].partition("Its threshold is ")[2]
        heatmaps = detection_parameters.heatmaps(self)
        optional = [
            *([f"threshold {threshold}"] if threshold else ()),
            *(["heatmaps", *heatmaps] if heatmaps else ()),
        ]
        prefixes = str(self.images_s3_prefix), str(self.masks_s3_prefix)
        return description["ModelArn"], created, *prefixes, *optional

    def _tokens(self, context: Context, purpose: Sequence[str]) -> list[str]:
        """The token of this try's parts, and then those of the tries before a clear."""
        others = previous_tokens(context, *purpose, namespace=self.hook.client_token_namespace)
        return [self.derived_token(context, *purpose), *others]

    def _process_one(self, detector: ImageDetector, uri: str) -> dict[str, Any]:
        line = detector.detect(*parse_s3_uri("image_s3_uri", uri)).line
        if error := line.get("error"):
            raise AirflowFailException(f"{uri} can't be used: {error['Message']} ({error['Code']})")
        return line

    def _process_all(
        self,
        detector: ImageDetector,
        tokens: Sequence[str],
        options: Sequence[str],
        report: Callable[[Summary], None],
    ) -> dict[str, Any]:
        bucket, prefix = parse_s3_prefix("images_s3_prefix", str(self.images_s3_prefix))
        results_bucket, results_key = parse_s3_uri("results_s3_uri", str(self.results_s3_uri))
        results = ResultsObject(self._s3, results_bucket, results_key, tokens[0], options)
        checkpoint = Checkpoint(self._s3, results_bucket, results_key, tokens)
        summary = Summary(str(self.results_s3_uri), self.max_anomalous_s3_uris, self.max_uncertain)
        images = partial(list_images, self._s3, bucket, prefix)
        written = results.is_written(images)
        if written or self.engine == "ray":
            if written:
                self.log.info("An earlier try has written %s", self.results_s3_uri)
            else:
                self._process_on_ray(detector, tokens, options)
            for line in results.lines():
                summary.add(line)
        else:
            with tempfile.TemporaryFile() as file:

                def handle(result: Result) -> None:
                    file.write(json.dumps(result.line, ensure_ascii=False).encode() + b"\n")
                    summary.add(result.line)

                digest = ListingDigest(options)
                process_images(
                    digest.track(images()),
                    checkpoint,
                    lambda image: detector.detect(bucket, image.key),
                    self.max_workers,
                    handle,
                    self._concurrency or AdaptiveConcurrency(self.max_workers),
                )
                results.write(file, digest)
        report(summary)
        checkpoint.remove()
        return summary.result

    def _process_on_ray(self, detector: ImageDetector, tokens: Sequence[str], options: Sequence[str]) -> None:
        """Have a job of the cluster write the results."""
        from airflow_provider_lookoutvision.hooks.ray_jobs import RayJobs

        bucket, prefix = parse_s3_prefix("images_s3_prefix", str(self.images_s3_prefix))
        results_bucket, results_key = parse_s3_uri("results_s3_uri", str(self.results_s3_uri))
        batch = Batch(
            model_arn=options[0],
            model_created=options[1],
            bucket=bucket,
            prefix=prefix,
            results_bucket=results_bucket,
            results_key=results_key,
            tokens=tuple(tokens),
            options=tuple(options),
            masks=detector.masks,
            heatmaps=detector.heatmaps,
            detectors=self.max_workers,
            s3_endpoint_url=self._s3.meta.endpoint_url,
            s3_region=self._s3.meta.region_name,
        )
        jobs = RayJobs(self.ray_conn_id)
        if not jobs.run(f"lookoutvision-{tokens[0]}", batch.command, lambda: self._stopped):
            raise TaskStopped("The task was asked to stop")

    def _report(self, context: Context, gates: Gates, summary: Summary) -> None:
        """Log and send what came of it; fail or warn, as the parameters say. A failure keeps the parts."""
        ti, version = context["ti"], (self._model or {})["ModelVersion"]
        tags = {"project_name": self.project_name, "model_version": version}
        summary.send_metrics({**tags, "dag_id": ti.dag_id, "task_id": ti.task_id})
        if not summary.total:
            if self.fail_if_empty:
                raise AirflowFailException(f"There are no images below {self.images_s3_prefix}")
            self.log.warning("There are no images below %s", self.images_s3_prefix)
        self.log.info("%s: %s", self.images_s3_prefix, summary.text)
        if summary.failed:
            text = f"{summary.text}. The first that can't be used: {'; '.join(summary.failures)}"
            if self.on_invalid_image == "fail":
                raise AirflowFailException(
                    f"{text}. The results are in {self.results_s3_uri}. Repair or remove these images, and "
                    "clear this task: it then sends only them"
                )
            self.log.warning("%s", text)
        if failures := "; ".join(gates.failures(summary)):
            if gates.on_failure == "fail":
                raise AirflowFailException(f"{failures}. The results are in {self.results_s3_uri}")
            self.log.warning("%s", failures)
