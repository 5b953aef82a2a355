"""Objects in S3, and what the errors of S3 mean for those who asked for an object."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache
from typing import Any, BinaryIO, cast

from airflow_provider_lookoutvision.server.settings import SettingsError
from airflow_provider_lookoutvision.server.storage.buckets import BucketError, Location, check_size

_TIMEOUT_SECONDS = 20
# What S3 says when it is the service's own credentials, or clock, that are wrong.
_CREDENTIAL_FAULTS = frozenset(
    {"ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "RequestTimeTooSkewed", "SignatureDoesNotMatch"}
)

log = logging.getLogger("lookoutvision")


class S3Store:
    """Objects in S3, with the service's own AWS configuration.

    :param endpoint_url: another endpoint than AWS's; empty for what the AWS configuration says.
    """

    def __init__(self, endpoint_url: str) -> None:
        self._endpoint_url = endpoint_url or None

    def check(self, bucket: str) -> None:
        """See whether there is one; only a write can show it where the credentials may not list it."""
        from botocore.exceptions import ClientError

        with _translated(Location(bucket, "")):
            try:
                _s3_client(self._endpoint_url).head_bucket(Bucket=bucket)
            except ClientError as error:
                # HeadBucket needs s3:ListBucket, and a job needs s3:GetObject and s3:PutObject alone.
                if error.response["Error"]["Code"] not in {"403", "AccessDenied"}:
                    raise

    def open(self, location: Location, most: int) -> BinaryIO:
        """The object's body, spooled to a temporary file: what is slow to use can't lose the connection."""
        arguments = {"Bucket": location.bucket, "Key": location.key}
        if location.version_id:
            arguments["VersionId"] = location.version_id
        spool = tempfile.SpooledTemporaryFile(max_size=16 << 20)  # noqa: SIM115 (the caller closes it)
        try:
            with _translated(location):
                answer = _s3_client(self._endpoint_url).get_object(**arguments)
                with closing(answer["Body"]) as body:
                    check_size(location, answer["ContentLength"], most)
                    for chunk in body.iter_chunks(1 << 20):
                        spool.write(chunk)
        except BaseException:
            spool.close()
            raise
        spool.seek(0)
        return cast("BinaryIO", spool)

    def write(self, location: Location, content: bytes) -> None:
        """Put the object."""
        with _translated(location):
            _s3_client(self._endpoint_url).put_object(Bucket=location.bucket, Key=location.key, Body=content)

    def stamp(self, location: Location) -> str:
        """Its ETag."""
        with _translated(location):
            found = _s3_client(self._endpoint_url).head_object(Bucket=location.bucket, Key=location.key)
        return str(found["ETag"])

    def names(self) -> list[str]:
        """The buckets, or none where the credentials may not list them, as no job needs."""
        with suppress(BucketError), _translated(Location("*", "")):
            return [each["Name"] for each in _s3_client(self._endpoint_url).list_buckets()["Buckets"]]
        return []

    def keys(self, bucket: str, prefix: str) -> Iterator[str]:
        """The keys below a prefix, in order."""
        with _translated(Location(bucket, prefix)):
            pages = _s3_client(self._endpoint_url).get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=bucket, Prefix=prefix):
                yield from (each["Key"] for each in page.get("Contents", ()))


@cache
def _s3_client(endpoint_url: str | None) -> Any:
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError
    from botocore.session import Session

    config = Config(
        connect_timeout=_TIMEOUT_SECONDS, read_timeout=_TIMEOUT_SECONDS, retries={"mode": "standard"}
    )
    try:
        return Session().create_client("s3", endpoint_url=endpoint_url, config=config)
    except (BotoCoreError, ValueError) as error:
        raise SettingsError(f"S3 can't be used: {error}") from None


@contextmanager
def _translated(location: Location) -> Iterator[None]:
    from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, NoCredentialsError

    try:
        yield
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        code = error.response["Error"]["Code"]
        _log_fault(location, error)
        if code in _CREDENTIAL_FAULTS:
            raise _unreachable(location, "S3 refuses the service's own credentials, or its clock") from None
        reason = {
            404: "does not exist",
            403: "may not be used with the service's credentials, or does not exist",
        }.get(status, f"can't be used: S3 answered with the error {code}")
        raise BucketError(f"{location} {reason}", input=status in {400, 403, 404, 405}) from None
    except NoCredentialsError as error:
        _log_fault(location, error)
        raise _unreachable(location, "the service has no credentials for S3") from None
    except (BotoCoreError, HTTPClientError, OSError) as error:
        _log_fault(location, error)
        raise _unreachable(location, "S3 doesn't answer") from None


def _log_fault(location: Location, error: Exception) -> None:
    # Where the S3 is and what it says is for the operator of the service, not for its callers.
    log.warning("an object of S3 can't be used", extra={"location": str(location), "reason": str(error)})


def _unreachable(location: Location, reason: str) -> BucketError:
    return BucketError(
        f"{location} can't be reached: {reason}; the log of the service says more", input=False
    )
