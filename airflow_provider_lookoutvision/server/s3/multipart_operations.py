"""The operations of multipart uploads."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from airflow_provider_lookoutvision.server.s3 import checksums as sums
from airflow_provider_lookoutvision.server.s3.bucket_operations import encoder, grouped, owner
from airflow_provider_lookoutvision.server.s3.calls import Answer, Call, Incoming
from airflow_provider_lookoutvision.server.s3.conditions import Conditions
from airflow_provider_lookoutvision.server.s3.errors import S3Error
from airflow_provider_lookoutvision.server.s3.object_operations import (
    checksum_members,
    kept_headers,
    kept_metadata,
    written_when,
)
from airflow_provider_lookoutvision.server.s3.uploads import MOST_PARTS, Part, Upload, Wanted

_MOST_LISTED = 1000


def create_multipart_upload(
    call: Call,
    *,
    bucket: str,
    key: str,
    metadata: Mapping[str, str] | None = None,
    checksum_algorithm: str | None = None,
    checksum_type: str | None = None,
    cache_control: str | None = None,
    content_disposition: str | None = None,
    content_encoding: str | None = None,
    content_language: str | None = None,
    content_type: str | None = None,
    expires: datetime | None = None,
) -> Answer:
    """Begin an upload in parts."""
    algorithm = (checksum_algorithm or "").upper()
    call.objects.check_writable(bucket, key)
    if key.endswith("/"):
        raise S3Error("InvalidRequest", "An object whose key ends in a slash is empty: put it in one request")
    if algorithm:
        sums.new(algorithm)
        full = sums.FULL_OBJECT if algorithm.startswith("CRC64") else sums.COMPOSITE
        checksum_type = checksum_type or full
        if checksum_type == sums.FULL_OBJECT and not algorithm.startswith("CRC"):
            raise S3Error("InvalidRequest", f"The FULL_OBJECT checksum type cannot be used with {algorithm}.")
        if checksum_type == sums.COMPOSITE and algorithm == "CRC64NVME":
            raise S3Error("InvalidRequest", "The COMPOSITE checksum type cannot be used with CRC64NVME.")
    headers = kept_headers(
        CacheControl=cache_control,
        ContentDisposition=content_disposition,
        ContentEncoding=content_encoding,
        ContentLanguage=content_language,
        ContentType=content_type,
        Expires=expires,
    )
    upload = Upload(
        secrets.token_hex(16),
        key,
        time.time(),
        headers,
        kept_metadata(metadata),
        algorithm,
        checksum_type or "",
    )
    call.uploads.begin(bucket, upload)
    return Answer(
        {
            "Bucket": bucket,
            "Key": key,
            "UploadId": upload.upload_id,
            "ChecksumAlgorithm": algorithm or None,
            "ChecksumType": checksum_type if algorithm else None,
        }
    )


class IncomingPart(Incoming):
    """A part that is being uploaded."""

    def __init__(self, call: Call, bucket: str, upload: Upload, number: int, **checked: Any) -> None:
        super().__init__(call.uploads.begin_part(bucket, upload.upload_id), **checked)
        self._call, self._upload, self._number = call, upload, number

    def store(self) -> Answer:
        """Make it the part of its number."""
        checksum = self.checksums.get(self._upload.algorithm, "")
        self._call.uploads.put_part(
            self.file, self._upload.upload_id, self._number, self.etag, self._upload.algorithm, checksum
        )
        stated = {f"Checksum{name}": value for name, value in self.checksums.items()}
        return Answer({"ETag": f'"{self.etag}"', **stated})


def upload_part(
    call: Call,
    *,
    bucket: str,
    key: str,
    upload_id: str,
    part_number: int,
    checksums: Mapping[str, str] | None = None,
    content_md5: str | None = None,
    trailers: frozenset[str] = frozenset(),
) -> IncomingPart:
    """Begin to write a part."""
    upload = upload_of(call, bucket, key, upload_id, part_number)
    algorithms = trailers | ({upload.algorithm} if upload.algorithm else set())
    return IncomingPart(
        call, bucket, upload, part_number, stated=checksums or {}, algorithms=algorithms, md5=content_md5
    )


def list_parts(
    call: Call,
    *,
    bucket: str,
    key: str,
    upload_id: str,
    max_parts: int = _MOST_LISTED,
    part_number_marker: int = 0,
) -> Answer:
    """The parts that are there."""
    upload = call.uploads.find(bucket, key, upload_id)
    most = max(0, min(max_parts, _MOST_LISTED))
    rest = [part for part in call.uploads.parts(bucket, upload_id) if part.number > part_number_marker]
    parts = rest[:most]
    return Answer(
        {
            "Bucket": bucket,
            "Key": key,
            "UploadId": upload_id,
            "PartNumberMarker": part_number_marker,
            "NextPartNumberMarker": parts[-1].number if parts else 0,
            "MaxParts": most,
            "IsTruncated": len(rest) > len(parts) > 0,
            "Parts": [_shown(part) for part in parts],
            "Initiator": owner(call),
            "Owner": owner(call),
            "StorageClass": "STANDARD",
            "ChecksumAlgorithm": upload.algorithm or None,
            "ChecksumType": upload.checksum_type or None,
        }
    )


def complete_multipart_upload(
    call: Call,
    *,
    bucket: str,
    key: str,
    upload_id: str,
    multipart_upload: Mapping[str, Any] | None = None,
    checksums: Mapping[str, str] | None = None,
    mpu_object_size: int | None = None,
    checksum_type: str | None = None,
    if_match: str | None = None,
    if_none_match: str | None = None,
) -> Answer:
    """Make the object of the parts."""
    del checksum_type  # it was said when the upload was begun
    conditions = Conditions(if_match, if_none_match)
    conditions.refuse_unknown()
    wanted = []
    for part in (multipart_upload or {}).get("Parts", ()):
        if "PartNumber" not in part or "ETag" not in part:
            raise S3Error("MalformedXML", "Each part needs its PartNumber and its ETag")
        stated = {
            name.removeprefix("Checksum"): text for name, text in part.items() if name[:8] == "Checksum"
        }
        wanted.append(Wanted(part["PartNumber"], part["ETag"], stated))
    if mpu_object_size is not None:
        sizes = {part.number: part.size for part in call.uploads.parts(bucket, upload_id)}
        if sizes and sum(sizes.get(part.number, 0) for part in wanted) != mpu_object_size:
            raise S3Error(
                "InvalidRequest",
                "The provided 'x-amz-mp-object-size' header does not match what was computed",
            )
    check = written_when(conditions, key)
    record = call.uploads.complete(bucket, key, upload_id, wanted, checksums or {}, check)
    return Answer(
        {
            "Location": f"/{bucket}/{key}",
            "Bucket": bucket,
            "Key": key,
            "ETag": f'"{record.etag}"',
            **checksum_members(record),
        }
    )


def abort_multipart_upload(call: Call, *, bucket: str, key: str, upload_id: str) -> Answer:
    """Forget it."""
    call.uploads.abort(bucket, key, upload_id)
    return Answer()


def list_multipart_uploads(
    call: Call,
    *,
    bucket: str,
    prefix: str = "",
    delimiter: str = "",
    key_marker: str = "",
    upload_id_marker: str = "",
    max_uploads: int = _MOST_LISTED,
    encoding_type: str | None = None,
) -> Answer:
    """The uploads that are under way."""
    write = encoder(encoding_type)
    uploads = [upload for upload in call.uploads.listed(bucket) if upload.key.startswith(prefix)]
    if upload_id_marker:
        seen = [upload.upload_id for upload in uploads if upload.key == key_marker]
        passed = set(seen[: seen.index(upload_id_marker) + 1] if upload_id_marker in seen else seen)
        uploads = [
            u for u in uploads if u.key > key_marker or (u.key == key_marker and u.upload_id not in passed)
        ]
    else:
        uploads = [upload for upload in uploads if upload.key > key_marker]
    single, prefixes = [], []
    for name, is_prefix in grouped(
        iter(dict.fromkeys(u.key for u in uploads)), prefix, delimiter, key_marker
    ):
        if is_prefix:
            prefixes.append(name)
        else:
            single += [upload for upload in uploads if upload.key == name]
    most = max(0, min(max_uploads, _MOST_LISTED))
    shown = single[:most]
    is_truncated = len(single) > len(shown) > 0
    return Answer(
        {
            "Bucket": bucket,
            "Prefix": write(prefix),
            "Delimiter": write(delimiter) if delimiter else None,
            "KeyMarker": write(key_marker),
            "UploadIdMarker": upload_id_marker,
            "MaxUploads": most,
            "EncodingType": encoding_type,
            "IsTruncated": is_truncated,
            "NextKeyMarker": write(shown[-1].key) if is_truncated else None,
            "NextUploadIdMarker": shown[-1].upload_id if is_truncated else None,
            "Uploads": [
                {
                    "Key": write(upload.key),
                    "UploadId": upload.upload_id,
                    "Initiated": upload.initiated_at,
                    "StorageClass": "STANDARD",
                    "Initiator": owner(call),
                    "Owner": owner(call),
                    "ChecksumAlgorithm": upload.algorithm or None,
                    "ChecksumType": upload.checksum_type or None,
                }
                for upload in shown
            ],
            "CommonPrefixes": [{"Prefix": write(name)} for name in prefixes],
        }
    )


def upload_of(call: Call, bucket: str, key: str, upload_id: str, number: int) -> Upload:
    """The upload that a part is for.

    :raises S3Error: InvalidArgument, NoSuchUpload.
    """
    if not 1 <= number <= MOST_PARTS:
        raise S3Error(
            "InvalidArgument",
            f"Part number must be an integer between 1 and {MOST_PARTS}, inclusive",
            ArgumentName="partNumber",
            ArgumentValue=number,
        )
    return call.uploads.find(bucket, key, upload_id)


def _shown(part: Part) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "PartNumber": part.number,
        "LastModified": part.modified,
        "ETag": f'"{part.etag}"',
        "Size": part.size,
    }
    if part.checksum:
        shown[f"Checksum{part.algorithm}"] = part.checksum
    return shown
