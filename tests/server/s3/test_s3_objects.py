"""Objects that are files, and files that are objects."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from s3_clients import keys_of, md5, refusal_and_message, s3_client
from services import first_key_of

from airflow_provider_lookoutvision.server.s3 import checksums
from airflow_provider_lookoutvision.testing.service import Service

# -- files -------------------------------------------------------------------------------------------------


def test_an_object_is_a_file(s3: Any, bucket: str, folder: Path) -> None:
    s3.put_object(Bucket=bucket, Key="line/a.png", Body=b"image")
    assert (folder / "line" / "a.png").read_bytes() == b"image"
    assert [path.name for path in folder.rglob("*")] == ["line", "a.png"]
    s3.delete_object(Bucket=bucket, Key="line/a.png")
    assert list(folder.iterdir()) == []


def test_a_file_is_an_object(s3: Any, bucket: str, folder: Path) -> None:
    (folder / "by-hand").mkdir()
    (folder / "by-hand" / "a.png").write_bytes(b"image")
    got = s3.get_object(Bucket=bucket, Key="by-hand/a.png")
    assert (got["Body"].read(), got["ETag"], got["ContentType"]) == (
        b"image",
        md5(b"image"),
        "binary/octet-stream",
    )
    (listed,) = s3.list_objects_v2(Bucket=bucket)["Contents"]
    assert (listed["Key"], listed["ETag"], listed["Size"]) == ("by-hand/a.png", md5(b"image"), 5)


def test_a_file_that_is_changed_is_another_object(s3: Any, bucket: str, folder: Path) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"first", Metadata={"token": "t"})
    (folder / "k").write_bytes(b"other")  # as long, in the same file
    head = s3.head_object(Bucket=bucket, Key="k")
    assert (head["ETag"], head["Metadata"]) == (md5(b"other"), {})
    for content in (b"third", b"again"):  # at once, so that the clock hardly goes on
        (folder / "k").write_bytes(content)
        assert s3.head_object(Bucket=bucket, Key="k")["ETag"] == md5(content)


def test_an_etag_is_computed_once(s3: Any, bucket: str, folder: Path, s3_service: Service) -> None:
    (folder / "k").write_bytes(b"image")
    past = time.time_ns() - 3600 * 10**9
    os.utime(folder / "k", ns=(past, past))
    assert s3.head_object(Bucket=bucket, Key="k")["ETag"] == md5(b"image")
    (record,) = (s3_service.data_dir / "s3" / "records" / bucket).rglob("*.json")
    record.write_text(record.read_text().replace(hashlib.md5(b"image").hexdigest(), "0" * 32))
    assert s3.head_object(Bucket=bucket, Key="k")["ETag"] == f'"{"0" * 32}"'


def test_a_data_directory_that_is_copied_keeps_etags_and_metadata(
    s3: Any, bucket: str, folder: Path, s3_service: Service
) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"image", Metadata={"token": "t"})
    status = (folder / "k").stat()
    (folder / "copy").write_bytes((folder / "k").read_bytes())
    os.utime(folder / "copy", ns=(status.st_atime_ns, status.st_mtime_ns))  # as `cp -a` and rsync do
    (folder / "copy").replace(folder / "k")
    assert s3.head_object(Bucket=bucket, Key="k")["Metadata"] == {"token": "t"}


def test_what_is_no_object(s3: Any, bucket: str, folder: Path) -> None:
    (folder / "empty").mkdir()
    (folder / "link").symlink_to("/etc/passwd")
    (folder / "out").symlink_to("/etc")
    os.mkfifo(folder / "pipe")
    (folder / f".{secrets.token_hex(16)}").write_bytes(b"an unfinished write of the service")
    (folder / f".s3-{secrets.token_hex(16)}").write_bytes(b"one of S3")
    (folder / os.fsdecode(b"\xff")).mkdir()
    assert keys_of(s3, bucket) == []
    assert s3.list_objects_v2(Bucket=bucket, Delimiter="/").get("CommonPrefixes") is None
    for key in ("empty", "link", "out/passwd", "pipe", "empty/", *(path.name for path in folder.glob(".*"))):
        assert refusal_and_message(s3.get_object, Bucket=bucket, Key=key)[:2] == ("NoSuchKey", 404)
    assert refusal_and_message(s3.put_object, Bucket=bucket, Key="out/passwd", Body=b"")[:2] == (
        "InvalidRequest",
        400,
    )
    s3.put_object(Bucket=bucket, Key="link", Body=b"mine")
    assert (folder / "link").read_bytes() == b"mine"
    assert not (folder / "link").is_symlink()
    assert Path("/etc/passwd").read_bytes() != b"mine"


def test_a_bucket_may_be_a_link(s3: Any, s3_service: Service, tmp_path: Path) -> None:
    name = f"linked-{secrets.token_hex(4)}"
    (tmp_path / "elsewhere").mkdir()
    (s3_service.data_dir / "buckets").mkdir(exist_ok=True)
    (s3_service.data_dir / "buckets" / name).symlink_to(tmp_path / "elsewhere")
    s3.put_object(Bucket=name, Key="a/k", Body=b"x")
    assert (tmp_path / "elsewhere" / "a" / "k").read_bytes() == b"x"
    s3.delete_object(Bucket=name, Key="a/k")
    assert refusal_and_message(s3.delete_bucket, Bucket=name)[0] == "AccessDenied"


# -- buckets -----------------------------------------------------------------------------------------------


def test_deleting_a_bucket_deletes_no_file(s3: Any, bucket: str, folder: Path) -> None:
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "pipe").symlink_to("nowhere")
    assert refusal_and_message(s3.delete_bucket, Bucket=bucket)[:2] == ("BucketNotEmpty", 409)
    (folder / "a" / "pipe").unlink()
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=1, Body=b"x")
    s3.delete_bucket(Bucket=bucket)
    assert not folder.exists()
    assert refusal_and_message(s3.head_bucket, Bucket=bucket)[:2] == ("404", 404)


def test_a_bucket_elsewhere(bucket: str, s3_service: Service) -> None:
    s3 = s3_client(s3_service.endpoint_url, first_key_of(s3_service), region="eu-west-1")
    assert s3.get_bucket_location(Bucket=bucket)["LocationConstraint"] == "eu-west-1"
    where = {"CreateBucketConfiguration": {"LocationConstraint": "eu-west-1"}}
    assert refusal_and_message(s3.create_bucket, Bucket=bucket, **where)[:2] == (
        "BucketAlreadyOwnedByYou",
        409,
    )


# -- what is sent and kept ---------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", sorted(set(checksums.SIZES) - {"MD5"}))
def test_checksums(s3: Any, bucket: str, algorithm: str) -> None:
    content = os.urandom(100_000)
    digest = checksums.new(algorithm)
    digest.update(content)
    name, value = f"Checksum{algorithm}", checksums.encoded(digest.digest())
    assert s3.put_object(Bucket=bucket, Key="k", Body=content, **{name: value})[name] == value
    assert s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")[name] == value
    wrong = checksums.encoded(b"\0" * checksums.SIZES[algorithm])
    assert refusal_and_message(s3.put_object, Bucket=bucket, Key="new", Body=content, **{name: wrong})[
        :2
    ] == (
        "BadDigest",
        400,
    )
    assert keys_of(s3, bucket) == ["k"]
    short = checksums.encoded(b"\0")
    assert (
        refusal_and_message(s3.put_object, Bucket=bucket, Key="k", Body=b"", **{name: short})[0]
        == "InvalidRequest"
    )


@pytest.mark.parametrize(
    ("algorithm", "of_123456789"),
    [("CRC32C", "4waSgw=="), ("CRC64NVME", "rosUhgp5mIg="), ("CRC32", "y/Q5Jg==")],
)
def test_checksums_are_those_of_the_catalogue(algorithm: str, of_123456789: str) -> None:
    digest = checksums.new(algorithm)
    for part in (b"1234", b"56789"):
        digest.update(part)
    assert checksums.encoded(digest.digest()) == of_123456789


def test_what_is_kept_with_an_object(s3: Any, bucket: str) -> None:
    kept = {
        "CacheControl": "no-store",
        "ContentDisposition": 'attachment; filename="x"',
        "ContentEncoding": "gzip",
        "ContentLanguage": "de",
        "ContentType": "image/png",
        "Metadata": {"token": "t", "other": "a b"},
    }
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", **kept)
    head = s3.head_object(Bucket=bucket, Key="k")
    assert {name: head[name] for name in kept} == kept
    s3.copy_object(Bucket=bucket, Key="copy", CopySource=f"/{bucket}/k")
    head = s3.head_object(Bucket=bucket, Key="copy")
    assert {name: head[name] for name in kept} == kept
    large = {"m": "x" * 2048}
    assert refusal_and_message(s3.put_object, Bucket=bucket, Key="k", Body=b"", Metadata=large)[:2] == (
        "MetadataTooLarge",
        400,
    )


def test_what_this_s3_has_not(s3: Any, bucket: str) -> None:
    for members in (
        {"ServerSideEncryption": "aws:kms"},
        {"ACL": "public-read"},
        {"StorageClass": "GLACIER"},
        {"Tagging": "a=b"},
        {"ChecksumAlgorithm": "XXHASH64", "ChecksumXXHASH64": "AAAAAAAAAAA="},
    ):
        code, status, message = refusal_and_message(
            s3.put_object, Bucket=bucket, Key="k", Body=b"", **members
        )
        assert (code, status) == ("NotImplemented", 501), message
    s3.put_object(Bucket=bucket, Key="k", Body=b"", ACL="bucket-owner-full-control", StorageClass="STANDARD")
    # Programs ask for what S3 does with every object. Here it isn't done, and not claimed.
    assert "ServerSideEncryption" not in s3.put_object(Bucket=bucket, Key="k", ServerSideEncryption="AES256")
    code, status, message = refusal_and_message(s3.get_bucket_policy, Bucket=bucket)
    assert (code, status) == ("NotImplemented", 501)
    assert message.startswith("GetBucketPolicy is not served")
    assert refusal_and_message(s3.get_object, Bucket=bucket, Key="k", VersionId="v")[:2] == (
        "NoSuchVersion",
        404,
    )
    owner = {"ExpectedBucketOwner": "999999999999"}
    assert refusal_and_message(s3.get_object, Bucket=bucket, Key="k", **owner)[:2] == ("AccessDenied", 403)
    s3.get_object(Bucket=bucket, Key="k", ExpectedBucketOwner="123456789012")
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == []


# -- at the same time --------------------------------------------------------------------------------------


def test_of_two_writes_at_once_one_wins_whole(s3: Any, bucket: str) -> None:
    contents = [bytes([number]) * 300_000 for number in range(8)]
    begin = threading.Barrier(len(contents))
    seen: list[Any] = []

    def write(number: int) -> None:
        begin.wait()
        s3.put_object(Bucket=bucket, Key="a/k", Body=contents[number], Metadata={"number": str(number)})
        got = s3.get_object(Bucket=bucket, Key="a/k")
        seen.append((got["Body"].read(), int(got["Metadata"].get("number", -1)), got["ETag"]))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(len(contents))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == len(contents)
    for content, number, etag in seen:
        assert content == contents[number]
        assert etag == md5(content)


def test_of_many_that_create_one_does(s3: Any, bucket: str) -> None:
    begin = threading.Barrier(8)
    outcomes: list[str] = []

    def create(number: int) -> None:
        begin.wait()
        try:
            s3.put_object(Bucket=bucket, Key="once", Body=str(number).encode(), IfNoneMatch="*")
            outcomes.append(str(number))
        except ClientError as error:
            outcomes.append(error.response["Error"]["Code"])

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count("PreconditionFailed") == 7
    (winner,) = set(outcomes) - {"PreconditionFailed"}
    assert s3.get_object(Bucket=bucket, Key="once")["Body"].read() == winner.encode()


def test_the_log_has_no_keys(s3: Any, bucket: str, s3_service: Service) -> None:
    answer = s3.put_object(Bucket=bucket, Key="confidential-name", Body=b"x")
    request_id = answer["ResponseMetadata"]["RequestId"]
    while request_id not in (text := s3_service.log_file.read_text()):
        time.sleep(0.01)  # it is written when the answer has been sent
    line = json.loads(next(line for line in reversed(text.splitlines()) if request_id in line))
    assert (line["operation"], line["bucket"], line["status"]) == ("s3:PutObject", bucket, 200)
    assert "confidential-name" not in text
