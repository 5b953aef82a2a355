"""What must hold of a signature before its HMAC is looked at: its date, its scope, and what it signs."""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import UTC, datetime, timedelta

from airflow_provider_lookoutvision.server.protocol.sigv4.errors import (
    EXPIRED,
    FUTURE,
    INCOMPLETE,
    INVALID,
    WRONG_SCOPE,
    SignatureError,
)

CLOCK_SKEW = timedelta(minutes=15)
LONGEST_PRESIGNED = 7 * 24 * 60 * 60

_REGION = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")
_TIMESTAMP = re.compile(r"[0-9]{8}T[0-9]{6}Z")


def lifetime(expires: str) -> timedelta:
    """How long a presigned URL holds, by its ``X-Amz-Expires``."""
    seconds = int(expires) if re.fullmatch("[0-9]{1,6}", expires) else 0
    if not 1 <= seconds <= LONGEST_PRESIGNED:
        raise SignatureError(INCOMPLETE, f"'X-Amz-Expires' must be 1 to {LONGEST_PRESIGNED} seconds.")
    return timedelta(seconds=seconds)


def check_date(timestamp: str, lifetime: timedelta, now: datetime) -> None:
    """Check that a signature isn't dated ahead, nor older than its lifetime."""
    try:
        if not _TIMESTAMP.fullmatch(timestamp):
            raise ValueError
        moment = datetime.fromisoformat(timestamp)
    except ValueError:
        raise SignatureError(INCOMPLETE, "The date must look like 20240131T235959Z.") from None
    here = f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}"
    if moment - now > CLOCK_SKEW:
        raise SignatureError(FUTURE, f"Signature not yet current: {timestamp} is far later than {here}.")
    if now - moment > lifetime:
        raise SignatureError(
            EXPIRED, f"Signature expired: {timestamp} is over {lifetime} earlier than {here}."
        )


def check_scope(scope: str, day: str, service: str, regions: Collection[str] | None) -> None:
    """Check that a credential is scoped to the day, to a region that is served, and to the service."""
    scope_day, region, scope_service, terminator = scope.split("/")
    for holds, wanted in (
        (scope_day == day, f"to the date of the request: '{day}'"),
        (_REGION.fullmatch(region) and (regions is None or region in regions), "to a valid region"),
        (scope_service == service, f"to correct service: '{service}'"),
        (terminator == "aws4_request", "with a valid terminator: 'aws4_request'"),
    ):
        if not holds:
            raise SignatureError(WRONG_SCOPE, f"Credential should be scoped {wanted}.")


def check_signed(signed: Collection[str], sent: Collection[str]) -> None:
    """Check that the headers of weight are signed, and that what is signed was sent."""
    weighty = {name for name in sent if name.startswith("x-amz-") or name == "x-amzn-client-token"} | {"host"}
    for name in weighty.difference(signed):
        raise SignatureError(INVALID, f"'{name}' must be one of the SignedHeaders.")
    for name in signed:
        if name not in sent:
            raise SignatureError(INVALID, f"'{name}' is one of the SignedHeaders, but not in the request.")
