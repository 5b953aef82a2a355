"""The faults that a signature can have, by the codes of AWS."""

from __future__ import annotations

UNSIGNED = "MissingAuthenticationTokenException"
INCOMPLETE = "IncompleteSignatureException"
EXPIRED = "RequestExpired"
FUTURE = "RequestInTheFuture"
WRONG_SCOPE = "AuthorizationHeaderMalformed"
INVALID = "InvalidSignatureException"
UNKNOWN_KEY = "UnrecognizedClientException"
EXPIRED_KEY = "ExpiredTokenException"


class SignatureError(Exception):
    """The request is refused: the error code and message to answer with, and the HTTP status."""

    status = 403

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
