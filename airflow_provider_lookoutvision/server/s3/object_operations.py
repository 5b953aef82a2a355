"""The operations on objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from airflow_provider_lookoutvision.server.s3.calls import Answer, Call, Incoming
from airflow_provider_lookoutvision.server.s3.conditions import Conditions, byte_range
from airflow_provider_lookoutvision.server.s3.errors import S3Error, no_such_key
from airflow_provider_lookoutvision.server.s3.objects import Check
from airflow_provider_lookoutvision.server.s3.protocol import http_date
from airflow_provider_lookoutvision.server.s3.records import Record

_MOST_METADATA = 2048
_MOST_DELETED = 1000


def get_object(
    call: Call,
    *,
    bucket: str,
    key: str,
    range: str | None = None,  # noqa: A002 (the header's name)
    part_number: int | None = None,
    checksum_mode: str | None = None,
    response_cache_control: str | None = None,
    response_content_disposition: str | None = None,
    response_content_encoding: str | None = None,
    response_content_language: str | None = None,
    response_content_type: str | None = None,
    response_expires: datetime | None = None,
    if_match: str | None = None,
    if_none_match: str | None = None,
    if_modified_since: datetime | None = None,
    if_unmodified_since: datetime | None = None,
) -> Answer:
    """An object, or a range of it; HeadObject is the same without the bytes."""
    opened = call.objects.open(bucket, key)
    try:
        record = opened.record
        Conditions(if_match, if_none_match, if_modified_since, if_unmodified_since).check_read(record)
        if part_number is None:
            wanted = byte_range(range, record.size)
        elif range is not None:
            raise S3Error("InvalidRequest", "Cannot specify both Range header and partNumber query parameter")
        else:
            wanted = _range_of_part(record, part_number)
        begin, end = wanted or (0, record.size)
        members: dict[str, Any] = {
            "AcceptRanges": "bytes",
            "ContentLength": end - begin,
            "ContentRange": f"bytes {begin}-{end - 1}/{record.size}" if wanted and end > begin else None,
            "ETag": f'"{record.etag}"',
            "LastModified": record.modified,
            **record.headers,
            "ContentType": record.content_type,
            "Metadata": record.metadata,
            "PartsCount": len(record.part_sizes) or None if part_number else None,
        }
        overrides = {
            "CacheControl": response_cache_control,
            "ContentDisposition": response_content_disposition,
            "ContentEncoding": response_content_encoding,
            "ContentLanguage": response_content_language,
            "ContentType": response_content_type,
            "Expires": http_date(response_expires) if response_expires else None,
        }
        members |= {name: value for name, value in overrides.items() if value is not None}
        if checksum_mode and checksum_mode.upper() == "ENABLED" and not wanted:
            members |= checksum_members(record)
    except BaseException:
        opened.close()
        raise
    return Answer(members, opened, begin, end, 206 if wanted else None)


def get_object_tagging(call: Call, *, bucket: str, key: str) -> Answer:
    """There are none."""
    if call.objects.find(bucket, key) is None:
        raise no_such_key(key)
    return Answer({"TagSet": []})


class IncomingObject(Incoming):
    """An object that is being put."""

    def __init__(
        self, call: Call, bucket: str, key: str, record: Record, conditions: Conditions, **checked: Any
    ) -> None:
        super().__init__(call.objects.begin(bucket), **checked)
        self._call, self._bucket, self._key = call, bucket, key
        self._record, self._conditions = record, conditions
        self._size = 0

    def write(self, data: bytes) -> None:
        """Take bytes; a folder marker has none."""
        self._size += len(data)
        if self._key.endswith("/") and self._size:
            raise S3Error(
                "InvalidRequest",
                "The buckets of this service are folders: an object whose key ends in a slash must be empty",
            )
        super().write(data)

    def store(self) -> Answer:
        """Make it the object of its key."""
        record = replace(self._record, etag=self.etag, checksums=self.checksums)
        check = written_when(self._conditions, self._key)
        put = self._call.objects
        if self._key.endswith("/"):
            record = put.put_marker(self._bucket, self._key, record, check)
        else:
            record = put.put(self._bucket, self._key, self.file, record, check)
        return Answer({"ETag": f'"{record.etag}"', **checksum_members(record)})


def put_object(
    call: Call,
    *,
    bucket: str,
    key: str,
    metadata: Mapping[str, str] | None = None,
    checksums: Mapping[str, str] | None = None,
    checksum_algorithm: str | None = None,
    content_md5: str | None = None,
    if_match: str | None = None,
    if_none_match: str | None = None,
    cache_control: str | None = None,
    content_disposition: str | None = None,
    content_encoding: str | None = None,
    content_language: str | None = None,
    content_type: str | None = None,
    expires: datetime | None = None,
    trailers: frozenset[str] = frozenset(),
) -> IncomingObject:
    """Begin to write an object."""
    call.objects.check_writable(bucket, key)
    conditions = Conditions(if_match, if_none_match)
    conditions.refuse_unknown()
    if check := written_when(conditions, key):
        check(call.objects.find(bucket, key))  # before a long body; and again when it is there
    headers = kept_headers(
        CacheControl=cache_control,
        ContentDisposition=content_disposition,
        ContentEncoding=content_encoding,
        ContentLanguage=content_language,
        ContentType=content_type,
        Expires=expires,
    )
    record = Record("", 0, 0, headers, kept_metadata(metadata))
    del checksum_algorithm  # it is what the header or the trailer of the checksum says
    return IncomingObject(
        call, bucket, key, record, conditions, stated=checksums or {}, algorithms=trailers, md5=content_md5
    )


def delete_object(
    call: Call,
    *,
    bucket: str,
    key: str,
    if_match: str | None = None,
) -> Answer:
    """Delete an object; it is no fault if it isn't there."""
    conditions = Conditions(if_match)
    call.objects.delete(bucket, key, None if if_match is None else written_when(conditions, key))
    return Answer()


def delete_objects(call: Call, *, bucket: str, delete: Mapping[str, Any]) -> Answer:
    """Delete many, each by itself."""
    wanted: Sequence[Mapping[str, Any]] = delete["Objects"]
    if not 0 < len(wanted) <= _MOST_DELETED:
        raise S3Error("MalformedXML", f"A request deletes 1 to {_MOST_DELETED} objects")
    call.objects.bucket(bucket)
    deleted, errors = [], []
    for each in wanted:
        key = each["Key"]
        try:
            if each.get("VersionId", "null") not in {"null", ""}:
                raise S3Error("NoSuchVersion", "The buckets of this service keep no versions")
            etag = each.get("ETag")
            call.objects.delete(bucket, key, written_when(Conditions(etag), key) if etag else None)
            deleted.append({"Key": key})
        except S3Error as error:
            errors.append({"Key": key, "Code": error.code, "Message": error.message})
        except OSError as error:
            errors.append({"Key": key, "Code": "InternalError", "Message": error.strerror or "failed"})
    return Answer({"Deleted": [] if delete.get("Quiet") else deleted, "Errors": errors})


# -- what they share -----------------------------------------------------------------------------------------


def written_when(conditions: Conditions, key: str) -> Check | None:
    """What checks the conditions of a write; None if there are none."""
    if conditions == Conditions():
        return None
    return lambda current: conditions.check_write(key, current)


def kept_headers(**headers: str | datetime | None) -> dict[str, str]:
    """The headers that are kept with an object; ``aws-chunked`` was the request's own encoding."""
    if isinstance(expires := headers.get("Expires"), datetime):
        headers["Expires"] = http_date(expires)
    if isinstance(encoding := headers.get("ContentEncoding"), str):
        parts = (part.strip() for part in encoding.split(","))
        headers["ContentEncoding"] = (
            ",".join(part for part in parts if part and part != "aws-chunked") or None
        )
    return {name: str(value) for name, value in headers.items() if value is not None}


def kept_metadata(metadata: Mapping[str, str] | None) -> dict[str, str]:
    """The metadata that users give an object.

    :raises S3Error: MetadataTooLarge.
    """
    size = sum(len(name) + len(value) for name, value in (metadata or {}).items())
    if size > _MOST_METADATA:
        raise S3Error(
            "MetadataTooLarge",
            "Your metadata headers exceed the maximum allowed metadata size",
            Size=size,
            MaxSizeAllowed=_MOST_METADATA,
        )
    return dict(metadata or {})


def checksum_members(record: Record) -> dict[str, Any]:
    """The checksums of an object as members of an output."""
    if not record.checksums:
        return {}
    named = {f"Checksum{name}": value for name, value in record.checksums.items()}
    return {**named, "ChecksumType": record.checksum_type}


def _range_of_part(record: Record, number: int) -> tuple[int, int] | None:
    if number == 1 and not record.part_sizes:
        return None
    if not 1 <= number <= len(record.part_sizes):
        raise S3Error("InvalidRange", "The requested partnumber is not satisfiable", ActualPartCount=1)
    begin = sum(record.part_sizes[: number - 1])
    return begin, begin + record.part_sizes[number - 1]
