"""Detection on one image in S3."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from airflow_provider_lookoutvision.batches.images import Result

LARGEST_IMAGE = 8 * 1024 * 1024
CONTENT_TYPES = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG\r\n\x1a\n": "image/png"}

# Errors that concern one image; any other concerns all of them.
_INVALID_IMAGE_CODES = frozenset(
    {"InvalidObjectState", "NoSuchKey", "RequestEntityTooLargeException", "ValidationException"}
)


class InvalidImage(Exception):
    """The image can't be used."""


class Requests(Protocol):
    """How detections are sent: how many at a time, and what is done when one fails."""

    def call(self, request: Callable[[], dict[str, Any]], name: str) -> dict[str, Any]:
        """Send a request, again if that helps, and return its response.

        :param name: names it in errors.
        """


@dataclass(frozen=True)
class ImageDetector:
    """Reads images, has anomalies detected, stores masks and heat maps. Threads may share it.

    :param service: a client that sends each request once, and ``requests`` repeats it; or whatever else has
        its ``detect_anomalies``.
    :param s3: a client of S3.
    :param model: the members that name the model.
    :param masks: the bucket and the prefix that masks are stored at, or None.
    :param heatmaps: the bucket and the prefix that anomaly maps are stored at, or None. The client then
        requests them.
    """

    service: Any
    s3: Any
    model: Mapping[str, str]
    requests: Requests
    masks: tuple[str, str] | None
    heatmaps: tuple[str, str] | None = None

    def detect(self, bucket: str, key: str) -> Result:
        """Return the model's verdict on the image, or why the image can't be used.

        :raises botocore.exceptions.ClientError: when S3 or the service refuses more than this image.
        :raises AirflowException: as ``requests`` does.
        """
        from botocore.exceptions import ClientError

        source = {"source-ref": f"s3://{bucket}/{key}"}
        etag = ""
        try:
            etag, content = self._read(bucket, key)
            return Result(key, etag, {**source, **self._detect(source["source-ref"], key, content)})
        except InvalidImage as invalid:
            error = {"Code": "ValidationException", "Message": str(invalid)}
        except ClientError as refused:
            error = {name: refused.response["Error"].get(name, "") for name in ("Code", "Message")}
            if error["Code"] not in _INVALID_IMAGE_CODES:
                raise
        return Result(key, etag, {**source, "error": error})

    def _read(self, bucket: str, key: str, attempts: int = 3) -> tuple[str, bytes]:
        from botocore.exceptions import HTTPClientError, IncompleteReadError

        found = self.s3.get_object(Bucket=bucket, Key=key)
        if (size := found["ContentLength"]) > LARGEST_IMAGE:
            found["Body"].close()
            raise InvalidImage(f"It has {size} bytes; the service takes {LARGEST_IMAGE} at most")
        try:
            return found["ETag"], found["Body"].read()
        except (HTTPClientError, IncompleteReadError):  # botocore doesn't retry when a body breaks off
            if attempts == 1:
                raise
            return self._read(bucket, key, attempts - 1)

    def _detect(self, name: str, key: str, content: bytes) -> dict[str, Any]:
        kind = next((kind for start, kind in CONTENT_TYPES.items() if content.startswith(start)), None)
        if kind is None:
            raise InvalidImage("Its content is neither JPEG nor PNG")
        answer = self.requests.call(
            lambda: self.service.detect_anomalies(**self.model, Body=content, ContentType=kind), name
        )
        result: dict[str, Any] = answer["DetectAnomalyResult"]
        mask = result.pop("AnomalyMask", None)
        anomaly_map = result.pop("AnomalyMap", None)
        result.pop("Source", None)
        has_defects = len(result.get("Anomalies", ())) > 1  # the first is the background
        if mask and self.masks and (has_defects or result["IsAnomalous"]):
            result["mask-ref"] = self._store(*self.masks, key, mask)
        if anomaly_map and self.heatmaps:
            result["heatmap-ref"] = self._store(*self.heatmaps, key, anomaly_map)
        return result

    def _store(self, bucket: str, prefix: str, key: str, png: bytes) -> str:
        self.s3.put_object(Bucket=bucket, Key=f"{prefix}{key}.png", Body=png, ContentType="image/png")
        return f"s3://{bucket}/{prefix}{key}.png"
