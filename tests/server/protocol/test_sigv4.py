"""What a genuine client signs passes the verifier: AWS's examples, boto3's requests, every allowed form."""

import hashlib
import http.client
import http.server
import io
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import boto3
import botocore.exceptions
import pytest
from botocore.config import Config
from sigv4_requests import (
    ARN,
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
    with_more_headers,
)

from airflow_provider_lookoutvision.model import teach
from airflow_provider_lookoutvision.server.protocol import sigv4
from airflow_provider_lookoutvision.server.protocol.sigv4 import (
    Credential,
    Signature,
    SignatureError,
    SignedRequest,
)

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
def recording_server():
    """A server that keeps its requests: its URL, and their list."""
    received = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def record(self):
            path, _, query = self.path.partition("?")
            headers = [(name.lower(), value) for name, value in self.headers.items()]
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            received.append(SignedRequest(self.command, path, query, headers, body))
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        do_GET = do_POST = do_PATCH = do_DELETE = record  # noqa: N815

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", received
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
def test_what_boto3_sends_passes(recording_server, call):
    url, received = recording_server
    try:
        call(client(url))
    except botocore.exceptions.ResponseParserError as error:
        raise AssertionError("the server must answer what botocore can read") from error
    assert verify(received[-1]) == ME


def test_what_boto3_sends_with_a_session_token_passes(recording_server):
    url, received = recording_server
    client(url, aws_session_token="IQoJb3JpZ2luX2VjE+/==").list_projects()
    known = {KEY: Credential(SECRET, "IQoJb3JpZ2luX2VjE+/==", datetime.now(UTC) + timedelta(hours=1))}
    assert verify(received[-1], known=known) == ME


def test_a_url_that_boto3_presigned_passes(recording_server):
    url, received = recording_server
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
    assert "X-Amz-Signature" in received[-1].query
    assert verify(received[-1]) == ME


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
    assert error_code(request, now=moment + timedelta(days=7, seconds=1)) == "RequestExpired"
    request = presign(expires=1)
    assert error_code(request, now=signed_at(request) + timedelta(seconds=2)) == "RequestExpired"


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
