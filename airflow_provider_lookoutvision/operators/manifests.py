"""The operator that builds manifests from folders or a table in S3."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_lookoutvision import manifests
from airflow_provider_lookoutvision.operators.base import LookoutVisionBaseOperator
from airflow_provider_lookoutvision.operators.parameters import CHECKS, Check, s3_folder
from airflow_provider_lookoutvision.operators.s3 import (
    fail_fast_on_s3_errors,
    parse_s3_folder,
    parse_s3_uri,
    s3_hook,
)

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from airflow.providers.openlineage.extractors import OperatorLineage

LARGEST_TABLE = 64 * 1024 * 1024


class LookoutVisionBuildManifestOperator(LookoutVisionBaseOperator):
    """Build manifests of labelled images in S3, for the dataset operators that follow.

    The images are in folders, ``normal/`` and ``anomaly/``, with masks in ``masks/<class>/`` under their
    images' names; or a CSV file in UTF-8 lists them in the columns ``image`` and ``label``, and ``mask`` and
    ``class`` if there are masks. The same images give the same bytes: a retry writes the same objects again.

    The result is a dict of ``train_manifest_s3_uri`` and, with ``test_size``, ``test_manifest_s3_uri``, for
    ``LookoutVisionCreateDatasetOperator(manifest_s3_uri=...)``; and the counts ``train_normal``,
    ``train_anomaly``, ``test_normal``, ``test_anomaly``. Each is an XCom of its own too.

    :param images_s3_prefix: where the folders are, ``s3://bucket/prefix/``.
    :param table_s3_uri: instead, the CSV file, ``s3://bucket/key.csv``. Names in it without ``s3://`` are
        below its folder.
    :param manifests_s3_prefix: where ``train.manifest`` and ``test.manifest`` go, ``s3://bucket/prefix/``.
    :param test_size: the fraction of each label, and class, for the test dataset, 0 to 1; 0 for one manifest.
    :param seed: another seed splits the images in another way.
    :param mask_colors: the colour of each class in its masks, ``{"scratch": "#FF0000"}``; if there is only
        one class, white by default.
    :param s3_conn_id: the connection for S3; by default ``aws_conn_id``. No other connection is used.
    :raises AirflowFailException: when no manifest can be built from the images, with the reason; or when S3
        refuses, and would refuse again.
    """

    template_fields: Sequence[str] = (
        *LookoutVisionBaseOperator.template_fields,
        "images_s3_prefix",
        "table_s3_uri",
        "manifests_s3_prefix",
        "test_size",
        "seed",
        "mask_colors",
        "s3_conn_id",
    )

    parameter_checks: ClassVar[Mapping[str, Check]] = {**CHECKS, "images_s3_prefix": s3_folder}

    _result: Mapping[str, Any] | None = None

    def __init__(
        self,
        *,
        manifests_s3_prefix: str,
        images_s3_prefix: str | None = None,
        table_s3_uri: str | None = None,
        test_size: float | str = 0.0,
        seed: int | str = 0,
        mask_colors: Mapping[str, str] | None = None,
        s3_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"multiple_outputs": True, **kwargs})
        self.images_s3_prefix = images_s3_prefix
        self.table_s3_uri = table_s3_uri
        self.manifests_s3_prefix = manifests_s3_prefix
        self.test_size: Any = test_size
        self.seed: Any = seed
        self.mask_colors = mask_colors
        self.s3_conn_id = s3_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """List the images, split them, and write the manifests."""
        self.check_parameters()
        source = self._source()
        bucket, prefix = parse_s3_folder("manifests_s3_prefix", self.manifests_s3_prefix)
        client = s3_hook(self, self.s3_conn_id).conn
        try:
            with fail_fast_on_s3_errors(source):
                images = self._read_folders(client) if self.table_s3_uri is None else self._read_table(client)
            colors = manifests.mask_colors(images, self.mask_colors or {})
            train, test = manifests.split(images, self.test_size, self.seed)
        except manifests.InvalidLayout as error:
            raise AirflowFailException(str(error)) from error
        result: dict[str, Any] = {}
        for name, members in (("train", train), ("test", test)):
            if name == "train" or self.test_size:
                body = manifests.manifest(members, colors).encode()
                uri = f"s3://{bucket}/{prefix}{name}.manifest"
                with fail_fast_on_s3_errors(uri):
                    client.put_object(Bucket=bucket, Key=f"{prefix}{name}.manifest", Body=body)
                result[f"{name}_manifest_s3_uri"] = uri
            for label in manifests.LABELS:
                result[f"{name}_{label}"] = sum(image.label == label for image in members)
        self.log.info("%s: %s", source, result)
        self._result = result
        return result

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:
        """Return the lineage: the images, or their table, in, the manifests out."""
        from airflow_provider_lookoutvision import lineage

        result = self._result or {}
        return lineage.operator_lineage(
            inputs=[lineage.s3_dataset(self.images_s3_prefix or self.table_s3_uri)],
            outputs=[
                lineage.s3_dataset(
                    result[f"{name}_manifest_s3_uri"],
                    rows=result[f"{name}_normal"] + result[f"{name}_anomaly"],
                )
                for name in ("train", "test")
                if f"{name}_manifest_s3_uri" in result
            ],
        )

    def _source(self) -> str:
        given = [each for each in (self.images_s3_prefix, self.table_s3_uri) if each is not None]
        if len(given) != 1:
            raise AirflowFailException("Set either images_s3_prefix or table_s3_uri")
        return given[0]

    def _read_folders(self, client: Any) -> list[manifests.LabelledImage]:
        bucket, prefix = parse_s3_folder("images_s3_prefix", self.images_s3_prefix or "")
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        found = {
            each["Key"].removeprefix(prefix): each["LastModified"]
            for page in pages
            for each in page.get("Contents", ())
        }
        if unused := manifests.unused(found):
            self.log.warning(
                "%d images are left out, since they are neither JPEG nor PNG, the first %s",
                len(unused),
                unused[0],
            )
        return manifests.from_folders(f"s3://{bucket}/{prefix}", found)

    def _read_table(self, client: Any) -> list[manifests.LabelledImage]:
        uri = self.table_s3_uri or ""
        bucket, key = parse_s3_uri("table_s3_uri", uri)
        answer = client.get_object(Bucket=bucket, Key=key)
        if answer["ContentLength"] > LARGEST_TABLE:
            raise AirflowFailException(f"{uri} has more than {LARGEST_TABLE} bytes")
        content = answer["Body"].read()
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            raise AirflowFailException(
                f"{uri} is not UTF-8 in line {line}: {error}. Save it as UTF-8"
            ) from error
        root = f"s3://{bucket}/{key[: key.rfind('/') + 1]}"
        try:
            return manifests.from_table(io.StringIO(text, newline=""), root, answer["LastModified"])
        except csv.Error as error:
            raise AirflowFailException(f"{uri} is not a CSV file: {error}") from error
