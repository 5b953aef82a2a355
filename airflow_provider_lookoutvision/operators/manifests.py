"""The operator that makes manifests of folders or a table in S3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, BaseOperator

from airflow_provider_lookoutvision import manifests
from airflow_provider_lookoutvision.operators.s3 import split_s3_folder, split_s3_uri

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

LARGEST_TABLE = 64 * 1024 * 1024


class LookoutVisionBuildManifestOperator(BaseOperator):
    """Make manifests of labelled images in S3, for the dataset operators that follow.

    The images lie in folders, ``normal/`` and ``anomaly/``, with masks in ``masks/<class>/`` under their
    images' names; or a CSV file lists them in the columns ``image`` and ``label``, and ``mask`` and ``class``
    if there are masks. The same images give the same bytes: a retry rewrites what is there.

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
    :param aws_conn_id: the connection for S3.
    :raises AirflowFailException: when no manifest can be made of what is there, saying why.
    """

    template_fields: Sequence[str] = (
        "images",
        "destination",
        "test_share",
        "seed",
        "mask_colors",
        "aws_conn_id",
    )

    def __init__(
        self,
        *,
        images: str,
        destination: str,
        test_share: float = 0.0,
        seed: int = 0,
        mask_colors: Mapping[str, str] | None = None,
        aws_conn_id: str | None = "aws_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"multiple_outputs": True, **kwargs})
        self.images = images
        self.destination = destination
        self.test_share = test_share
        self.seed = seed
        self.mask_colors = mask_colors
        self.aws_conn_id = aws_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Read what is there, divide it, and write the manifests."""
        from airflow.providers.amazon.aws.hooks.s3 import S3Hook

        share = float(self.test_share)
        if not 0 <= share < 1:
            raise AirflowFailException(
                f"test_share is {self.test_share!r}; it must be 0 or more, and less than 1"
            )
        client = S3Hook(aws_conn_id=self.aws_conn_id).conn
        bucket, prefix = split_s3_folder("destination", self.destination)
        try:
            images = self._read(client)
            colors = manifests.colors_of(images, self.mask_colors or {})
        except manifests.InvalidLayout as error:
            raise AirflowFailException(str(error)) from error
        train, test = manifests.split(images, share, int(self.seed))
        result: dict[str, Any] = {}
        for name, members in (("train", train), ("test", test)):
            if name == "train" or share:
                body = manifests.manifest(members, colors).encode()
                client.put_object(Bucket=bucket, Key=f"{prefix}{name}.manifest", Body=body)
                result[name] = f"s3://{bucket}/{prefix}{name}.manifest"
            for label in manifests.LABELS:
                result[f"{name}_{label}"] = sum(image.label == label for image in members)
        self.log.info("%s: %s", self.images, result)
        return result

    def _read(self, client: Any) -> list[manifests.LabelledImage]:
        if self.images.lower().endswith(".csv"):
            bucket, key = split_s3_uri("images", self.images)
            answer = client.get_object(Bucket=bucket, Key=key)
            if answer["ContentLength"] > LARGEST_TABLE:
                raise AirflowFailException(f"{self.images} has more than {LARGEST_TABLE} bytes")
            text = answer["Body"].read().decode("utf-8-sig")
            root = f"s3://{bucket}/{key[: key.rfind('/') + 1]}"
            return manifests.from_table(text.splitlines(), root, answer["LastModified"])
        bucket, prefix = split_s3_folder("images", self.images)
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        found = {
            each["Key"].removeprefix(prefix): each["LastModified"]
            for page in pages
            for each in page.get("Contents", ())
        }
        return manifests.from_folders(f"s3://{bucket}/{prefix}", found)
