"""Asking a hosted model about one image that is in S3."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_lookoutvision.operators.batches import Result
from airflow_provider_lookoutvision.operators.pacing import Pace

LARGEST_IMAGE = 8 * 1024 * 1024
CONTENT_TYPES = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG\r\n\x1a\n": "image/png"}

# What is about one image, and not about all.
_UNUSABLE = frozenset(
    {"InvalidObjectState", "NoSuchKey", "RequestEntityTooLargeException", "ValidationException"}
)


class UnusableImage(Exception):
    """The image can't be used."""


@dataclass(frozen=True)
class Inspector:
    """Reads images, asks about them, stores their masks. Threads may share it.

    :param service: a client that makes each request once: repetitions are up to the pace.
    :param s3: a client of S3.
    :param model: the members that name the model.
    :param masks: the bucket and the prefix that masks go to, or None.
    """

    service: Any
    s3: Any
    model: Mapping[str, str]
    pace: Pace
    masks: tuple[str, str] | None

    def look(self, bucket: str, key: str) -> Result:
        """Return what the model says of the image, or why it can't be used.

        :raises botocore.exceptions.ClientError: when S3 or the service refuses more than this image.
        :raises AirflowException: as the pace does.
        """
        from botocore.exceptions import ClientError

        source = {"source-ref": f"s3://{bucket}/{key}"}
        etag = ""
        try:
            etag, content = self._read(bucket, key)
            return Result(key, etag, {**source, **self._ask(source["source-ref"], key, content)})
        except UnusableImage as error:
            told = {"Code": "ValidationException", "Message": str(error)}
        except ClientError as error:
            told = {name: error.response["Error"].get(name, "") for name in ("Code", "Message")}
            if told["Code"] not in _UNUSABLE:
                raise
        return Result(key, etag, {**source, "error": told})

    def _read(self, bucket: str, key: str, reads: int = 3) -> tuple[str, bytes]:
        from botocore.exceptions import HTTPClientError, IncompleteReadError

        found = self.s3.get_object(Bucket=bucket, Key=key)
        if (size := found["ContentLength"]) > LARGEST_IMAGE:
            found["Body"].close()
            raise UnusableImage(f"It has {size} bytes; the service takes {LARGEST_IMAGE} at most")
        try:
            return found["ETag"], found["Body"].read()
        except (HTTPClientError, IncompleteReadError):  # botocore repeats no answer that breaks off
            if reads == 1:
                raise
            return self._read(bucket, key, reads - 1)

    def _ask(self, name: str, key: str, content: bytes) -> dict[str, Any]:
        kind = next((kind for start, kind in CONTENT_TYPES.items() if content.startswith(start)), None)
        if kind is None:
            raise UnusableImage("Its content is neither JPEG nor PNG")
        answer = self.pace.ask(
            lambda: self.service.detect_anomalies(**self.model, Body=content, ContentType=kind), name
        )
        result: dict[str, Any] = answer["DetectAnomalyResult"]
        mask = result.pop("AnomalyMask", None)
        result.pop("Source", None)
        marked = len(result.get("Anomalies", ())) > 1  # the first is the background
        if mask and self.masks and (marked or result["IsAnomalous"]):
            bucket, prefix = self.masks
            place = f"{prefix}{key}.png"
            self.s3.put_object(Bucket=bucket, Key=place, Body=mask, ContentType="image/png")
            result["mask-ref"] = f"s3://{bucket}/{place}"
        return result
