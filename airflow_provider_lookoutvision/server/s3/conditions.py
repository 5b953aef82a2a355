"""What a request may make its answer depend on: If-Match and its like, and ranges of bytes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from airflow_provider_lookoutvision.server.s3.errors import S3Error, no_such_key, precondition_failed
from airflow_provider_lookoutvision.server.s3.records import Record

_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


@dataclass(frozen=True)
class Conditions:
    """The conditional headers of a request, as the API names them."""

    if_match: str | None = None
    if_none_match: str | None = None
    if_modified_since: datetime | None = None
    if_unmodified_since: datetime | None = None

    def check_read(self, record: Record) -> None:
        """Check them against an object that is to be read, in the order of RFC 9110.

        :raises S3Error: PreconditionFailed, or NotModified.
        """
        if self.if_match is not None:
            if not _names(self.if_match, record):
                raise precondition_failed("If-Match")
        elif self.if_unmodified_since is not None and record.modified > self.if_unmodified_since:
            raise precondition_failed("If-Unmodified-Since")
        if self.if_none_match is not None:
            unchanged = _names(self.if_none_match, record)
        else:
            unchanged = self.if_modified_since is not None and record.modified <= self.if_modified_since
        if unchanged:
            error = S3Error("NotModified", "Not Modified")
            error.headers["ETag"] = f'"{record.etag}"'
            raise error

    def check_copy(self, record: Record) -> None:
        """Check them against the source of a copy.

        :raises S3Error: PreconditionFailed.
        """
        try:
            self.check_read(record)
        except S3Error as error:
            raise error if error.status == 412 else precondition_failed("If-None-Match") from None

    def check_write(self, key: str, current: Record | None) -> None:
        """Check them against what an object would take the place of.

        :raises S3Error: PreconditionFailed; NoSuchKey where there is nothing that could match.
        """
        if self.if_none_match is not None and current is not None:
            raise precondition_failed("If-None-Match")
        if self.if_match is not None:
            if current is None:
                raise no_such_key(key)
            if not _names(self.if_match, current):
                raise precondition_failed("If-Match")

    def refuse_unknown(self) -> None:
        """Refuse what has no meaning when an object is written.

        :raises S3Error: NotImplemented.
        """
        if self.if_none_match not in {None, "*"}:
            raise S3Error("NotImplemented", "If-None-Match of a write can only be *", Header="If-None-Match")


def _names(etags: str, record: Record) -> bool:
    given = {etag.strip().removeprefix("W/").strip('"') for etag in etags.split(",")}
    return bool(given & {"*", record.etag})


def byte_range(text: str | None, size: int) -> tuple[int, int] | None:
    """The first byte of a range and the one after its last; None for all of the object.

    What isn't one range of bytes is as if it weren't there, as S3 has it.

    :raises S3Error: InvalidRange for one that the object has nothing of.
    """
    match = _RANGE.fullmatch(text.strip()) if text else None
    if not match or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if first and last and int(first) > int(last):
        return None
    begin = int(first) if first else max(size - int(last), 0)
    end = min(int(last) + 1, size) if first and last else size
    if begin >= end:
        error = S3Error(
            "InvalidRange",
            "The requested range is not satisfiable",
            RangeRequested=text or "",
            ActualObjectSize=size,
        )
        error.headers["Content-Range"] = f"bytes */{size}"
        raise error
    return begin, end


def copy_range(text: str | None, size: int) -> tuple[int, int]:
    """The same of the source of a copied part, which must be given in full.

    :raises S3Error: InvalidArgument, InvalidRange.
    """
    if text is None:
        return 0, size
    match = _RANGE.fullmatch(text)
    if not match or not all(match.groups()) or int(match[1]) > int(match[2]):
        raise S3Error(
            "InvalidArgument",
            "The x-amz-copy-source-range value must be of the form bytes=first-last",
            ArgumentName="x-amz-copy-source-range",
            ArgumentValue=text,
        )
    if int(match[2]) >= size:
        raise S3Error(
            "InvalidRange",
            f"Range specified is not valid for source object of size: {size}",
            RangeRequested=text,
        )
    return int(match[1]), int(match[2]) + 1
