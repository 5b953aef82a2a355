"""Who a request says has signed it, and the proof: the HMAC over its canonical form."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from datetime import datetime

from airflow_provider_lookoutvision.server.protocol.sigv4.errors import (
    EXPIRED_KEY,
    INVALID,
    UNKNOWN_KEY,
    SignatureError,
)

ALGORITHM = "AWS4-HMAC-SHA256"
UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"
UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
SIGNED_CHUNKS = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
SIGNED_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
S3_PAYLOADS = frozenset({UNSIGNED_PAYLOAD, UNSIGNED_TRAILER, SIGNED_CHUNKS, SIGNED_TRAILER})


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
    """Who a request says has signed it: in good form and in time, but not proven yet.

    :param allows_unsigned_body: whether ``verify`` takes a claim that says that its body isn't signed.
    """

    access_key_id: str
    scope: str
    timestamp: str
    received_at: datetime
    body_sha256: str
    session_token: str = field(repr=False)
    canonical_head: str = field(repr=False)
    signature: str = field(repr=False)
    allows_unsigned_body: bool = False

    def verify(self, credential: Credential | None, body: bytes) -> Signature:
        """Prove the claim.

        :param credential: what is kept for ``access_key_id``; None if that is unknown.
        :raises SignatureError: InvalidSignatureException, UnrecognizedClientException, ExpiredTokenException.
        """
        if self.body_sha256 != UNSIGNED_PAYLOAD:
            return self.prove(credential, hashlib.sha256(body).hexdigest())
        signature = self.prove(credential, UNSIGNED_PAYLOAD)
        if not self.allows_unsigned_body:
            raise SignatureError(
                INVALID,
                f"The body must be signed: {UNSIGNED_PAYLOAD} is accepted for the image of DetectAnomalies"
                " alone, over TLS or within the machine. Send the body as bytes, not as a stream.",
            )
        return signature

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


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
