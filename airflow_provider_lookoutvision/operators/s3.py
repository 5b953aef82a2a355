"""S3 as the operators use it: its connection, the places that parameters name, errors that no retry helps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import AirflowFailException

if TYPE_CHECKING:
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook

    from airflow_provider_lookoutvision.operators.base import LookoutVisionBaseOperator

# A retry meets these again. To a HEAD request S3 says no more of them than 403 and 404.
_NON_RETRYABLE = frozenset(
    {
        "403",
        "404",
        "AccessDenied",
        "AuthorizationHeaderMalformed",
        "InvalidAccessKeyId",
        "InvalidBucketName",
        "InvalidObjectState",
        "InvalidToken",
        "NoSuchBucket",
        "NoSuchKey",
        "PermanentRedirect",
        "SignatureDoesNotMatch",
    }
)


@contextmanager
def fail_fast_on_s3_errors(uri: str | None = None) -> Iterator[None]:
    """Raise AirflowFailException for S3's errors that a retry would meet again, and leave the others alone.

    :param uri: what was to be read or written, since S3's own messages often don't say.
    """
    from botocore.exceptions import ClientError, ParamValidationError

    try:
        yield
    except (ClientError, ParamValidationError) as error:
        if isinstance(error, ClientError) and error.response["Error"]["Code"] not in _NON_RETRYABLE:
            raise
        raise AirflowFailException(f"{uri}: {error}" if uri else str(error)) from error


def s3_hook(operator: LookoutVisionBaseOperator, s3_conn_id: str | None) -> S3Hook:
    """Return the hook for S3.

    :param s3_conn_id: the connection for S3; by default the operator's, with the operator's region,
        ``verify`` and configuration.
    """
    from airflow_provider_lookoutvision.hooks.connection import LookoutVisionS3Hook

    if s3_conn_id:
        return LookoutVisionS3Hook(aws_conn_id=s3_conn_id)
    return LookoutVisionS3Hook(
        aws_conn_id=operator.aws_conn_id,
        region_name=operator.region_name,
        verify=operator.verify,
        config=operator.botocore_config,
    )


def parse_s3_uri(parameter: str, uri: str) -> tuple[str, str]:
    """Return the bucket and the key of ``s3://bucket/key``.

    :param parameter: names it in the error.
    :raises AirflowFailException: when it is something else.
    """
    bucket, key = _parse(parameter, uri, "s3://bucket/key")
    if not key:
        raise AirflowFailException(f"{parameter} is {uri!r}; it must be s3://bucket/key")
    return bucket, key


def parse_s3_prefix(parameter: str, uri: str) -> tuple[str, str]:
    """Return the bucket and the prefix of ``s3://bucket/prefix``; the prefix is as given, and may be empty.

    :raises AirflowFailException: when it is something else.
    """
    return _parse(parameter, uri, "s3://bucket/prefix")


def parse_s3_folder(parameter: str, uri: str) -> tuple[str, str]:
    """Return the bucket and the prefix of ``s3://bucket/prefix/``; a missing ``/`` is added.

    :raises AirflowFailException: when it is something else.
    """
    bucket, prefix = _parse(parameter, uri, "s3://bucket/prefix/")
    return bucket, prefix if not prefix or prefix.endswith("/") else f"{prefix}/"


def _parse(parameter: str, uri: str, form: str) -> tuple[str, str]:
    # S3Hook.parse_s3_url takes an S3 URI for a URL: it cuts a key off at "?", and drops slashes at its
    # beginning.
    bucket, _, rest = uri.removeprefix("s3://").partition("/")
    if not uri.startswith("s3://") or not bucket:
        raise AirflowFailException(f"{parameter} is {uri!r}; it must be {form}")
    return bucket, rest
