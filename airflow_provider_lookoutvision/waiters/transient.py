"""Which errors pass: the one rule for operators, sensors and triggers.

=========  =======================================================  ================================
an error   when                                                     what repeats the request
=========  =======================================================  ================================
transient  the service throttles, is at fault, or can't be reached  the caller, after a ``Backoff``
busy       the request conflicts with a state that ends by itself   a wait in the task, or its retry
retryable  its code isn't one that a retry of the task meets again  Airflow's retry
=========  =======================================================  ================================

A response of a proxy in front of the service counts as the service's own.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from typing import Any

CONNECTION_FAILED = "ConnectionFailed"
CERTIFICATE_NOT_TRUSTED = "CertificateNotTrusted"
CONFIGURATION_INVALID = "ConfigurationInvalid"

# A retry of the task meets these again. The others (throttling, quotas, 5xx, lost connections) may have
# passed.
NON_RETRYABLE_ERROR_CODES = frozenset(
    {
        CONFIGURATION_INVALID,
        "AccessDeniedException",
        "AuthorizationHeaderMalformed",
        "ConflictException",
        "InvalidSignatureException",
        "NotImplementedException",
        "ResourceNotFoundException",
        "UnrecognizedClientException",
        "ValidationException",
    }
)

_TRANSIENT_CODES = frozenset({"InternalServerException", "ThrottlingException", CONNECTION_FAILED})
# What OpenSSL reports of a server that answers without TLS.
_PLAIN_TEXT_SERVER = ("WRONG_VERSION_NUMBER", "record layer failure", "UNKNOWN_PROTOCOL")
_TEMPORARY_STATUSES = ("408", "429")
_NOT_IMPLEMENTED = 501
_TOO_MANY_REQUESTS = 429
_LONGEST_RETRY_AFTER_SECONDS = 300.0

# A ConflictException's message names the state that the service met. To look at the state afterwards would be
# too late: it may have ended by then, and the conflict would be taken for one that stays.
_TEMPORARY_STATE = re.compile(
    r" is (\w+_IN_PROGRESS|TRAINING|STARTING_HOSTING|STOPPING_HOSTING|SYSTEM_UPDATING|DELETING)\b"
)


def error_response(error: Exception) -> Mapping[str, Any]:
    """The response of a botocore error; an error that doesn't come from a request is raised again.

    A request without a response, because the service is restarting for example, has the code
    ``ConnectionFailed``, or ``CertificateNotTrusted`` when TLS refused the service's certificate.
    """
    from botocore import exceptions

    if isinstance(error, exceptions.ClientError):
        response: Mapping[str, Any] = error.response
        return response
    if isinstance(error, exceptions.NoCredentialsError | exceptions.PartialCredentialsError):
        # Without a key nothing is sent, now and at the next try.
        return {
            "Error": {
                "Code": CONFIGURATION_INVALID,
                "Message": f"{error}: set an access key, as the "
                "connection's login and password or where boto3 looks for one",
            }
        }
    if not isinstance(error, exceptions.ConnectionError | exceptions.HTTPClientError):
        raise error
    message, cause = str(error), str(_root_cause(error))
    # Other TLS errors are connections that broke off during the handshake.
    untrusted = isinstance(error, exceptions.SSLError) and "CERTIFICATE_VERIFY_FAILED" in message
    if isinstance(error, exceptions.SSLError) and any(text in message for text in _PLAIN_TEXT_SERVER):
        return {
            "Error": {
                "Code": CONFIGURATION_INVALID,
                "Message": f"{message}: does the service speak http, and not https?",
            }
        }
    if cause not in message:  # botocore's message leaves out that a host name is unknown
        message = f"{message} ({cause})"
    return {
        "Error": {"Code": CERTIFICATE_NOT_TRUSTED if untrusted else CONNECTION_FAILED, "Message": message}
    }


def error_code(response: Mapping[str, Any]) -> str:
    """The error code of a response; empty for a success."""
    return str(response.get("Error", {}).get("Code", ""))


def http_status(response: Mapping[str, Any]) -> int:
    """The HTTP status of a response; 0 without one."""
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def is_transient(response: Mapping[str, Any]) -> bool:
    """Whether the same request may succeed a little later: the service is throttling, at fault, or away."""
    status = http_status(response)
    at_fault = status >= 500 and status != _NOT_IMPLEMENTED
    return at_fault or status == _TOO_MANY_REQUESTS or error_code(response) in _TRANSIENT_CODES


def is_busy(response: Mapping[str, Any]) -> bool:
    """Whether the request conflicts with a state that ends by itself, such as a training."""
    message = response.get("Error", {}).get("Message", "")
    return error_code(response) == "ConflictException" and bool(_TEMPORARY_STATE.search(message))


def is_foreign(response: Mapping[str, Any]) -> bool:
    """Whether it is another server's refusal: its code is just the HTTP status, such as 405."""
    code = error_code(response)
    return code.isdecimal() and code not in _TEMPORARY_STATUSES and (int(code) < 500 or code == "501")


def is_retryable(response: Mapping[str, Any]) -> bool:
    """Whether a retry of the task may succeed."""
    if is_foreign(response):
        return False
    return error_code(response) not in NON_RETRYABLE_ERROR_CODES or is_busy(response)


def retry_after(response: Mapping[str, Any]) -> float:
    """The seconds of a response's Retry-After header, at most 300; 0 without one."""
    value = str(response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("retry-after", ""))
    return min(float(value), _LONGEST_RETRY_AFTER_SECONDS) if value.isdecimal() else 0.0


class Backoff:
    """When requests may go on after transient errors, for all requests that share it.

    A pause is as long as ``Retry-After`` says, and at least 1 s, 2 s, 4 s and so on; a random part of up to
    half as much is added, so that clients don't come back together. Errors of requests that were under way
    when a pause began belong to it.

    :param longest_seconds: the longest pause without a ``Retry-After``, before the random part.
    """

    def __init__(self, longest_seconds: float) -> None:
        self.resume_at = 0.0
        self.failures = 0
        self._longest = longest_seconds

    def fail(self, response: Mapping[str, Any], now: float) -> bool:
        """Pause after a transient error; returns whether a new pause began.

        :param now: the time, on the clock of ``resume_at``.
        """
        if now < self.resume_at:
            self.resume_at = max(self.resume_at, now + retry_after(response))
            return False
        seconds = max(retry_after(response), min(2.0**self.failures, self._longest))
        self.failures += 1
        self.resume_at = now + seconds * random.uniform(1.0, 1.5)  # noqa: S311 (nothing to guess)
        return True

    def succeed(self) -> None:
        """Begin with a short pause after the next error."""
        self.failures = 0


def _root_cause(error: BaseException) -> BaseException:
    while deeper := error.__cause__ or error.__context__:
        error = deeper
    return error
