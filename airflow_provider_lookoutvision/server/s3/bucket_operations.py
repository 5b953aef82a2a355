"""The operations on buckets, and the lists of what is in them."""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from airflow_provider_lookoutvision.server.s3.calls import Answer, Call
from airflow_provider_lookoutvision.server.s3.errors import S3Error
from airflow_provider_lookoutvision.server.s3.records import Record

MOST_KEYS = 1000
DEFAULT_REGION = "us-east-1"
# A page ends after that long, wherever it is: ETags of files that were copied here have to be computed.
_PAGE_SECONDS = 10.0


def list_buckets(
    call: Call,
    *,
    max_buckets: int | None = None,
    continuation_token: str | None = None,
    prefix: str = "",
    bucket_region: str | None = None,
) -> Answer:
    """Those that the caller may use."""
    del bucket_region  # every bucket is in every region
    after = _decoded(continuation_token) if continuation_token else ""
    found = [
        {"Name": name, "CreationDate": datetime.fromtimestamp(made, UTC)}
        for name, made in call.objects.buckets()
        if call.caller.sees_bucket(name) and name.startswith(prefix) and name > after
    ]
    most = max_buckets or 10_000
    more = _encoded(str(found[most - 1]["Name"])) if len(found) > most else None
    members = {"Buckets": found[:most], "Owner": owner(call), "ContinuationToken": more}
    return Answer(members | ({"Prefix": prefix} if prefix else {}))


def create_bucket(call: Call, *, bucket: str) -> Answer:
    """Make a bucket, which is a folder."""
    if not call.objects.create_bucket(bucket) and call.caller.region != DEFAULT_REGION:
        raise S3Error(
            "BucketAlreadyOwnedByYou",
            "Your previous request to create the named bucket succeeded and you already own it.",
            BucketName=bucket,
        )
    return Answer({"Location": f"/{bucket}"})


def head_bucket(call: Call, *, bucket: str) -> Answer:
    """Whether it is there."""
    call.objects.bucket(bucket)
    return Answer({"BucketRegion": call.caller.region})


def delete_bucket(call: Call, *, bucket: str) -> Answer:
    """Remove an empty one."""
    call.objects.delete_bucket(bucket)
    return Answer()


def get_bucket_location(call: Call, *, bucket: str) -> Answer:
    """The caller's region: every bucket is in every one."""
    call.objects.bucket(bucket)
    return Answer({"LocationConstraint": "" if call.caller.region == DEFAULT_REGION else call.caller.region})


def get_bucket_versioning(call: Call, *, bucket: str) -> Answer:
    """It never had any."""
    call.objects.bucket(bucket)
    return Answer()


def list_objects(
    call: Call,
    *,
    bucket: str,
    prefix: str = "",
    delimiter: str = "",
    marker: str = "",
    max_keys: int = MOST_KEYS,
    encoding_type: str | None = None,
) -> Answer:
    """The first version of the list: a page goes on after a marker, which is a key."""
    page = _page(call, bucket, prefix, delimiter, marker, max_keys)
    write = encoder(encoding_type)
    return Answer(
        _common(bucket, prefix, delimiter, max_keys, encoding_type, page, {"Owner": owner(call)})
        | {"Marker": write(marker), "NextMarker": write(page.last) if page.is_truncated else None}
    )


def list_objects_v2(
    call: Call,
    *,
    bucket: str,
    prefix: str = "",
    delimiter: str = "",
    start_after: str = "",
    continuation_token: str | None = None,
    max_keys: int = MOST_KEYS,
    encoding_type: str | None = None,
    fetch_owner: bool = False,
) -> Answer:
    """The second: it goes on by a token."""
    after = _decoded(continuation_token) if continuation_token is not None else start_after
    page = _page(call, bucket, prefix, delimiter, after, max_keys)
    more = {"Owner": owner(call)} if fetch_owner else {}
    return Answer(
        _common(bucket, prefix, delimiter, max_keys, encoding_type, page, more)
        | {
            "KeyCount": len(page.records) + len(page.prefixes),
            "ContinuationToken": continuation_token,
            "NextContinuationToken": _encoded(page.last) if page.is_truncated else None,
            "StartAfter": encoder(encoding_type)(start_after) if start_after else None,
        }
    )


@dataclass
class _Page:
    records: list[tuple[str, Record]] = field(default_factory=list)
    prefixes: list[str] = field(default_factory=list)
    last: str = ""
    is_truncated: bool = False


def _page(call: Call, bucket: str, prefix: str, delimiter: str, after: str, most: int) -> _Page:
    if most < 0:
        raise S3Error(
            "InvalidArgument",
            "Argument max-keys must be an integer between 0 and 2147483647",
            ArgumentName="max-keys",
            ArgumentValue=most,
        )
    page = _Page()
    call.objects.bucket(bucket)
    until = time.monotonic() + _PAGE_SECONDS
    count = 0
    for name, is_prefix in grouped(
        call.objects.listed(bucket, prefix, after, by_folder=delimiter == "/"), prefix, delimiter, after
    ):
        if count >= min(most, MOST_KEYS) or (count and time.monotonic() > until):
            page.is_truncated = most > 0
            break
        if is_prefix:
            page.prefixes.append(name)
        elif (record := call.objects.find(bucket, name)) is not None:
            page.records.append((name, record))
        else:
            continue
        page.last = name
        count += 1
    return page


def grouped(keys: Iterator[str], prefix: str, delimiter: str, after: str) -> Iterator[tuple[str, bool]]:
    """Keys, and in the place of those that have a delimiter what is before it; whether it is that."""
    last = None
    for key in keys:
        end = key.find(delimiter, len(prefix)) if delimiter else -1
        if end < 0:
            yield key, False
            continue
        common = key[: end + len(delimiter)]
        if common != last and common > after:
            yield common, True
        last = common


def _common(
    bucket: str,
    prefix: str,
    delimiter: str,
    most: int,
    encoding_type: str | None,
    page: _Page,
    more: dict[str, Any],
) -> dict[str, Any]:
    write = encoder(encoding_type)
    return {
        "Name": bucket,
        "Prefix": write(prefix),
        "Delimiter": write(delimiter) if delimiter else None,
        "MaxKeys": most,
        "EncodingType": encoding_type,
        "IsTruncated": page.is_truncated,
        "Contents": [
            {
                "Key": write(key),
                "LastModified": record.modified,
                "ETag": f'"{record.etag}"',
                "Size": record.size,
                "StorageClass": "STANDARD",
                "ChecksumAlgorithm": list(record.checksums) or None,
                "ChecksumType": record.checksum_type if record.checksums else None,
                **more,
            }
            for key, record in page.records
        ],
        "CommonPrefixes": [{"Prefix": write(name)} for name in page.prefixes],
    }


def encoder(encoding_type: str | None) -> Callable[[str], str]:
    """How keys are written in a list.

    :raises S3Error: InvalidArgument.
    """
    if encoding_type not in {None, "url"}:
        raise S3Error(
            "InvalidArgument",
            "Invalid Encoding Method specified in Request",
            ArgumentName="encoding-type",
            ArgumentValue=str(encoding_type),
        )
    return (lambda text: quote(text, safe="/")) if encoding_type else (lambda text: text)


def owner(call: Call) -> dict[str, str]:
    """The owner of whatever the caller may use: its account."""
    return {"ID": call.caller.account_id, "DisplayName": call.caller.account_id}


def _encoded(key: str) -> str:
    return base64.urlsafe_b64encode(key.encode()).decode()


def _decoded(token: str) -> str:
    try:
        return base64.b64decode(token, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise S3Error(
            "InvalidArgument",
            "The continuation token provided is incorrect",
            ArgumentName="continuation-token",
        ) from None
