"""Places in S3, as parameters name them."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import AirflowFailException


def split_s3_uri(parameter: str, uri: str) -> tuple[str, str]:
    """Return the bucket and the key of ``s3://bucket/key``.

    :raises AirflowFailException: when it is something else, naming the parameter.
    """
    return _split(parameter, uri, "s3://bucket/key", may_be_whole=False)


def split_s3_prefix(parameter: str, uri: str) -> tuple[str, str]:
    """Return the bucket and the prefix of ``s3://bucket/prefix``; the prefix is as it is, and may be empty.

    :raises AirflowFailException: when it is something else, naming the parameter.
    """
    return _split(parameter, uri, "s3://bucket/prefix")


def split_s3_folder(parameter: str, uri: str) -> tuple[str, str]:
    """Return the bucket and the prefix of ``s3://bucket/prefix/``, which ends with ``/`` unless it is empty.

    :raises AirflowFailException: when it is something else, naming the parameter.
    """
    bucket, prefix = _split(parameter, uri, "s3://bucket/prefix/")
    return bucket, prefix if not prefix or prefix.endswith("/") else f"{prefix}/"


def _split(parameter: str, uri: str, form: str, *, may_be_whole: bool = True) -> tuple[str, str]:
    bucket, _, rest = uri.removeprefix("s3://").partition("/")
    if not uri.startswith("s3://") or not bucket or not (rest or may_be_whole):
        raise AirflowFailException(f"{parameter} is {uri!r}; it must be {form}")
    return bucket, rest
