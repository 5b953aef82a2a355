"""Who signed this request: AWS Signature Version 4, verified.

Two steps, so that no body is read for a stranger. ``parse`` checks what the request line and the headers
say, and returns a ``Claim``; the caller looks its key up, reads the body, and calls ``Claim.verify``. An
unknown key can be refused before the body: ``claim.verify(None, b"")`` does the work of a comparison, and
refuses. ``verify`` takes both steps at once. Whatever the input, the only exception is ``SignatureError``;
its status is always 403, and its code says which fault it is:

=================================== =====================================================================
MissingAuthenticationTokenException not signed at all
IncompleteSignatureException        signed, but not in the form of SigV4
RequestExpired                      more than 15 minutes old, or a presigned URL past its lifetime
RequestInTheFuture                  dated more than 15 minutes ahead
AuthorizationHeaderMalformed        scoped to another day, region or service
InvalidSignatureException           not what the key's owner signed, or something of weight left unsigned
UnrecognizedClientException         no such key, or not its session token
ExpiredTokenException               temporary credentials past their time
=================================== =====================================================================

All are codes of AWS, whose services don't agree on them: its JSON services have InvalidSignatureException
for future dates and wrong scopes too. Here each fault has its own: the SDKs know RequestInTheFuture as a
clock that runs ahead, and AuthorizationHeaderMalformed is S3's name for a wrong scope.

``host``, every ``x-amz-*`` header and the client token must be signed; ``content-type`` need not be, since
older SDKs leave it out, so take no decision by it. The query is compared as sent, in any order. The path is
normalised first, as AWS does it: raw paths that differ in dot segments or doubled slashes carry the same
signature, so the router must take the raw path, and no operation a name made of dots.

A claim may say that its body isn't signed (``UNSIGNED-PAYLOAD``, as SDKs do with a stream): ``verify`` takes
it only with ``allows_unsigned_body``, and else refuses it as AWS does, with InvalidSignatureException.

S3 differs, and so does what is scoped to it: the path is signed as it is sent, the hash of the body must be
stated, and may be one of the names in ``S3_PAYLOADS`` instead, which say how the body is protected otherwise.
The S3 room checks the body against what the claim states (``Claim.prove``), since it arrives in pieces.

Source: AWS IAM User Guide, "Create a signed AWS API request"; what it leaves open is as botocore signs.
"""

from __future__ import annotations

from airflow_provider_lookoutvision.server.protocol.sigv4.claim import (
    ALGORITHM,
    S3_PAYLOADS,
    SIGNED_CHUNKS,
    SIGNED_TRAILER,
    UNSIGNED_PAYLOAD,
    UNSIGNED_TRAILER,
    Claim,
    Credential,
    Signature,
)
from airflow_provider_lookoutvision.server.protocol.sigv4.errors import (
    EXPIRED,
    EXPIRED_KEY,
    FUTURE,
    INCOMPLETE,
    INVALID,
    UNKNOWN_KEY,
    UNSIGNED,
    WRONG_SCOPE,
    SignatureError,
)
from airflow_provider_lookoutvision.server.protocol.sigv4.request import (
    SignedRequest,
    parse,
    scoped_service,
    verify,
)

__all__ = [
    "ALGORITHM",
    "EXPIRED",
    "EXPIRED_KEY",
    "FUTURE",
    "INCOMPLETE",
    "INVALID",
    "S3_PAYLOADS",
    "SIGNED_CHUNKS",
    "SIGNED_TRAILER",
    "UNKNOWN_KEY",
    "UNSIGNED",
    "UNSIGNED_PAYLOAD",
    "UNSIGNED_TRAILER",
    "WRONG_SCOPE",
    "Claim",
    "Credential",
    "Signature",
    "SignatureError",
    "SignedRequest",
    "parse",
    "scoped_service",
    "verify",
]
