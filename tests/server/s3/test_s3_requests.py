"""How requests are signed, and what keys may do."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import time
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from botocore.exceptions import ClientError
from s3_clients import refusal, s3_client
from services import first_key_of

from airflow_provider_lookoutvision.testing.service import Key, Service, running_service


def sent(url: str, method: str = "GET", body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    request = Request(
        url, data=body, method=method, headers={k.replace("_", "-"): v for k, v in headers.items()}
    )
    try:
        with urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except HTTPError as error:
        return error.code, error.read()


# -- presigned URLs ----------------------------------------------------------------------------------------


@pytest.fixture(params=["s3", "s3v4"])
def presigner(request: pytest.FixtureRequest, s3_service: Service) -> Any:
    """Clients that presign by Version 2, which is boto3's default in us-east-1, and by Version 4."""
    return s3_client(s3_service.endpoint_url, first_key_of(s3_service), signature_version=request.param)


def test_boto3_presigns_by_version_2_unless_told_otherwise(s3: Any, bucket: str) -> None:
    url = s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"})
    assert "AWSAccessKeyId=" in url
    assert sent(url)[0] == 404


def test_presigned_urls(presigner: Any, s3: Any, bucket: str) -> None:
    key = "a b/ü+%41&=.txt"
    where = {"Bucket": bucket, "Key": key}
    put = presigner.generate_presigned_url("put_object", Params={**where, "ContentType": "text/plain"})
    assert sent(put, "PUT", b"hello", Content_Type="text/plain") == (200, b"")
    assert s3.head_object(**where)["ContentType"] == "text/plain"
    get = presigner.generate_presigned_url("get_object", Params={**where, "ResponseContentType": "image/png"})
    with urlopen(get, timeout=30) as answer:
        assert (answer.read(), answer.headers["Content-Type"]) == (b"hello", "image/png")
    assert sent(get, Range="bytes=1-2") == (206, b"el")
    for wrong in (get.replace(bucket, bucket[:-1] + "x"), get.replace("image", "text")):
        assert sent(wrong)[0] == 403
    assert sent(get, "PUT", b"evil")[0] == 403
    assert s3.get_object(**where)["Body"].read() == b"hello"


def test_a_presigned_url_ends(presigner: Any, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    url = presigner.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"}, ExpiresIn=1)
    until = time.monotonic() + 30
    while sent(url)[0] == 200:
        assert time.monotonic() < until
        time.sleep(0.2)
    status, body = sent(url)
    assert (status, b"<Code>AccessDenied</Code>" in body, b"expired" in body) == (403, True, True)


# -- keys and what they may do -----------------------------------------------------------------------------


def test_wrong_keys(s3_service: Service, bucket: str) -> None:
    owner = first_key_of(s3_service)
    unknown = s3_client(s3_service.endpoint_url, Key("AKIAUNKNOWN", "s", "1" * 12))
    assert refusal(unknown.list_buckets) == ("InvalidAccessKeyId", 403)
    wrong = s3_client(s3_service.endpoint_url, Key(owner.access_key_id, "wrong", owner.account))
    assert refusal(wrong.get_object, Bucket=bucket, Key="k") == ("SignatureDoesNotMatch", 403)
    assert refusal(wrong.put_object, Bucket=bucket, Key="k", Body=b"x") == ("SignatureDoesNotMatch", 403)


def permitted(s3_service: Service, *flags: str) -> Any:
    command = [sys.executable, "-m", "airflow_provider_lookoutvision.server.cli", "keys", "create", "--json"]
    done = subprocess.run(
        [*command, "--data-dir", str(s3_service.data_dir), *flags], capture_output=True, text=True, check=True
    )
    made = json.loads(done.stdout)
    return s3_client(
        s3_service.endpoint_url, Key(made["AccessKeyId"], made["SecretAccessKey"], "123456789012")
    )


def test_buckets_that_a_key_may_use(s3: Any, bucket: str, s3_service: Service) -> None:
    own = f"images-{secrets.token_hex(4)}"
    narrow = permitted(s3_service, "--bucket", "images-*")
    narrow.create_bucket(Bucket=own)
    narrow.put_object(Bucket=own, Key="k", Body=b"x")
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    names = {each["Name"] for each in narrow.list_buckets()["Buckets"]}
    assert own in names
    assert all(name.startswith("images-") for name in names)
    denied = ("AccessDenied", 403)
    assert refusal(narrow.get_object, Bucket=bucket, Key="k") == denied
    assert refusal(narrow.get_object, Bucket="not-there", Key="k") == denied
    assert refusal(narrow.put_object, Bucket=bucket, Key="k", Body=b"") == denied
    assert refusal(narrow.create_bucket, Bucket="other-bucket") == denied
    assert refusal(narrow.copy_object, Bucket=own, Key="c", CopySource=f"{bucket}/k") == denied
    assert refusal(narrow.head_bucket, Bucket=bucket) == ("403", 403)


def test_actions_that_a_key_may_do(s3: Any, bucket: str, s3_service: Service) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    reader = permitted(s3_service, "--allow", "s3:Get*", "--allow", "S3:ListBucket")
    reader.get_object(Bucket=bucket, Key="k")
    reader.head_object(Bucket=bucket, Key="k")
    reader.list_objects_v2(Bucket=bucket)
    denied = ("AccessDenied", 403)
    assert refusal(reader.put_object, Bucket=bucket, Key="k", Body=b"") == denied
    assert refusal(reader.create_multipart_upload, Bucket=bucket, Key="k") == denied
    assert refusal(reader.delete_objects, Bucket=bucket, Delete={"Objects": [{"Key": "k"}]}) == denied
    assert refusal(reader.list_buckets) == denied
    api_only = permitted(s3_service, "--allow", "lookoutvision:*")
    assert refusal(api_only.get_object, Bucket=bucket, Key="k") == denied
    writer = permitted(s3_service, "--allow", "s3:PutObject")
    assert refusal(writer.copy_object, Bucket=bucket, Key="c", CopySource=f"{bucket}/k") == denied


def test_the_s3_is_off_when_the_buckets_are_elsewhere(moto_s3: Any) -> None:
    flags = ["--no-worker", "--buckets", "s3", "--s3-endpoint-url", moto_s3.meta.endpoint_url]
    with running_service(flags=flags) as service:
        s3 = s3_client(service.endpoint_url, first_key_of(service))
        with pytest.raises(ClientError, match="has its buckets in another S3") as caught:
            s3.list_buckets()
    assert caught.value.response["Error"]["Code"] == "NotImplemented"
