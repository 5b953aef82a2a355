"""The same calls, through boto3, to the service and to a moto server: the same answers.

What is compared is what boto3 makes of an answer, without the times and identifiers of each, and without what
only one of the two has to say: checksums that weren't asked for, an owner's name. Where moto differs from S3
itself, as AWS documents it, it is ours that is right: a comment says so.
"""

from __future__ import annotations

import io
import re
import secrets
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import pytest
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

OWN = {
    # of each server
    *("ResponseMetadata", "LastModified", "CreationDate", "Owner", "Initiator", "Initiated", "Location"),
    # moto has versions and encryption to speak of, and this service has not
    *("VersionId", "ServerSideEncryption", "BucketRegion", "RequestCharged", "CopySourceVersionId"),
    # S3 has the checksum that the object was sent with; moto none in some answers, and CRC32 in others
    *("ChecksumType", "ChecksumAlgorithm", "ChecksumCRC32", "ChecksumCRC64NVME"),
}
PARTS = TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20, max_concurrency=2)


class Both:
    """Runs calls on both; the bucket has the same name in each."""

    def __init__(self, ours: Any, theirs: Any) -> None:
        self.clients = (ours, theirs)
        self.bucket = f"compared-{secrets.token_hex(8)}"

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(**members: Any) -> Any:
            answers = [self._answer(client, name, members) for client in self.clients]
            assert answers[0] == answers[1], f"{name}({members})"
            return answers[0]

        return call

    def _answer(self, client: Any, name: str, members: dict[str, Any]) -> Any:
        sent = {"Bucket": self.bucket, **members} if name != "list_buckets" else members
        try:
            answer = getattr(client, name)(**sent)
        except ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            return error.response["Error"]["Code"], status
        if "Body" in answer:
            answer["Body"] = answer["Body"].read()
        return self.plain(answer)

    def plain(self, value: Any) -> Any:
        if isinstance(value, dict):
            if (
                value.get("EncodingType") == "url" and "Prefix" in value
            ):  # boto3 leaves the prefix encoded, and moto writes it plainly
                value["Prefix"] = unquote(value["Prefix"])
            if "Marker" in value and "EncodingType" in value:  # moto leaves it out
                del value["Marker"]
            return {name: self.plain(each) for name, each in value.items() if name not in OWN}
        if isinstance(value, list):
            return [self.plain(each) for each in value]
        return value


@pytest.fixture
def both(s3: Any, moto_s3: Any) -> Both:
    both = Both(s3, moto_s3)
    both.create_bucket()
    return both


def test_the_life_of_an_object(both: Both) -> None:
    both.put_object(
        Key="a/b.txt",
        Body=b"hello",
        ContentType="text/plain",
        CacheControl="no-store",
        Metadata={"token": "t"},
    )
    got = both.get_object(Key="a/b.txt")
    assert (got["Body"], got["Metadata"], got["ContentType"]) == (b"hello", {"token": "t"}, "text/plain")
    both.head_object(Key="a/b.txt")
    both.put_object(Key="a/b.txt", Body=b"another")
    assert both.get_object(Key="a/b.txt")["Metadata"] == {}
    both.put_object(Key="empty", Body=b"")
    both.get_object(Key="empty")
    both.copy_object(Key="copy", CopySource=f"{both.bucket}/a/b.txt")
    both.get_object(Key="copy")
    both.copy_object(
        Key="copy", CopySource=f"{both.bucket}/copy", MetadataDirective="REPLACE", Metadata={"new": "1"}
    )
    assert both.get_object(Key="copy")["Metadata"] == {"new": "1"}
    both.delete_object(Key="a/b.txt")
    both.delete_object(Key="a/b.txt")
    assert both.get_object(Key="a/b.txt") == ("NoSuchKey", 404)
    assert both.head_object(Key="a/b.txt") == ("404", 404)
    both.delete_objects(Delete={"Objects": [{"Key": "copy"}, {"Key": "never"}]})
    quiet = {"Objects": [{"Key": "empty"}], "Quiet": True}
    assert "Deleted" not in both.clients[0].delete_objects(Bucket=both.bucket, Delete=quiet)
    both.clients[1].delete_objects(Bucket=both.bucket, Delete=quiet)  # which isn't quiet
    both.list_objects_v2()
    both.delete_bucket()


@pytest.mark.parametrize(
    "range_", ["bytes=0-0", "bytes=2-4", "bytes=5-", "bytes=-3", "bytes=-100", "bytes=3-100", "bytes=0-"]
)
def test_ranges(both: Both, range_: str) -> None:
    both.put_object(Key="k", Body=b"0123456789")
    assert len(both.get_object(Key="k", Range=range_)["Body"]) in {1, 3, 5, 7, 10}
    both.head_object(Key="k", Range=range_)


def test_a_range_that_there_is_nothing_of(both: Both) -> None:
    both.put_object(Key="k", Body=b"0123456789")
    assert both.get_object(Key="k", Range="bytes=10-20") == ("InvalidRange", 416)


def test_conditions(both: Both) -> None:
    etag = both.put_object(Key="k", Body=b"0123456789")["ETag"]
    both.get_object(Key="k", IfMatch=etag)
    assert both.get_object(Key="k", IfMatch='"other"') == ("PreconditionFailed", 412)
    assert both.get_object(Key="k", IfNoneMatch=etag) == ("304", 304)
    both.get_object(Key="k", IfNoneMatch='"other"')
    assert both.head_object(Key="k", IfNoneMatch=etag) == ("304", 304)
    assert both.get_object(Key="k", IfModifiedSince="2099-01-01") == ("304", 304)
    both.get_object(Key="k", IfModifiedSince="2001-01-01")
    assert both.get_object(Key="k", IfUnmodifiedSince="2001-01-01") == ("PreconditionFailed", 412)
    both.get_object(Key="k", IfUnmodifiedSince="2099-01-01")
    assert both.put_object(Key="k", Body=b"", IfNoneMatch="*") == ("PreconditionFailed", 412)
    both.put_object(Key="new", Body=b"", IfNoneMatch="*")
    both.put_object(Key="k", Body=b"2", IfMatch=etag)
    assert both.put_object(Key="k", Body=b"3", IfMatch=etag) == ("PreconditionFailed", 412)


KEYS = ["a", "b/1", "b/2", "b/c/3", "b.txt", "b-", "c/", "d/e/f", "ä ö/x+y", "z&<>'\"%41"]


@pytest.fixture(scope="module")
def listed_both(s3: Any, moto_s3: Any) -> Both:
    both = Both(s3, moto_s3)
    both.create_bucket()
    for key in KEYS:
        both.put_object(Key=key, Body=b"" if key.endswith("/") else key.encode())
    return both


@pytest.mark.parametrize("prefix", ["", "b", "b/", "b/c", "c/", "d/e/", "nothing", "ä"])
@pytest.mark.parametrize("delimiter", ["", "/", "-", "c/"])
def test_lists(listed_both: Both, prefix: str, delimiter: str) -> None:
    both = listed_both
    listed = {"Prefix": prefix, "Delimiter": delimiter}
    whole = both.list_objects_v2(**listed)
    both.list_objects(**listed)
    for size in (1, 2):
        names: list[str] = []
        more: dict[str, Any] = {}
        while True:
            page = both.clients[0].list_objects_v2(Bucket=both.bucket, MaxKeys=size, **listed, **more)
            names += [each["Key"] for each in page.get("Contents", [])]
            names += [each["Prefix"] for each in page.get("CommonPrefixes", [])]
            assert page["KeyCount"] <= size
            if not page["IsTruncated"]:
                break
            more = {"ContinuationToken": page["NextContinuationToken"]}
        everything = [each["Key"] for each in whole.get("Contents", [])]
        everything += [each["Prefix"] for each in whole.get("CommonPrefixes", [])]
        assert sorted(names) == sorted(everything)
    both.list_objects_v2(**listed, StartAfter="b/1")
    if not delimiter:  # with one, moto's first version gives prefixes from before the marker too
        both.list_objects(**listed, Marker="b/1")


def test_pages_of_the_first_version(listed_both: Both, s3: Any) -> None:
    marker, names = "", []
    while True:  # moto's markers are no keys
        page = s3.list_objects(Bucket=listed_both.bucket, Delimiter="/", Marker=marker, MaxKeys=2)
        names += [each["Key"] for each in page.get("Contents", [])]
        names += [each["Prefix"] for each in page.get("CommonPrefixes", [])]
        if not page["IsTruncated"]:
            break
        marker = page["NextMarker"]
    assert names == ["a", "b-", "b.txt", "b/", "c/", "d/", "z&<>'\"%41", "ä ö/"]


def test_faults(both: Both) -> None:
    both.put_object(Key="k", Body=b"x")
    for name, members, expected in [
        ("get_object", {"Bucket": "no-such-bucket", "Key": "k"}, ("NoSuchBucket", 404)),
        ("put_object", {"Bucket": "no-such-bucket", "Key": "k"}, ("NoSuchBucket", 404)),
        ("list_objects_v2", {"Bucket": "no-such-bucket"}, ("NoSuchBucket", 404)),
        ("delete_object", {"Bucket": "no-such-bucket", "Key": "k"}, ("NoSuchBucket", 404)),
        ("delete_bucket", {"Bucket": "no-such-bucket"}, ("NoSuchBucket", 404)),
        ("head_bucket", {"Bucket": "no-such-bucket"}, ("404", 404)),
        ("delete_bucket", {}, ("BucketNotEmpty", 409)),
        ("copy_object", {"Key": "c", "CopySource": f"{both.bucket}/nothing"}, ("NoSuchKey", 404)),
        ("copy_object", {"Key": "k", "CopySource": f"{both.bucket}/k"}, ("InvalidRequest", 400)),
        ("create_bucket", {"Bucket": "Not_A_Bucket"}, ("InvalidBucketName", 400)),
        (
            "upload_part",
            {"Key": "k", "UploadId": "0" * 32, "PartNumber": 1, "Body": b"x"},
            ("NoSuchUpload", 404),
        ),
        ("abort_multipart_upload", {"Key": "k", "UploadId": "0" * 32}, ("NoSuchUpload", 404)),
        ("list_parts", {"Key": "k", "UploadId": "0" * 32}, ("NoSuchUpload", 404)),
        (
            "put_object",
            {"Key": "k", "Body": b"x", "ContentMD5": "AAAAAAAAAAAAAAAAAAAAAA=="},
            ("BadDigest", 400),
        ),
    ]:
        if expected[0] in {"BadDigest", "InvalidBucketName"} or name == "upload_part":  # moto checks none
            assert both._answer(both.clients[0], name, members) == expected
        else:
            assert getattr(both, name)(**members) == expected


def test_buckets(both: Both) -> None:
    both.head_bucket()
    both.get_bucket_location()
    both.get_bucket_versioning()
    both.create_bucket()  # us-east-1 has it so
    names = [each["Name"] for each in both.clients[0].list_buckets()["Buckets"]]
    assert both.bucket in names


def test_an_upload_in_parts(both: Both) -> None:
    ids = [
        c.create_multipart_upload(Bucket=both.bucket, Key="k", Metadata={"m": "1"})["UploadId"]
        for c in both.clients
    ]
    answers = []
    for client, upload_id in zip(both.clients, ids, strict=True):
        where = {"Bucket": both.bucket, "Key": "k", "UploadId": upload_id}
        etags = [
            client.upload_part(**where, PartNumber=number, Body=body)["ETag"]
            for number, body in [(1, b"a" * (5 << 20)), (3, b"b" * (5 << 20)), (7, b"last")]
        ]
        listed = client.list_multipart_uploads(Bucket=both.bucket)
        parts = client.list_parts(**where, MaxParts=2)
        if client is both.clients[0]:
            assert parts.pop("IsTruncated")
        del parts["NextPartNumberMarker"], parts["IsTruncated" if client is both.clients[1] else "Owner"]
        wanted = [{"PartNumber": number, "ETag": etag} for number, etag in zip((1, 3, 7), etags, strict=True)]
        done = client.complete_multipart_upload(**where, MultipartUpload={"Parts": wanted})
        text = repr([etags, both.plain(parts), [u["Key"] for u in listed["Uploads"]], both.plain(done)])
        answers.append(re.sub(re.escape(upload_id), "ID", text))
    assert answers[0] == answers[1]
    assert both.head_object(Key="k")["ETag"].endswith('-3"')
    both.get_object(Key="k", Range="bytes=5242878-5242883")


def test_transfers(both: Both) -> None:
    content = secrets.token_bytes(12 << 20)
    for client in both.clients:
        client.upload_fileobj(io.BytesIO(content), both.bucket, "large", Config=PARTS)
        client.copy({"Bucket": both.bucket, "Key": "large"}, both.bucket, "copied", Config=PARTS)
        for key in ("large", "copied"):
            received = io.BytesIO()
            client.download_fileobj(both.bucket, key, received, Config=PARTS)
            assert received.getvalue() == content
    assert both.head_object(Key="large")["ETag"].endswith('-3"')
    both.head_object(Key="copied")
    both.list_objects_v2()
