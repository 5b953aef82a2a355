"""Trouble: the refusals that pass by themselves, and for how long the service is to be left alone.

One rule for all who ask again. What a proxy before the service answers counts as what the service does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

UNANSWERED = "Unanswered"
UNTRUSTED = "CertificateNotTrusted"

_TROUBLE = frozenset({"InternalServerException", "ThrottlingException", UNANSWERED})
_NOT_IMPLEMENTED = 501
_TOO_MANY_REQUESTS = 429
_LONGEST_RETRY_AFTER_SECONDS = 300.0


def refusal(error: Exception) -> Mapping[str, Any]:
    """The response that a client's error stands for; an error that is none of the service's is raised again.

    A service that can't be reached, because it is being restarted for example, refuses with the code
    ``Unanswered``; one whose certificate can't be trusted, with ``CertificateNotTrusted``.
    """
    from botocore import exceptions

    if isinstance(error, exceptions.ClientError):
        response: Mapping[str, Any] = error.response
        return response
    if not isinstance(error, exceptions.ConnectionError | exceptions.HTTPClientError):
        raise error
    message, cause = str(error), str(_cause(error))
    # Other faults of TLS are a connection that breaks off while it begins.
    untrusted = isinstance(error, exceptions.SSLError) and "CERTIFICATE_VERIFY_FAILED" in message
    if cause not in message:  # botocore's message of a name that isn't known doesn't tell of that
        message = f"{message} ({cause})"
    return {"Error": {"Code": UNTRUSTED if untrusted else UNANSWERED, "Message": message}}


def status(response: Mapping[str, Any]) -> int:
    """The HTTP status of a response; 0 without an answer."""
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def is_trouble(response: Mapping[str, Any]) -> bool:
    """Whether asking again later may meet another answer: the service is too busy, at fault, or away."""
    code = response.get("Error", {}).get("Code")
    at_fault = status(response) >= 500 and status(response) != _NOT_IMPLEMENTED
    return at_fault or status(response) == _TOO_MANY_REQUESTS or code in _TROUBLE


def retry_after(response: Mapping[str, Any]) -> float:
    """For how many seconds the service asks to be left alone, up to five minutes; 0 when it doesn't say."""
    told = str(response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("retry-after", ""))
    return min(float(told), _LONGEST_RETRY_AFTER_SECONDS) if told.isdecimal() else 0.0


def _cause(error: BaseException) -> BaseException:
    while deeper := error.__cause__ or error.__context__:
        error = deeper
    return error
