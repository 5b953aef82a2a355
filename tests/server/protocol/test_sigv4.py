"""The verifier beside botocore's signer: what botocore signs passes, what it would sign otherwise doesn't."""

import hashlib
import http.client
import http.server
import io
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, quote, urlsplit

import boto3
import botocore.exceptions
import pytest
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_lookoutvision.model import teach
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

# A busy machine is no fault of the code.
calmly = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


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


def refusal(request, **options):
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


# What AWS publishes, so that the oracle and the verifier can't share a mistake.


def published(scope, signed, signature):
    return f"AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/{scope}, SignedHeaders={signed}, Signature={signature}"


def test_the_vector_of_the_sigv4_test_suite_passes():
    request = SignedRequest(
        "GET",
        "/",
        "",
        [
            ("host", "example.amazonaws.com"),
            ("x-amz-date", "20150830T123600Z"),
            (
                "authorization",
                published(
                    "20150830/us-east-1/service/aws4_request",
                    "host;x-amz-date",
                    "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
                ),
            ),
        ],
        b"",
    )
    now = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)
    signature = verify(request, known={"AKIDEXAMPLE": Credential(SECRET)}, now=now, service="service")
    assert signature == Signature("AKIDEXAMPLE", "us-east-1")


def test_the_example_of_the_iam_user_guide_passes():
    request = SignedRequest(
        "GET",
        "/",
        "Action=ListUsers&Version=2010-05-08",
        [
            ("content-type", "application/x-www-form-urlencoded; charset=utf-8"),
            ("host", "iam.amazonaws.com"),
            ("x-amz-date", "20150830T123600Z"),
            (
                "authorization",
                published(
                    "20150830/us-east-1/iam/aws4_request",
                    "content-type;host;x-amz-date",
                    "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7",
                ),
            ),
        ],
        b"",
    )
    now = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)
    signature = verify(request, known={"AKIDEXAMPLE": Credential(SECRET)}, now=now, service="iam")
    assert signature == Signature("AKIDEXAMPLE", "us-east-1")


# What boto3 really sends.


@pytest.fixture(scope="module")
def wire():
    """A server that keeps what it hears: its URL, and the list of requests."""
    heard = []

    class Ear(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def keep(self):
            path, _, query = self.path.partition("?")
            headers = [(name.lower(), value) for name, value in self.headers.items()]
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            heard.append(SignedRequest(self.command, path, query, headers, body))
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        do_GET = do_POST = do_PATCH = do_DELETE = keep  # noqa: N815

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Ear) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", heard
        server.shutdown()
        thread.join()


def client(url, **session):
    session = teach(boto3.Session(KEY, SECRET, region_name=REGION, **session))
    return session.client("lookoutvision", endpoint_url=url, config=Config(retries={"total_max_attempts": 1}))


CALLS = {
    "no body": lambda lookout: lookout.list_projects(),
    "a query to encode": lambda lookout: lookout.list_projects(MaxResults=7, NextToken="a+/b=c d~é"),
    "a client token": lambda lookout: lookout.create_project(ProjectName="line-7", ClientToken="once"),
    "an ARN in the path": lambda lookout: lookout.list_tags_for_resource(ResourceArn=ARN),
    "a body of unicode": lambda lookout: lookout.tag_resource(
        ResourceArn=ARN, Tags=[{"Key": "Schicht", "Value": "früh"}]
    ),
    "a repeated parameter": lambda lookout: lookout.untag_resource(
        ResourceArn=ARN, TagKeys=["b", "ä", "a b"]
    ),
    "an image": lambda lookout: lookout.detect_anomalies(
        ProjectName="line-7", ModelVersion="1", ContentType="image/png", Body=bytes(range(256)) * 500
    ),
    "an image from a file": lambda lookout: lookout.detect_anomalies(
        ProjectName="line-7",
        ModelVersion="1",
        ContentType="image/jpeg",
        Body=io.BytesIO(b"\xff\xd8" * 70_000),
    ),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_what_boto3_sends_passes(wire, call):
    url, heard = wire
    try:
        call(client(url))
    except botocore.exceptions.ResponseParserError as error:
        raise AssertionError("the ear must answer what botocore can read") from error
    assert verify(heard[-1]) == ME


def test_what_boto3_sends_with_a_session_token_passes(wire):
    url, heard = wire
    client(url, aws_session_token="IQoJb3JpZ2luX2VjE+/==").list_projects()
    known = {KEY: Credential(SECRET, "IQoJb3JpZ2luX2VjE+/==", datetime.now(UTC) + timedelta(hours=1))}
    assert verify(heard[-1], known=known) == ME


def test_a_url_that_boto3_presigned_passes(wire):
    url, heard = wire
    presigned = urlsplit(
        client(url).generate_presigned_url(
            "list_dataset_entries",
            {"ProjectName": "line-7", "DatasetType": "train", "SourceRefContains": "ü b"},
            ExpiresIn=60,
        )
    )
    connection = http.client.HTTPConnection(presigned.netloc)
    connection.request("GET", f"{presigned.path}?{presigned.query}")
    connection.getresponse().read()
    connection.close()
    assert "X-Amz-Signature" in heard[-1].query
    assert verify(heard[-1]) == ME


# Whatever botocore's signer can be given.

ASCII = st.characters(min_codepoint=0x21, max_codepoint=0x7E)
encoded = st.text(max_size=6).map(lambda text: quote(text, safe=""))
raw_in_path = st.text(ASCII.filter(lambda character: character not in "?#"), max_size=6)
raw_in_query = st.text(ASCII.filter(lambda character: character not in "#&"), max_size=6)
segment = st.one_of(
    encoded, raw_in_path, st.sampled_from(["", ".", "..", "%2F", "%2f", "%252F", "a+b", quote(ARN, "")])
)
paths = st.lists(segment, max_size=6).map(lambda segments: "".join("/" + one for one in segments))
pairs = st.one_of(
    raw_in_query,
    encoded,
    st.tuples(st.sampled_from(["a", "tagKeys", "%C3%A4"]) | encoded, encoded).map("=".join),
)
queries = st.lists(pairs, max_size=5).map("&".join)
values = st.text(
    st.sampled_from("ab,; \t\xa0\x85é\"'=") | st.characters(min_codepoint=0x20, max_codepoint=0x7E),
    max_size=12,
)
names = st.sampled_from(
    [
        "Content-Type",
        "X-Amzn-Client-Token",
        "X-Amz-Target",
        "Accept",
        "User-Agent",
        "X-Amzn-Trace-Id",
        "If-Match",
    ]
)
anything = st.lists(st.sampled_from("\ud800\udcff\0\n%/=;,") | st.characters()).map("".join)
requests = st.fixed_dictionaries(
    {
        "method": st.sampled_from(["GET", "POST", "PATCH", "DELETE", "PUT", "get"]),
        "path": paths,
        "query": queries,
        "headers": st.lists(st.tuples(names, values), max_size=6),
        "body": st.binary(max_size=40),
    }
)


@calmly
@given(requests, st.sampled_from([SigV4Auth, SignsEverything]))
def test_whatever_botocore_signs_passes(parts, signer):
    assert verify(sign(**parts, signer=signer)) == ME


@calmly
@given(requests, st.integers(1, 604800))
def test_whatever_botocore_presigns_passes(parts, expires):
    del parts["body"]
    request = presign(**parts, expires=expires)
    assert verify(request, now=signed_at(request) + timedelta(seconds=expires)) == ME


def canonical(request):
    """What botocore would sign of the request: the names of the headers are the client's choice."""
    proof = header(request, "authorization")
    signed = proof.partition("SignedHeaders=")[2].partition(",")[0].split(";")
    if not {name for name, _ in request.headers}.issuperset(signed):
        return "nothing: a header is missing"
    url = f"http://{HOST}{request.path}" + (f"?{request.query}" if request.query else "")
    again = AWSRequest(request.method, url, data=request.body)
    for name, value in request.headers:
        if name in signed:
            again.headers[name] = value
    return SignsEverything(None, "lookoutvision", REGION).canonical_request(again)


def edited(data, text, alphabet):
    """The text with a character put in, taken out or replaced somewhere."""
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(start + 1, len(text))))
    return text[:start] + data.draw(st.text(alphabet, max_size=1)) + text[end:]


def mutated_header(data, request):
    headers = list(request.headers)
    place = data.draw(st.sampled_from([i for i, (name, _) in enumerate(headers) if name != "authorization"]))
    name, value = headers[place]
    match data.draw(st.sampled_from(["edit", "remove", "repeat", "unsigned", "shuffle"])):
        case "edit":
            headers[place] = name, edited(data, value, st.sampled_from("aZ0 \t,"))
        case "remove":
            del headers[place]
        case "repeat":
            headers.insert(place, (name, data.draw(values)))
        case "unsigned":
            headers.insert(
                place, (data.draw(st.sampled_from(["via", "x-forwarded-for", "x-amzn-trace-id"])), value)
            )
        case "shuffle":
            headers = data.draw(st.permutations(headers))
    return replace(request, headers=headers)


MUTATIONS = {
    "method": lambda data, request: replace(
        request, method=edited(data, request.method, st.sampled_from("GETPOSgetpos"))
    ),
    "path": lambda data, request: replace(
        request, path="/" + edited(data, request.path, st.sampled_from("/.%aA2Ff~+")).removeprefix("/")
    ),
    "query": lambda data, request: replace(
        request, query=edited(data, request.query, st.sampled_from("&=%aA2Ff~+"))
    ),
    "query's order": lambda data, request: replace(
        request, query="&".join(data.draw(st.permutations(request.query.split("&"))))
    ),
    "body": lambda data, request: replace(request, body=data.draw(st.binary(max_size=3)) + request.body[1:]),
    "header": mutated_header,
}


@pytest.mark.parametrize("mutate", MUTATIONS.values(), ids=MUTATIONS.keys())
@calmly
@given(st.data(), requests, st.sampled_from([SigV4Auth, SignsEverything]))
def test_a_mutation_is_refused_exactly_when_it_alters_the_canonical_request(mutate, data, parts, signer):
    request = sign(**parts, signer=signer)
    mutated = mutate(data, request)
    assert accepted(mutated) == (canonical(mutated) == canonical(request))


@calmly
@given(st.data(), requests)
def test_no_other_authorization_passes(data, parts):
    request = sign(**parts)
    old = header(request, "authorization")
    new = edited(data, old, st.sampled_from("/;,=a0Z "))
    if accepted(with_header(request, "authorization", new)):
        nothing = str.maketrans("", "", ", ")
        assert new.translate(nothing) == old.translate(nothing)


@calmly
@given(st.data(), queries)
def test_no_other_presigned_query_passes(data, query):
    request = presign(query=query)
    old = request.query
    new = edited(data, old, st.sampled_from("&=%a0F"))
    if accepted(replace(request, query=new)):
        assert sorted(pair + "=" * ("=" not in pair) for pair in new.split("&")) == sorted(
            pair + "=" * ("=" not in pair) for pair in old.split("&")
        )


@calmly
@given(requests, anything, anything)
def test_garbage_meets_no_other_exception(parts, garbage, name):
    request = sign(**parts)
    for spoilt in (
        replace(request, method=garbage),
        replace(request, path=garbage),
        replace(request, query=garbage),
        with_more_headers(request, (name, garbage)),
        replace(request, headers=[(name, garbage) for name, _ in request.headers]),
        with_header(request, "x-amz-date", garbage),
        replace(
            presign(),
            query=f"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date={garbage}&X-Amz-Credential={garbage}",
        ),
        replace(presign(), query=presign().query + "&" + garbage),
        with_more_headers(without_header(request, "x-amz-date"), ("date", garbage)),
        with_more_headers(request, ("x-amz-security-token", garbage)),
        *(with_authorization(request, part, garbage) for part in (KEY, REGION, "host", "AWS4", ", ")),
        with_authorization(request, "host", garbage + ";host"),
    ):
        accepted(spoilt)


@calmly
@given(st.datetimes(), st.sampled_from(["+0000", "-0000", "GMT", "+9999", "-2359", "", "XYZ"]), st.data())
def test_a_strange_http_date_meets_no_other_exception(moment, zone, data):
    date = edited(data, f"{moment:%a, %d %b %Y %H:%M:%S} {zone}", st.characters())
    request = with_more_headers(without_header(sign(), "x-amz-date"), ("date", date))
    assert not accepted(request)


# The forms that a genuine request may have.


def test_a_date_header_does_for_x_amz_date():
    request = sign(headers=[("Date", "any")])
    assert "x-amz-date" not in dict(request.headers)
    assert verify(request) == ME


def test_an_x_amz_date_outweighs_a_date():
    assert verify(with_more_headers(sign(), ("date", "Thu, 01 Jan 1970 00:00:00 GMT"))) == ME


def test_a_true_content_hash_passes():
    body = b'{"ProjectName": "line-7"}'
    request = sign(headers=[("X-Amz-Content-SHA256", hashlib.sha256(body).hexdigest())], body=body)
    assert verify(request) == ME


def test_content_type_may_stay_unsigned():
    assert verify(with_more_headers(sign(), ("content-type", "application/json"))) == ME


def test_spaces_around_values_mean_nothing():
    request = sign(headers=[("X-Amz-Content-SHA256", hashlib.sha256(b"").hexdigest())])
    assert verify(replace(request, headers=[(name, f" {value}\t") for name, value in request.headers])) == ME


def test_authorization_may_be_written_without_spaces():
    assert verify(with_authorization(sign(), ", ", ",")) == ME


def test_the_region_is_the_scopes():
    assert verify(sign(region="us-gov-west-1")) == Signature(KEY, "us-gov-west-1")
    assert verify(sign(), regions={REGION, "eu-west-1"}) == ME


def test_fifteen_minutes_either_way_pass():
    request = sign()
    moment = signed_at(request)
    assert verify(request, now=moment + timedelta(minutes=15)) == ME
    assert verify(request, now=moment - timedelta(minutes=15)) == ME
    assert verify(request, now=moment.astimezone(datetime.now().astimezone().tzinfo)) == ME


def test_a_presigned_request_lives_as_long_as_it_says():
    request = presign(expires=604800)
    moment = signed_at(request)
    assert verify(request, now=moment + timedelta(days=7)) == ME
    assert refusal(request, now=moment + timedelta(days=7, seconds=1)) == "RequestExpired"
    request = presign(expires=1)
    assert refusal(request, now=signed_at(request) + timedelta(seconds=2)) == "RequestExpired"


# Each fault has its own code.


def test_an_unsigned_request():
    request = without_header(sign(), "authorization")
    assert refusal(request) == "MissingAuthenticationTokenException"
    assert refusal(with_more_headers(request, ("authorization", ""))) == "MissingAuthenticationTokenException"


def test_a_request_that_is_too_old():
    request = sign()
    assert refusal(request, now=signed_at(request) + timedelta(minutes=15, seconds=1)) == "RequestExpired"
    assert refusal(request, now=datetime.max.replace(tzinfo=UTC)) == "RequestExpired"


@pytest.mark.parametrize("make", [sign, presign])
def test_a_request_from_the_future(make):
    now = datetime.now(UTC) - timedelta(minutes=15, seconds=2)
    assert refusal(make(), now=now) == "RequestInTheFuture"


def test_a_key_that_is_unknown():
    assert refusal(sign(key="NOBODYSKEY")) == "UnrecognizedClientException"
    assert refusal(sign(), known={}) == "UnrecognizedClientException"


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
    assert refusal(with_authorization(sign(), old, new)) == "AuthorizationHeaderMalformed"


def test_a_signature_by_another_secret():
    assert refusal(sign(secret=SECRET[:-1])) == "InvalidSignatureException"
    assert refusal(presign(secret=SECRET[:-1])) == "InvalidSignatureException"


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
    assert refusal(request) == "InvalidSignatureException"


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
    "an unsigned body": lambda: sign(headers=[("X-Amz-Content-SHA256", "UNSIGNED-PAYLOAD")]),
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
    assert refusal(make()) == "IncompleteSignatureException"


@pytest.mark.parametrize("make", [sign, presign])
@pytest.mark.parametrize(("kept", "sent"), [("right", "wrong"), ("right", None), (None, "stray"), ("ü", "u")])
def test_a_session_token_must_be_the_keys(make, kept, sent):
    known = {KEY: Credential(SECRET, kept)}
    assert refusal(make(token=sent), known=known) == "UnrecognizedClientException"
    assert verify(make(token=kept), known=known) == ME


def test_a_token_tells_nothing_to_those_without_the_secret():
    known = {KEY: Credential(SECRET, "right")}
    assert refusal(sign(secret="guessed", token="right"), known=known) == "InvalidSignatureException"
    assert refusal(sign(secret="guessed", token="wrong"), known=known) == "InvalidSignatureException"


@pytest.mark.parametrize("make", [sign, presign])
def test_temporary_credentials_end(make):
    now = datetime.now(UTC)
    known = {KEY: Credential(SECRET, "token", expires_at=now)}
    assert refusal(make(token="token"), known=known, now=now) == "ExpiredTokenException"
    assert verify(make(token="token"), known=known, now=now - timedelta(seconds=1)) == ME


# The two steps.


def test_no_key_is_looked_up_for_a_request_that_parse_refuses():
    looked_up = []
    request = sign()
    with pytest.raises(SignatureError):
        sigv4.verify(request, credential=looked_up.append, now=datetime.now(UTC) + timedelta(hours=1))
    assert looked_up == []


def test_a_claim_is_made_without_the_body_and_proven_with_it():
    request = sign(body=b"{}")
    claim = sigv4.parse(
        request.method,
        request.path,
        request.query,
        iter(request.headers),
        now=datetime.now(UTC),
        regions=[REGION],
    )
    assert claim.access_key_id == KEY
    assert claim.verify(Credential(SECRET), b"{}") == ME
    with pytest.raises(SignatureError, match="InvalidSignatureException"):
        claim.verify(Credential(SECRET), b"[]")
    with pytest.raises(SignatureError, match="UnrecognizedClientException"):
        claim.verify(None, b"")


def test_no_secret_shows():
    request = sign(token="the-token")
    claim = sigv4.parse(request.method, request.path, "", request.headers, now=datetime.now(UTC))
    shown = repr(claim) + repr(Credential(SECRET, "the-token"))
    for secret in (SECRET, "the-token", claim.signature):
        assert secret not in shown
