"""What is read from a bucket, or the error instead."""

from __future__ import annotations

import pytest

from airflow_provider_lookoutvision.server.storage.buckets import BucketError, Buckets, Location

MOST = 1000


CONTENT = b"the content"


def content_of(buckets: Buckets, key: str, bucket: str = "parts", version: str | None = None) -> bytes:
    with buckets.open(Location(bucket, key, version), MOST) as stream:
        return stream.read()


def error_of(buckets: Buckets, key: str, bucket: str = "parts", version: str | None = None) -> BucketError:
    with pytest.raises(BucketError) as caught:
        content_of(buckets, key, bucket, version)
    return caught.value
