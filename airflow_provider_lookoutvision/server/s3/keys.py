"""Which keys a folder can hold.

A key is a path below its bucket: ``a/b`` is the file ``b`` in the folder ``a``, and ``a/`` with nothing in it
is a folder marker, as consoles and ``aws s3`` make them: the folder itself. What a path can't say is refused
when it is written, and is not there when it is read: an empty part, as in ``a//b`` or ``/a``, a part ``.`` or
``..``, one of more than 255 bytes, a NUL, and the names that unfinished writes have.
"""

from __future__ import annotations

import re

from airflow_provider_lookoutvision.server.s3.errors import S3Error

LONGEST_KEY, LONGEST_PART = 1024, 255
# What a write that isn't finished is called: this room's, and those of ``storage.directory_store``.
_UNFINISHED = re.compile(r"\.(s3-)?[0-9a-f]{32}")
_BUCKET = re.compile(r"(?!xn--|.*-s3alias$|.*\.\.)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_OLD_BUCKET = re.compile(r"[0-9A-Za-z._-]{3,63}")


def is_hidden(name: str) -> bool:
    """Whether a name in a bucket's folder is that of an unfinished write."""
    return _UNFINISHED.fullmatch(name) is not None


def problem(key: str) -> S3Error | None:
    """Why no folder can hold a key; None if one can."""
    try:
        encoded = key.encode()
    except UnicodeEncodeError:
        return S3Error("InvalidArgument", "The key is not UTF-8.")
    if len(encoded) > LONGEST_KEY:
        return S3Error(
            "KeyTooLongError", "Your key is too long", Size=len(encoded), MaxSizeAllowed=LONGEST_KEY
        )
    parts = key.removesuffix("/").split("/")
    for part in parts:
        if len(part.encode()) > LONGEST_PART:
            return S3Error(
                "KeyTooLongError",
                f"A part of your key is too long: the buckets of this service are folders, whose names have "
                f"at most {LONGEST_PART} bytes",
                MaxSizeAllowed=LONGEST_PART,
            )
        if not part or part in {".", ".."} or "\0" in part or is_hidden(part):
            return S3Error(
                "InvalidArgument",
                "The buckets of this service are folders, which can't hold this key: between slashes there "
                "must be names, which are not '.' or '..' and have no NUL",
                ArgumentName="Key",
                ArgumentValue=key,
            )
    return None


def is_new_bucket_name(bucket: str) -> bool:
    """Whether a bucket may be made with this name, by S3's rules."""
    return _BUCKET.fullmatch(bucket) is not None


def is_bucket_name(bucket: str) -> bool:
    """Whether a folder of this name is a bucket: S3's old rules hold for what is there."""
    return _OLD_BUCKET.fullmatch(bucket) is not None and bucket.strip(".") != "" and not is_hidden(bucket)
