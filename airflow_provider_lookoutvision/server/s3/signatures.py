"""Who signed a request of S3, and what it may do.

Signature Version 4 is ``protocol.sigv4``'s, with S3's rules. Besides, a URL may be signed by Version 2, since
that is how boto3 presigns for S3 in the older regions, us-east-1 among them, unless configured otherwise.

A key may use the buckets that its patterns admit, and in them what its actions allow, by the names that IAM
has for S3's: ``s3:GetObject``, ``s3:PutObject``, ``s3:ListBucket`` and so on. ``*`` allows all of them.
"""

from __future__ import annotations

import base64
import hmac
import re
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import unquote

from airflow_provider_lookoutvision.server.calls.access import Caller
from airflow_provider_lookoutvision.server.protocol import sigv4
from airflow_provider_lookoutvision.server.s3.errors import S3Error
from airflow_provider_lookoutvision.server.storage.wildcards import matches

SERVICE = "s3"
_CODES = {
    sigv4.UNSIGNED: "AccessDenied",
    sigv4.INCOMPLETE: "AuthorizationHeaderMalformed",
    sigv4.EXPIRED: "RequestTimeTooSkewed",
    sigv4.FUTURE: "RequestTimeTooSkewed",
    sigv4.WRONG_SCOPE: "AuthorizationHeaderMalformed",
    sigv4.INVALID: "SignatureDoesNotMatch",
    sigv4.UNKNOWN_KEY: "InvalidAccessKeyId",
    sigv4.EXPIRED_KEY: "ExpiredToken",
}
# What IAM calls what an operation does; by its own name unless it is here.
_ACTIONS = {
    "CompleteMultipartUpload": "PutObject",
    "CopyObject": "PutObject",
    "CreateMultipartUpload": "PutObject",
    "DeleteObjects": "DeleteObject",
    "HeadBucket": "ListBucket",
    "HeadObject": "GetObject",
    "ListBuckets": "ListAllMyBuckets",
    "ListMultipartUploads": "ListBucketMultipartUploads",
    "ListObjects": "ListBucket",
    "ListObjectsV2": "ListBucket",
    "ListParts": "ListMultipartUploadParts",
    "UploadPart": "PutObject",
    "UploadPartCopy": "PutObject",
}
# The parameters that Version 2 signs, besides the path.
_V2_SIGNED = {
    *("acl", "cors", "delete", "lifecycle", "location", "logging", "notification", "partNumber", "policy"),
    *("requestPayment", "response-cache-control", "response-content-disposition"),
    *("response-content-encoding", "response-content-language", "response-content-type", "response-expires"),
    *(
        "restore",
        "tagging",
        "torrent",
        "uploadId",
        "uploads",
        "versionId",
        "versioning",
        "versions",
        "website",
    ),
}


@dataclass(frozen=True)
class PresignedV2:
    """What a URL that is signed by Version 2 says of its signer.

    :param headers: those that were signed and travel in the query.
    """

    access_key_id: str
    expires: int
    string_to_sign: str
    signature: str
    headers: Mapping[str, str]

    def prove(self, secret: str | None, now: float) -> None:
        """Prove it.

        :raises S3Error: AccessDenied, InvalidAccessKeyId, SignatureDoesNotMatch.
        """
        key = (secret or "nobody's").encode()
        expected = base64.b64encode(hmac.digest(key, self.string_to_sign.encode(), "sha1"))
        proven = hmac.compare_digest(expected, self.signature.encode("utf-8", "replace"))
        if secret is None:
            raise unknown_key(self.access_key_id)
        if not proven:
            raise S3Error("SignatureDoesNotMatch", _MISMATCH)
        if now > self.expires:
            raise S3Error("AccessDenied", "Request has expired", Expires=self.expires)


_MISMATCH = (
    "The request signature we calculated does not match the signature you provided. Check your key and "
    "signing method."
)


def service_of(authorization: str, query: str) -> str:
    """The service that a request is signed for, as far as it says so."""
    if not authorization and "&Signature=" in f"&{query}" and "&AWSAccessKeyId=" in f"&{query}":
        return SERVICE
    return sigv4.scoped_service(authorization, query)


def parse(
    method: str,
    path: str,
    query: str,
    headers: Sequence[tuple[str, str]],
    now: datetime,
    regions: Collection[str] | None,
) -> sigv4.Claim | PresignedV2:
    """What a request says of its signer.

    :raises S3Error: with the codes that S3 has for the faults of ``protocol.sigv4``.
    """
    if service_of("", query) == SERVICE and "X-Amz-Credential=" not in query:
        return _presigned_v2(method, path, query, headers)
    try:
        return sigv4.parse(method, path, query, headers, now=now, service=SERVICE, regions=regions)
    except sigv4.SignatureError as error:
        raise refusal(error, is_presigned="X-Amz-Credential=" in query) from None


def prove(claim: sigv4.Claim | PresignedV2, secret: str | None, default_region: str) -> str:
    """Prove the claim, the body aside; the region that it is signed for.

    :param secret: of the access key; None where there is no such key.
    """
    if isinstance(claim, PresignedV2):
        claim.prove(secret, time.time())
        return default_region
    try:
        credential = sigv4.Credential(secret) if secret is not None else None
        return claim.prove(credential, claim.body_sha256).region
    except sigv4.SignatureError as error:
        raise refusal(error) from None


def refusal(error: sigv4.SignatureError, *, is_presigned: bool = False) -> S3Error:
    """The error of S3 for a fault of a signature."""
    if is_presigned and error.code == sigv4.EXPIRED:
        return S3Error("AccessDenied", f"Request has expired. {error.message}")
    if is_presigned and error.code == sigv4.INCOMPLETE:
        return S3Error("AuthorizationQueryParametersError", error.message)
    return S3Error(_CODES[error.code], error.message)


def unknown_key(access_key_id: str) -> S3Error:
    """There is no such key."""
    return S3Error(
        "InvalidAccessKeyId",
        "The AWS Access Key Id you provided does not exist in our records.",
        AWSAccessKeyId=access_key_id,
    )


def authorize(caller: Caller, operation: str, bucket: str = "") -> None:
    """Check that a key allows an operation, on a bucket where there is one.

    :raises S3Error: AccessDenied.
    """
    action = f"{SERVICE}:{_ACTIONS.get(operation, operation)}"
    patterns = [pattern.lower() for pattern in caller.key.allowed_actions]
    if matches(patterns, action.lower()) and (not bucket or caller.sees_bucket(bucket)):
        return
    resource = f"arn:aws:s3:::{bucket}" if bucket else "*"
    raise S3Error(
        "AccessDenied", f"User: {caller.user} is not authorized to perform: {action} on resource: {resource}"
    )


def _presigned_v2(method: str, path: str, query: str, headers: Sequence[tuple[str, str]]) -> PresignedV2:
    pairs = [(name, value) for name, _, value in (pair.partition("=") for pair in query.split("&"))]
    given: Mapping[str, str] = {name: unquote(value) for name, value in pairs}
    expires = given.get("Expires", "")
    if not re.fullmatch("[0-9]{1,12}", expires):
        raise S3Error("AccessDenied", "Query-string authentication requires the Expires parameter")
    sent: dict[str, str] = {}
    for name, value in headers:
        sent[name] = f"{sent[name]},{value.strip()}" if name in sent else value.strip()
    in_query = {
        name: value
        for name, value in given.items()
        if name not in sent and (name.startswith("x-amz-") or name in {"content-md5", "content-type"})
    }
    sent |= in_query
    standard = "\n".join(sent.get(name, "") for name in ("content-md5", "content-type"))
    amz = "".join(f"{name}:{sent[name]}\n" for name in sorted(sent) if name.startswith("x-amz-"))
    parts = sorted((pair.partition("=") for pair in query.split("&")), key=lambda parts: parts[0])
    resource = "&".join(name + equals + unquote(value) for name, equals, value in parts if name in _V2_SIGNED)
    text = f"{method}\n{standard}\n{expires}\n{amz}{path}{'?' + resource if resource else ''}"
    access_key_id, signature = given.get("AWSAccessKeyId", ""), given.get("Signature", "")
    return PresignedV2(access_key_id, int(expires), text, signature, in_query)
