"""Reads the claim from a request: from the Authorization header, or from the query of a presigned URL."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from urllib.parse import quote, unquote

from airflow_provider_lookoutvision.server.protocol.sigv4.claim import (
    ALGORITHM,
    S3_PAYLOADS,
    UNSIGNED_PAYLOAD,
    Claim,
    Credential,
    Signature,
)
from airflow_provider_lookoutvision.server.protocol.sigv4.errors import (
    INCOMPLETE,
    UNSIGNED,
    SignatureError,
)
from airflow_provider_lookoutvision.server.protocol.sigv4.rules import (
    CLOCK_SKEW,
    check_date,
    check_scope,
    check_signed,
    lifetime,
)

_S3 = "s3"
_SCOPED_TO = re.compile(r"Credential=[^/,\s]+/[0-9]+/[^/,\s]+/([^/,\s]+)/")
_CREDENTIAL = re.compile(r"([A-Za-z0-9_-]{1,128})/([0-9]{8}/[^/]+/[^/]+/[^/]+)")
_SHA256 = re.compile(r"[0-9a-f]{64}")


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
    elif body_sha256 not in {"", UNSIGNED_PAYLOAD} and not _SHA256.fullmatch(body_sha256):
        raise SignatureError(INCOMPLETE, "The body must be signed, 'x-amz-content-sha256' be its hash.")
    tokens = sent.get("x-amz-security-token", []) + in_query.get("Security-Token", [])
    if len(tokens) > 1:
        raise SignatureError(INCOMPLETE, "There must be only one security token.")

    timestamp = proof.required("Date")
    access_key_id, scope = credential.groups()
    check_date(timestamp, lifetime(proof.required("Expires")) if presigned else CLOCK_SKEW, now)
    check_scope(scope, timestamp[:8], service, regions)
    check_signed(signed, sent)
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


def _canonical_path(path: str) -> str:
    normal = posixpath.normpath("/" + path.lstrip("/"))
    closing = "/" if path.endswith("/") and normal != "/" else ""
    # Encoded by the client, and encoded once more to be signed: only S3 signs the path as it is.
    return quote(normal + closing, safe="/~", errors="surrogatepass")
