"""Who signed this request: AWS Signature Version 4, verified.

Two steps, so that no body is read for a stranger. ``parse`` checks what the request line and the headers
tell, and returns a ``Claim``; the caller looks its key up, reads the body, and asks ``Claim.verify``. An
unknown key can be refused before the body: ``claim.verify(None, b"")`` does the work of a comparison, and
refuses. ``verify`` takes both steps at once. Whatever the input, the only exception is ``SignatureError``;
its status is always 403, and its code says which fault it is:

=================================== =====================================================================
MissingAuthenticationTokenException not signed at all
IncompleteSignatureException        signed, but not in the form of SigV4, or without the body
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

S3 differs, and so does what is scoped to it: the path is signed as it is sent, the hash of the body must be
stated, and may be one of the names in ``S3_PAYLOADS`` instead, which say how the body is protected otherwise.
The S3 room checks the body against what the claim states (``Claim.prove``), since it arrives in pieces.

Source: AWS IAM User Guide, "Create a signed AWS API request"; what it leaves open is as botocore signs.
"""

from __future__ import annotations

import hashlib
import hmac
import posixpath
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from urllib.parse import quote, unquote

UNSIGNED = "MissingAuthenticationTokenException"
INCOMPLETE = "IncompleteSignatureException"
EXPIRED = "RequestExpired"
FUTURE = "RequestInTheFuture"
WRONG_SCOPE = "AuthorizationHeaderMalformed"
INVALID = "InvalidSignatureException"
UNKNOWN_KEY = "UnrecognizedClientException"
EXPIRED_KEY = "ExpiredTokenException"

ALGORITHM = "AWS4-HMAC-SHA256"
UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"
UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
SIGNED_CHUNKS = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
SIGNED_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
S3_PAYLOADS = frozenset({UNSIGNED_PAYLOAD, UNSIGNED_TRAILER, SIGNED_CHUNKS, SIGNED_TRAILER})
CLOCK_SKEW = timedelta(minutes=15)
LONGEST_PRESIGNED = 7 * 24 * 60 * 60

_S3 = "s3"
_SCOPED_TO = re.compile(r"Credential=[^/,\s]+/[0-9]+/[^/,\s]+/([^/,\s]+)/")
_CREDENTIAL = re.compile(r"([A-Za-z0-9_-]{1,128})/([0-9]{8}/[^/]+/[^/]+/[^/]+)")
_REGION = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TIMESTAMP = re.compile(r"[0-9]{8}T[0-9]{6}Z")


class SignatureError(Exception):
    """The request is refused: the error code and message to answer with, and the HTTP status."""

    status = 403

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


@dataclass(frozen=True)
class SignedRequest:
    """A request as it came over the wire.

    ``path`` is raw, still percent-encoded; ``query`` is raw, without ``?``; ``headers`` has an entry for each
    time that a header was sent, with its name in lower case and its value decoded as ISO 8859-1.
    """

    method: str
    path: str
    query: str
    headers: Sequence[tuple[str, str]]
    body: bytes


@dataclass(frozen=True)
class Credential:
    """What is kept for an access key ID; a temporary one has a session token and ends at an aware time."""

    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)
    expires_at: datetime | None = None


@dataclass(frozen=True)
class Signature:
    """Who signed, and for which region."""

    access_key_id: str
    region: str


@dataclass(frozen=True)
class Claim:
    """Who a request says has signed it: in good form and in time, but not proven yet."""

    access_key_id: str
    scope: str
    timestamp: str
    received_at: datetime
    body_sha256: str
    session_token: str = field(repr=False)
    canonical_head: str = field(repr=False)
    signature: str = field(repr=False)

    def verify(self, credential: Credential | None, body: bytes) -> Signature:
        """Prove the claim.

        :param credential: what is kept for ``access_key_id``; None if that is unknown.
        :raises SignatureError: InvalidSignatureException, UnrecognizedClientException, ExpiredTokenException.
        """
        return self.prove(credential, hashlib.sha256(body).hexdigest())

    def prove(self, credential: Credential | None, body_sha256: str) -> Signature:
        """Prove the claim by what is signed of the body; whether the body is that is for the caller to check.

        :raises SignatureError: as ``verify``.
        """
        secret = credential.secret_access_key if credential else "nobody's"
        proven = hmac.compare_digest(self._expected_signature(secret, body_sha256), self.signature)
        if credential is None:
            raise SignatureError(UNKNOWN_KEY, "The access key included in the request is unknown.")
        if not proven or self.body_sha256 not in ("", body_sha256):
            raise SignatureError(
                INVALID,
                "The request signature we calculated does not match the signature you provided."
                " Check your secret access key, and that nothing on the way changes the request.",
            )
        # Only now, so that nobody without the secret learns anything about tokens.
        if not hmac.compare_digest(_bytes(self.session_token), _bytes(credential.session_token or "")):
            raise SignatureError(UNKNOWN_KEY, "The security token included in the request is invalid.")
        if credential.expires_at is not None and credential.expires_at <= self.received_at:
            raise SignatureError(EXPIRED_KEY, "The security token included in the request is expired.")
        return Signature(self.access_key_id, region=self.scope.split("/")[1])

    def _expected_signature(self, secret: str, body_sha256: str) -> str:
        digest = hashlib.sha256(_bytes(f"{self.canonical_head}\n{body_sha256}")).hexdigest()
        string_to_sign = f"{ALGORITHM}\n{self.timestamp}\n{self.scope}\n{digest}"
        return hmac.digest(self.signing_key(secret), string_to_sign.encode(), "sha256").hex()

    def signing_key(self, secret: str) -> bytes:
        """The key that signs what is of this claim's scope."""
        key = _bytes("AWS4" + secret)
        for part in self.scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        return key


def verify(
    request: SignedRequest,
    *,
    credential: Callable[[str], Credential | None],
    now: datetime,
    service: str = "lookoutvision",
    regions: Collection[str] | None = None,
) -> Signature:
    """Parse and prove at once; ``credential`` looks an access key ID up."""
    line = request.method, request.path, request.query
    claim = parse(*line, request.headers, now=now, service=service, regions=regions)
    return claim.verify(credential(claim.access_key_id), request.body)


def scoped_service(authorization: str, query: str) -> str:
    """The service that a request says it is signed for, or an empty string; nothing of it is checked.

    :param authorization: the header of that name.
    :param query: the raw query.
    """
    if authorization:
        found = _SCOPED_TO.search(authorization)
        return found[1] if found else ""
    _, presigned, rest = f"&{query}".partition("&X-Amz-Credential=")
    parts = unquote(rest.partition("&")[0]).split("/") if presigned else []
    return parts[3] if len(parts) > 3 else ""


def parse(
    method: str,
    path: str,
    query: str,
    headers: Iterable[tuple[str, str]],
    *,
    now: datetime,
    service: str = "lookoutvision",
    regions: Collection[str] | None = None,
) -> Claim:
    """Read the claim from everything but the body; method to headers are as in ``SignedRequest``.

    :param now: the service's clock, aware.
    :param service: the service that the signature must be scoped to.
    :param regions: the regions that it may be scoped to; None for any, the region being the caller's choice.
    :raises SignatureError: any of the codes but the last two.
    """
    sent = _Fields((name, " ".join(value.split())) for name, value in headers)
    pairs = [(name, value) for name, _, value in (pair.partition("=") for pair in query.split("&") if query)]
    in_query = _Fields((name[6:], unquote(value)) for name, value in pairs if name.startswith("X-Amz-"))
    presigned = "Algorithm" in in_query
    proof = in_query if presigned else _authorization(sent)
    if presigned:
        # The one thing that a signature can't sign is itself.
        pairs = [pair for pair in pairs if pair[0] != "X-Amz-Signature"]
        if "authorization" in sent:
            raise SignatureError(INCOMPLETE, "Sign in the query or in the Authorization header, not in both.")
    if proof.required("Algorithm") != ALGORITHM:
        raise SignatureError(INCOMPLETE, f"The algorithm must be {ALGORITHM}.")
    credential = _CREDENTIAL.fullmatch(proof.required("Credential"))
    if not credential:
        raise SignatureError(INCOMPLETE, "'Credential' must be key/date/region/service/aws4_request.")
    signature = proof.required("Signature")
    if not _SHA256.fullmatch(signature):
        raise SignatureError(INCOMPLETE, "'Signature' must be 64 lower-case hexadecimal digits.")
    signed = proof.required("SignedHeaders").split(";")
    if signed != sorted(set(signed)):
        # Else a long header that is named a thousand times is copied a thousand times, for anybody.
        raise SignatureError(INCOMPLETE, "'SignedHeaders' must be sorted, and name each header once.")
    body_sha256 = sent.one("x-amz-content-sha256")
    if service == _S3:
        body_sha256 = body_sha256 or (UNSIGNED_PAYLOAD if presigned else "")
        if not (body_sha256 in S3_PAYLOADS or _SHA256.fullmatch(body_sha256)):
            raise SignatureError(
                INCOMPLETE, "'x-amz-content-sha256' must be the body's hash, or say how it is protected."
            )
    elif body_sha256 and not _SHA256.fullmatch(body_sha256):
        raise SignatureError(INCOMPLETE, "The body must be signed, 'x-amz-content-sha256' be its hash.")
    tokens = sent.get("x-amz-security-token", []) + in_query.get("Security-Token", [])
    if len(tokens) > 1:
        raise SignatureError(INCOMPLETE, "There must be only one security token.")

    timestamp = proof.required("Date")
    access_key_id, scope = credential.groups()
    _check_date(timestamp, _lifetime(proof.required("Expires")) if presigned else CLOCK_SKEW, now)
    _check_scope(scope, timestamp[:8], service, regions)
    _check_signed(signed, sent)
    canonical_query = "&".join(f"{name}={value}" for name, value in sorted(pairs))
    canonical_headers = (f"{name}:{','.join(sent[name])}" for name in signed)
    canonical_path = path if service == _S3 else _canonical_path(path)
    head = method.upper(), canonical_path, canonical_query, *canonical_headers, "", ";".join(signed)
    return Claim(
        access_key_id=access_key_id,
        scope=scope,
        timestamp=timestamp,
        received_at=now,
        body_sha256=body_sha256,
        session_token="".join(tokens),
        canonical_head="\n".join(head),
        signature=signature,
    )


class _Fields(dict[str, list[str]]):
    """Names with all the values that each was given."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        super().__init__()
        for name, value in pairs:
            self.setdefault(name, []).append(value)

    def one(self, name: str) -> str:
        """Return the only value, or an empty string if there is none."""
        values = self.get(name, [""])
        if len(values) > 1:
            raise SignatureError(INCOMPLETE, f"'{name}' must be given once.")
        return values[0]

    def required(self, name: str) -> str:
        value = self.one(name)
        if not value:
            raise SignatureError(INCOMPLETE, f"The signature requires '{name}'.")
        return value


def _authorization(sent: _Fields) -> _Fields:
    authorization = sent.one("authorization")
    if not authorization:
        raise SignatureError(UNSIGNED, "Missing Authentication Token: the request is not signed.")
    algorithm, _, rest = authorization.partition(" ")
    parts = (part.strip().partition("=") for part in rest.split(","))
    date = sent.one("x-amz-date") or _from_http_date(sent.required("date"))
    return _Fields([("Algorithm", algorithm), ("Date", date), *((name, value) for name, _, value in parts)])


def _from_http_date(date: str) -> str:
    try:
        moment = parsedate_to_datetime(date)
    except (ValueError, OverflowError):
        raise SignatureError(INCOMPLETE, "Without 'X-Amz-Date', 'Date' must be an HTTP date.") from None
    # HTTP dates are UTC, whatever they say of their zone: botocore writes "-0000".
    return f"{moment:%Y%m%dT%H%M%SZ}"


def _lifetime(expires: str) -> timedelta:
    seconds = int(expires) if re.fullmatch("[0-9]{1,6}", expires) else 0
    if not 1 <= seconds <= LONGEST_PRESIGNED:
        raise SignatureError(INCOMPLETE, f"'X-Amz-Expires' must be 1 to {LONGEST_PRESIGNED} seconds.")
    return timedelta(seconds=seconds)


def _check_date(timestamp: str, lifetime: timedelta, now: datetime) -> None:
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


def _check_scope(scope: str, day: str, service: str, regions: Collection[str] | None) -> None:
    scope_day, region, scope_service, terminator = scope.split("/")
    for holds, wanted in (
        (scope_day == day, f"to the date of the request: '{day}'"),
        (_REGION.fullmatch(region) and (regions is None or region in regions), "to a valid region"),
        (scope_service == service, f"to correct service: '{service}'"),
        (terminator == "aws4_request", "with a valid terminator: 'aws4_request'"),
    ):
        if not holds:
            raise SignatureError(WRONG_SCOPE, f"Credential should be scoped {wanted}.")


def _check_signed(signed: Collection[str], sent: Collection[str]) -> None:
    weighty = {name for name in sent if name.startswith("x-amz-") or name == "x-amzn-client-token"} | {"host"}
    for name in weighty.difference(signed):
        raise SignatureError(INVALID, f"'{name}' must be one of the SignedHeaders.")
    for name in signed:
        if name not in sent:
            raise SignatureError(INVALID, f"'{name}' is one of the SignedHeaders, but not in the request.")


def _canonical_path(path: str) -> str:
    normal = posixpath.normpath("/" + path.lstrip("/"))
    closing = "/" if path.endswith("/") and normal != "/" else ""
    # Encoded by the client, and encoded once more to be signed: only S3 signs the path as it is.
    return quote(normal + closing, safe="/~", errors="surrogatepass")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
