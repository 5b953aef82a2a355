"""The operations that copy: an object to an object, or a range of it to a part."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import unquote

from airflow_provider_lookoutvision.server.s3 import checksums as sums
from airflow_provider_lookoutvision.server.s3.calls import Answer, Call
from airflow_provider_lookoutvision.server.s3.conditions import Conditions, copy_range
from airflow_provider_lookoutvision.server.s3.errors import S3Error
from airflow_provider_lookoutvision.server.s3.multipart_operations import upload_of
from airflow_provider_lookoutvision.server.s3.object_operations import (
    checksum_members,
    kept_headers,
    kept_metadata,
    written_when,
)
from airflow_provider_lookoutvision.server.s3.records import Record
from airflow_provider_lookoutvision.server.s3.signatures import authorize
from airflow_provider_lookoutvision.server.s3.temporary import Temporary, copy


def copy_object(
    call: Call,
    *,
    bucket: str,
    key: str,
    copy_source: str,
    metadata: Mapping[str, str] | None = None,
    metadata_directive: str = "COPY",
    checksum_algorithm: str | None = None,
    copy_source_if_match: str | None = None,
    copy_source_if_none_match: str | None = None,
    copy_source_if_modified_since: datetime | None = None,
    copy_source_if_unmodified_since: datetime | None = None,
    if_match: str | None = None,
    if_none_match: str | None = None,
    cache_control: str | None = None,
    content_disposition: str | None = None,
    content_encoding: str | None = None,
    content_language: str | None = None,
    content_type: str | None = None,
    expires: datetime | None = None,
) -> Answer:
    """Copy an object, with its metadata or with new ones."""
    if metadata_directive not in {"COPY", "REPLACE"}:
        raise S3Error("InvalidArgument", f"Unknown metadata directive {metadata_directive}")
    source_bucket, source_key = source_of(call, copy_source)
    conditions = Conditions(if_match, if_none_match)
    conditions.refuse_unknown()
    replaces = metadata_directive == "REPLACE"
    if (source_bucket, source_key) == (bucket, key) and not replaces:
        raise S3Error(
            "InvalidRequest",
            "This copy request is illegal because it is trying to copy an object to itself without changing "
            "the object's metadata, storage class, website redirect location or encryption attributes.",
        )
    call.objects.check_writable(bucket, key)
    opened = call.objects.open(source_bucket, source_key)
    try:
        source = opened.record
        Conditions(
            copy_source_if_match,
            copy_source_if_none_match,
            copy_source_if_modified_since,
            copy_source_if_unmodified_since,
        ).check_copy(source)
        headers, kept = source.headers, source.metadata
        if replaces:
            kept = kept_metadata(metadata)
            headers = kept_headers(
                CacheControl=cache_control,
                ContentDisposition=content_disposition,
                ContentEncoding=content_encoding,
                ContentLanguage=content_language,
                ContentType=content_type,
                Expires=expires,
            )
        algorithms = {checksum_algorithm} if checksum_algorithm else set(source.checksums)
        digests = {name: sums.new(name) for name in algorithms}
        check = written_when(conditions, key)
        if key.endswith("/"):
            if source.size:
                raise S3Error("InvalidRequest", "An object whose key ends in a slash must be empty")
            record = call.objects.put_marker(bucket, key, Record(source.etag, 0, 0, headers, kept), check)
        else:
            with_file = call.objects.begin(bucket)
            try:
                etag = _copied(opened.descriptor, source, with_file, digests)
                checksums = {name: sums.encoded(digest.digest()) for name, digest in digests.items()}
                record = Record(etag, 0, 0, headers, kept, checksums)
                record = call.objects.put(bucket, key, with_file, record, check)
            finally:
                with_file.close()
    finally:
        opened.close()
    result = {"ETag": f'"{record.etag}"', "LastModified": record.modified, **checksum_members(record)}
    return Answer({"CopyObjectResult": result})


def _copied(descriptor: int, source: Record, file: Temporary, digests: Mapping[str, sums.Digest]) -> str:
    if descriptor < 0:
        return source.etag
    watchers = [digest.update for digest in digests.values()] or [_ignore]
    return copy(descriptor, 0, source.size, file, watchers)


def upload_part_copy(
    call: Call,
    *,
    bucket: str,
    key: str,
    upload_id: str,
    part_number: int,
    copy_source: str,
    copy_source_range: str | None = None,
    copy_source_if_match: str | None = None,
    copy_source_if_none_match: str | None = None,
    copy_source_if_modified_since: datetime | None = None,
    copy_source_if_unmodified_since: datetime | None = None,
) -> Answer:
    """Make a part of an object, or of a range of it."""
    upload = upload_of(call, bucket, key, upload_id, part_number)
    opened = call.objects.open(*source_of(call, copy_source))
    try:
        Conditions(
            copy_source_if_match,
            copy_source_if_none_match,
            copy_source_if_modified_since,
            copy_source_if_unmodified_since,
        ).check_copy(opened.record)
        begin, end = copy_range(copy_source_range, opened.record.size)
        digest = sums.new(upload.algorithm) if upload.algorithm else None
        file = call.uploads.begin_part(bucket, upload_id)
        try:
            watcher = digest.update if digest else _ignore
            etag = copy(opened.descriptor, begin, end, file, [watcher])
            checksum = sums.encoded(digest.digest()) if digest else ""
            call.uploads.put_part(file, upload_id, part_number, etag, upload.algorithm, checksum)
        finally:
            file.close()
    finally:
        opened.close()
    result: dict[str, Any] = {"ETag": f'"{etag}"', "LastModified": opened.record.modified}
    if checksum:
        result[f"Checksum{upload.algorithm}"] = checksum
    return Answer({"CopyPartResult": result})


def source_of(call: Call, copy_source: str) -> tuple[str, str]:
    """The bucket and the key that a copy is of, which the caller may read.

    :raises S3Error: InvalidArgument, AccessDenied.
    """
    path, _, query = copy_source.partition("?")
    bucket, _, key = unquote(path).removeprefix("/").partition("/")
    if not bucket or not key:
        raise S3Error(
            "InvalidArgument",
            "Copy Source must mention the source bucket and key: sourcebucket/sourcekey",
            ArgumentName="x-amz-copy-source",
            ArgumentValue=copy_source,
        )
    if query and query != "versionId=null":
        raise S3Error("NoSuchVersion", "The buckets of this service keep no versions: leave versionId out")
    authorize(call.caller, "GetObject", bucket)
    return bucket, key


def _ignore(data: bytes) -> None:
    """Watch and do nothing."""
