"""Each fault of a signature has its own error code."""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from botocore.auth import SigV4Auth
from sigv4_requests import (
    KEY,
    ME,
    REGION,
    SECRET,
    error_code,
    presign,
    sign,
    signed_at,
    verify,
    with_authorization,
    with_header,
    with_more_headers,
    without_header,
)

from airflow_provider_lookoutvision.server.protocol.sigv4 import (
    Credential,
    SignatureError,
    parse,
)

# Each fault has its own code.


def test_an_unsigned_request():
    request = without_header(sign(), "authorization")
    assert error_code(request) == "MissingAuthenticationTokenException"
    assert (
        error_code(with_more_headers(request, ("authorization", ""))) == "MissingAuthenticationTokenException"
    )


def test_a_request_that_is_too_old():
    request = sign()
    assert error_code(request, now=signed_at(request) + timedelta(minutes=15, seconds=1)) == "RequestExpired"
    assert error_code(request, now=datetime.max.replace(tzinfo=UTC)) == "RequestExpired"


@pytest.mark.parametrize("make", [sign, presign])
def test_a_request_from_the_future(make):
    now = datetime.now(UTC) - timedelta(minutes=15, seconds=2)
    assert error_code(make(), now=now) == "RequestInTheFuture"


def test_a_body_that_is_not_signed():
    request = sign(headers=[("X-Amz-Content-SHA256", "UNSIGNED-PAYLOAD")])
    assert error_code(request) == "InvalidSignatureException"
    line = request.method, request.path, request.query, request.headers
    claim = replace(parse(*line, now=signed_at(request)), allows_unsigned_body=True)
    assert claim.verify(Credential(SECRET), b"any other body") == ME
    for credential, code in ((Credential("not this"), "InvalidSig"), (None, "UnrecognizedClient")):
        with pytest.raises(SignatureError, match=code):
            claim.verify(credential, request.body)
    # Who signed the body's hash, or nothing of it, has signed the body all the same.
    for headers in ([], [("X-Amz-Content-SHA256", hashlib.sha256(b"body").hexdigest())]):
        request = sign(body=b"body", headers=headers)
        line = request.method, request.path, request.query, request.headers
        claim = replace(parse(*line, now=signed_at(request)), allows_unsigned_body=True)
        assert claim.verify(Credential(SECRET), b"body") == ME
        with pytest.raises(SignatureError, match="InvalidSignature"):
            claim.verify(Credential(SECRET), b"another")


def test_a_key_that_is_unknown():
    assert error_code(sign(key="NOBODYSKEY")) == "UnrecognizedClientException"
    assert error_code(sign(), known={}) == "UnrecognizedClientException"


@pytest.mark.parametrize(
    ("options", "regions", "said"),
    [
        ({"service": "rekognition"}, None, "correct service: 'lookoutvision'"),
        ({"region": "us-east-1"}, {REGION}, "valid region"),
        ({"region": "EU central"}, None, "valid region"),
        ({"region": "-"}, None, "valid region"),
        ({"region": "r" * 64}, None, "valid region"),
    ],
)
@pytest.mark.parametrize("make", [sign, presign])
def test_a_signature_for_somewhere_else(make, options, regions, said):
    with pytest.raises(SignatureError, match=said) as caught:
        verify(make(**options), regions=regions)
    assert caught.value.code == "AuthorizationHeaderMalformed"


@pytest.mark.parametrize(
    ("old", "new"), [("aws4_request", "aws4_reply"), (f"{KEY}/20", f"{KEY}/19")], ids=["terminator", "day"]
)
def test_a_scope_that_no_request_has(old, new):
    assert error_code(with_authorization(sign(), old, new)) == "AuthorizationHeaderMalformed"


def test_a_signature_by_another_secret():
    assert error_code(sign(secret=SECRET[:-1])) == "InvalidSignatureException"
    assert error_code(presign(secret=SECRET[:-1])) == "InvalidSignatureException"


def test_the_host_must_be_signed():
    with pytest.raises(SignatureError, match="'host' must be one of the SignedHeaders") as caught:
        verify(with_authorization(sign(), "SignedHeaders=host;", "SignedHeaders="))
    assert caught.value.code == "InvalidSignatureException"


@pytest.mark.parametrize(
    "name", ["x-amz-target", "x-amz-security-token", "x-amz-content-sha256", "x-amzn-client-token"]
)
@pytest.mark.parametrize("make", [sign, presign])
def test_a_header_of_weight_must_be_signed(make, name):
    request = with_more_headers(make(), (name, hashlib.sha256(b"").hexdigest()))
    with pytest.raises(SignatureError, match=f"'{name}' must be one of the SignedHeaders") as caught:
        verify(request)
    assert caught.value.code == "InvalidSignatureException"


def test_a_signed_header_that_was_lost_on_the_way():
    request = without_header(sign(headers=[("Accept", "*/*")]), "accept")
    with pytest.raises(
        SignatureError, match="'accept' is one of the SignedHeaders, but not in the request"
    ) as caught:
        verify(request)
    assert caught.value.code == "InvalidSignatureException"


class HashesTheBodyAnyway(SigV4Auth):
    """A signer that puts the body's own hash into the canonical request, whatever hash the header claims."""

    def canonical_request(self, request):
        return super().canonical_request(request).rpartition("\n")[0] + "\n" + self.payload(request)


@pytest.mark.parametrize("signer", [SigV4Auth, HashesTheBodyAnyway])
def test_a_content_hash_of_another_body(signer):
    claimed = hashlib.sha256(b"1").hexdigest()
    request = sign(headers=[("X-Amz-Content-SHA256", claimed)], body=b"2", signer=signer)
    assert error_code(request) == "InvalidSignatureException"


INCOMPLETE = {
    "another scheme": lambda: with_header(sign(), "authorization", "Basic dXNlcjpwYXNz"),
    "another algorithm": lambda: with_authorization(sign(), "AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256"),
    "an algorithm alone": lambda: with_header(sign(), "authorization", "AWS4-HMAC-SHA256"),
    "no credential": lambda: with_authorization(sign(), "Credential=", "Credentials="),
    "no signed headers": lambda: with_authorization(sign(), "SignedHeaders=", "Signed="),
    "no signature": lambda: with_authorization(sign(), "Signature=", "Signature=,Other="),
    "two signatures": lambda: with_authorization(sign(), "Signature=", f"Signature={'0' * 64}, Signature="),
    "a short scope": lambda: with_authorization(sign(), f"/{REGION}", ""),
    "a long scope": lambda: with_authorization(sign(), "/aws4_request", "/aws4_request/aws4_request"),
    "no key": lambda: with_authorization(sign(), KEY, ""),
    "a key no database can hold": lambda: replace(presign(), query=presign().query.replace(KEY, "%00")),
    "a key beyond ASCII": lambda: with_authorization(sign(), KEY, "schlüssel"),
    "a huge key": lambda: with_authorization(sign(), KEY, "k" * 60_000),
    "a signature in upper case": lambda: with_authorization(sign(), "Signature=", "Signature=ABCDEF"),
    "unsorted names": lambda: with_authorization(sign(), "host;x-amz-date", "x-amz-date;host"),
    "a name given often": lambda: with_authorization(sign(), "host;", "host;" * 9999),
    "two authorizations": lambda: with_more_headers(sign(), ("authorization", "Basic dXNlcjpwYXNz")),
    "two dates": lambda: with_more_headers(sign(), ("x-amz-date", "20240101T000000Z")),
    "no date": lambda: without_header(sign(), "x-amz-date"),
    "not a date": lambda: with_header(sign(), "x-amz-date", "now"),
    "a date in the extended format": lambda: with_header(sign(), "x-amz-date", "2024-01-31T00:00:00Z"),
    "a date without a zone": lambda: with_header(sign(), "x-amz-date", "20240131T000000"),
    "not a day": lambda: with_header(sign(), "x-amz-date", "20250230T000000Z"),
    "a date in other digits": lambda: with_header(
        sign(), "x-amz-date", "\N{FULLWIDTH DIGIT TWO}0240101T000000Z"
    ),
    "not an HTTP date": lambda: with_more_headers(without_header(sign(), "x-amz-date"), ("date", "tomorrow")),
    "a date beyond all numbers": lambda: with_more_headers(
        without_header(sign(), "x-amz-date"), ("date", f"Thu, 01 Jan 1970 00:00:{'9' * 30} GMT")
    ),
    "a chunk-signed body": lambda: sign(
        headers=[("X-Amz-Content-SHA256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD")]
    ),
    "an unsigned trailer": lambda: sign(
        headers=[("X-Amz-Content-SHA256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER")]
    ),
    "two tokens": lambda: with_more_headers(sign(token="one"), ("x-amz-security-token", "two")),
    "a token here and there": lambda: presign(headers=[("X-Amz-Security-Token", "one")], token="two"),
    "signed here and there": lambda: with_more_headers(presign(), ("authorization", "AWS4-HMAC-SHA256 ")),
    "presigned for ever": lambda: presign(expires=604801),
    "presigned for no time": lambda: presign(expires=0),
    "presigned for less": lambda: presign(expires=-1),
    "presigned for a word": lambda: presign(expires="hour"),
    "presigned for an eternity": lambda: presign(expires="9" * 5000),
    "presigned without expiry": lambda: replace(
        presign(), query=presign().query.replace("X-Amz-Expires", "E")
    ),
    "presigned without date": lambda: replace(presign(), query=presign().query.replace("X-Amz-Date", "D")),
    "presigned twice": lambda: replace(presign(), query=presign().query + "&X-Amz-Signature=" + "0" * 64),
}


@pytest.mark.parametrize("make", INCOMPLETE.values(), ids=INCOMPLETE.keys())
def test_a_signature_that_is_malformed(make):
    assert error_code(make()) == "IncompleteSignatureException"


@pytest.mark.parametrize("make", [sign, presign])
@pytest.mark.parametrize(("kept", "sent"), [("right", "wrong"), ("right", None), (None, "stray"), ("ü", "u")])
def test_a_session_token_must_be_the_keys(make, kept, sent):
    known = {KEY: Credential(SECRET, kept)}
    assert error_code(make(token=sent), known=known) == "UnrecognizedClientException"
    assert verify(make(token=kept), known=known) == ME


def test_the_error_for_a_wrong_secret_does_not_depend_on_the_token():
    known = {KEY: Credential(SECRET, "right")}
    assert error_code(sign(secret="guessed", token="right"), known=known) == "InvalidSignatureException"
    assert error_code(sign(secret="guessed", token="wrong"), known=known) == "InvalidSignatureException"


@pytest.mark.parametrize("make", [sign, presign])
def test_temporary_credentials_end(make):
    now = datetime.now(UTC)
    known = {KEY: Credential(SECRET, "token", expires_at=now)}
    assert error_code(make(token="token"), known=known, now=now) == "ExpiredTokenException"
    assert verify(make(token="token"), known=known, now=now - timedelta(seconds=1)) == ME
