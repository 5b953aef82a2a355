"""The operator that makes manifests of folders or a table in S3."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_lookoutvision import manifests
from airflow_provider_lookoutvision.operators.base import LookoutVisionBaseOperator
from airflow_provider_lookoutvision.operators.s3 import (
    no_retry_for_faults_of_s3,
    s3_hook,
    split_s3_folder,
    split_s3_uri,
)

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from airflow.providers.openlineage.extractors import OperatorLineage

LARGEST_TABLE = 64 * 1024 * 1024


class LookoutVisionBuildManifestOperator(LookoutVisionBaseOperator):
    """Make manifests of labelled images in S3, for the dataset operators that follow.

    The images lie in folders, ``normal/`` and ``anomaly/``, with masks in ``masks/<class>/`` under their
    images' names; or a CSV file in UTF-8 lists them in the columns ``image`` and ``label``, and ``mask`` and
    ``class`` if there are masks. The same images give the same bytes: a retry rewrites what is there.

    The result is a dict of ``train`` and, with ``test_share``, ``test`` (where the manifests are, for
    ``LookoutVisionCreateDatasetOperator(manifest=...)``), and the counts ``train_normal``, ``train_anomaly``,
    ``test_normal``, ``test_anomaly``; each is an XCom of its own too.

    :param images: the folders' place, ``s3://bucket/prefix/``; or the table, ``s3://bucket/key.csv``, below
        whose folder names without ``s3://`` are.
    :param destination: where ``train.manifest`` and ``test.manifest`` go, ``s3://bucket/prefix/``.
    :param test_share: the part of each label, and class, that is to test with, 0 to 1; 0 for one manifest.
    :param seed: another one divides the images otherwise.
    :param mask_colors: the colour of each class in its masks, ``{"scratch": "#FF0000"}``; a class alone is
        white by default.
    :param s3_conn_id: the connection for S3; by default ``aws_conn_id``. It is the only one that is used.
    :raises AirflowFailException: when no manifest can be made of what is there, saying why; or when S3
        refuses, as it would again.
    """

    template_fields: Sequence[str] = (
        *LookoutVisionBaseOperator.template_fields,
        "images",
        "destination",
        "test_share",
        "seed",
        "mask_colors",
        "s3_conn_id",
    )

    _made: Mapping[str, Any] | None = None

    def __init__(
        self,
        *,
        images: str,
        destination: str,
        test_share: float | str = 0.0,
        seed: int | str = 0,
        mask_colors: Mapping[str, str] | None = None,
        s3_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"multiple_outputs": True, **kwargs})
        self.images = images
        self.destination = destination
        self.test_share = test_share
        self.seed = seed
        self.mask_colors = mask_colors
        self.s3_conn_id = s3_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Read what is there, divide it, and write the manifests."""
        share, seed, given = self._checked()
        bucket, prefix = split_s3_folder("destination", self.destination)
        client = s3_hook(self, self.s3_conn_id).conn
        try:
            with no_retry_for_faults_of_s3(self.images):
                images = self._read(client)
            colors = manifests.colors_of(images, given)
            train, test = manifests.split(images, share, seed)
        except manifests.InvalidLayout as error:
            raise AirflowFailException(str(error)) from error
        result: dict[str, Any] = {}
        for name, members in (("train", train), ("test", test)):
            if name == "train" or share:
                body = manifests.manifest(members, colors).encode()
                result[name] = f"s3://{bucket}/{prefix}{name}.manifest"
                with no_retry_for_faults_of_s3(result[name]):
                    client.put_object(Bucket=bucket, Key=f"{prefix}{name}.manifest", Body=body)
            for label in manifests.LABELS:
                result[f"{name}_{label}"] = sum(image.label == label for image in members)
        self.log.info("%s: %s", self.images, result)
        self._made = result
        return result

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:
        """Return what OpenLineage is told: the images, or their table, in, and the manifests out."""
        from airflow_provider_lookoutvision import lineage

        made = self._made or {}
        return lineage.of(
            inputs=[lineage.s3(self.images)],
            outputs=[
                lineage.s3(made[name], rows=made[f"{name}_normal"] + made[f"{name}_anomaly"])
                for name in ("train", "test")
                if name in made
            ],
        )

    def _checked(self) -> tuple[float, int, Mapping[str, str]]:
        """The share, the seed and the colours, which templates may have made something else of."""
        try:
            share = float(self.test_share)
        except (TypeError, ValueError):
            share = -1
        if not 0 <= share < 1:
            raise AirflowFailException(
                f"test_share is {self.test_share!r}; it must be 0 or more, and less than 1"
            )
        try:
            seed = int(self.seed)
        except (TypeError, ValueError) as error:
            raise AirflowFailException(f"seed is {self.seed!r}; it must be a whole number") from error
        given = self.mask_colors or {}
        if not isinstance(given, Mapping):
            raise AirflowFailException(f"mask_colors is {given!r}; it must be a dict of classes and colours")
        return share, seed, given

    def _read(self, client: Any) -> list[manifests.LabelledImage]:
        if self.images.lower().endswith(".csv"):
            return self._read_table(client, *split_s3_uri("images", self.images))
        bucket, prefix = split_s3_folder("images", self.images)
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        found = {
            each["Key"].removeprefix(prefix): each["LastModified"]
            for page in pages
            for each in page.get("Contents", ())
        }
        return manifests.from_folders(f"s3://{bucket}/{prefix}", found)

    def _read_table(self, client: Any, bucket: str, key: str) -> list[manifests.LabelledImage]:
        answer = client.get_object(Bucket=bucket, Key=key)
        if answer["ContentLength"] > LARGEST_TABLE:
            raise AirflowFailException(f"{self.images} has more than {LARGEST_TABLE} bytes")
        content = answer["Body"].read()
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            raise AirflowFailException(
                f"{self.images} is not UTF-8 in line {line}: {error}. Save it as UTF-8"
            ) from error
        root = f"s3://{bucket}/{key[: key.rfind('/') + 1]}"
        try:
            return manifests.from_table(io.StringIO(text, newline=""), root, answer["LastModified"])
        except csv.Error as error:
            raise AirflowFailException(f"{self.images} is not a CSV file: {error}") from error
