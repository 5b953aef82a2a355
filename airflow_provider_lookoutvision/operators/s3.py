"""S3 as the operators use it: places as parameters name them, its connection, faults told apart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import AirflowFailException

if TYPE_CHECKING:
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook

    from airflow_provider_lookoutvision.operators.base import LookoutVisionBaseOperator

# A retry meets these again; 403 and 404 are all that S3 says of them in answer to a HEAD.
_FAULTS = frozenset(
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
def no_retry_for_faults_of_s3(place: str | None = None) -> Iterator[None]:
    """Turn S3's refusals that a retry would meet again into AirflowFailException, and leave the others alone.

    :param place: what was to be read or written, since S3's own messages often don't say.
    """
    from botocore.exceptions import ClientError, ParamValidationError

    try:
        yield
    except (ClientError, ParamValidationError) as error:
        if isinstance(error, ClientError) and error.response["Error"]["Code"] not in _FAULTS:
            raise
        raise AirflowFailException(f"{place}: {error}" if place else str(error)) from error


def s3_hook(operator: LookoutVisionBaseOperator, s3_conn_id: str | None) -> S3Hook:
    """Return the hook for S3: on a connection of its own, by that alone; or on the operator's, as it says.

    :param s3_conn_id: the connection for S3, if it isn't the operator's.
    """
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook

    if s3_conn_id:
        return S3Hook(aws_conn_id=s3_conn_id)
    return S3Hook(
        aws_conn_id=operator.aws_conn_id,
        region_name=operator.region_name,
        verify=operator.verify,
        config=operator.botocore_config,
    )


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
