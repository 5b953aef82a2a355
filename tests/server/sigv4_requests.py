"""Requests signed by botocore, changes to them, and what the verifier makes of them."""

from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import parse_qsl, quote, urlsplit

import pytest
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from airflow_provider_lookoutvision.server.protocol import sigv4
from airflow_provider_lookoutvision.server.protocol.sigv4 import (
    Credential,
    Signature,
    SignatureError,
    SignedRequest,
)

HOST = "127.0.0.1:8320"


KEY = "LVKEY0123456789ABCDE"


SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"


REGION = "eu-central-1"


PROJECTS = "/2020-11-20/projects"


ARN = "arn:aws:lookoutvision:eu-central-1:123456789012:model/line 7/1"


TAGS = "/2020-11-20/tags/" + quote(ARN, safe="")


ME = Signature(KEY, REGION)


class SignsEverything(SigV4Auth):
    """Old botocore, and SDKs that leave out less than today's botocore does: user-agent is signed too."""

    def headers_to_sign(self, request):
        chosen = super().headers_to_sign(request)
        left_out = (
            {name.lower() for name in request.headers} - {name.lower() for name in chosen} - {"authorization"}
        )
        for name, value in request.headers.items():
            if name.lower() in left_out:
                chosen[name.lower()] = value
        return chosen


def sign(
    method="POST",
    path=PROJECTS,
    query="",
    headers=(),
    body=b"",
    *,
    signer=SigV4Auth,
    key=KEY,
    secret=SECRET,
    token=None,
    region=REGION,
    service="lookoutvision",
    **options,
):
    request = AWSRequest(method, f"http://{HOST}{path}" + (f"?{query}" if query else ""), data=body)
    for name, value in [("Host", HOST), *headers]:
        request.headers[name] = value
    signer(Credentials(key, secret, token), service, region, **options).add_auth(request)
    sent = urlsplit(request.url)
    return SignedRequest(
        method,
        sent.path,
        sent.query,
        [(name.lower(), value) for name, value in request.headers.items()],
        body,
    )


def presign(method="GET", path=PROJECTS, query="", headers=(), *, expires=3600, **options):
    return sign(method, path, query, headers, signer=SigV4QueryAuth, expires=expires, **options)


def verify(request, *, known=None, now=None, **options):
    known = {KEY: Credential(SECRET)} if known is None else known
    return sigv4.verify(request, credential=known.get, now=now or datetime.now(UTC), **options)


def error_code(request, **options):
    with pytest.raises(SignatureError) as caught:
        verify(request, **options)
    assert caught.value.status == 403
    assert caught.value.message
    return caught.value.code


def accepted(request):
    try:
        return verify(request) == ME
    except SignatureError:
        return False


def header(request, name):
    return next(value for sent, value in request.headers if sent == name)


def with_header(request, name, value):
    """The request with a header's value changed, after it was signed."""
    changed = [(sent, value if sent == name else old) for sent, old in request.headers]
    return replace(request, headers=changed)


def without_header(request, name):
    return replace(request, headers=[(sent, value) for sent, value in request.headers if sent != name])


def with_more_headers(request, *more):
    return replace(request, headers=[*request.headers, *more])


def with_authorization(request, old, new):
    authorization = header(request, "authorization")
    assert old in authorization
    return with_header(request, "authorization", authorization.replace(old, new))


def signed_at(request):
    date = dict(parse_qsl(request.query)).get("X-Amz-Date") or header(request, "x-amz-date")
    return datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
