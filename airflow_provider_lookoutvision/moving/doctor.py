"""What is wrong between a program and a service, and what to do about it.

Each check is a call that a program would make. Nothing that was there before is changed: what a check writes
it removes again.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from botocore.exceptions import BotoCoreError, ClientError, WaiterError
from botocore.session import Session

from airflow_provider_lookoutvision import __version__
from airflow_provider_lookoutvision.model import API_VERSION, MODEL_PATH, SERVICE_NAME
from airflow_provider_lookoutvision.moving.errors import MovingError

Result = Literal["ok", "warning", "error"]

_SECONDS = 10
_SKEW_ALLOWED = 900  # by Signature Version 4
_SKEW_NOTED = 60
_DISTRIBUTIONS = (
    "botocore",
    "boto3",
    "aiobotocore",
    "awscli",
    "apache-airflow",
    "apache-airflow-providers-amazon",
    "onnxruntime",
)
_KEYS = "`lookoutvision keys list` on the service's machine shows its keys, `keys create` makes one"
# What to do about the code of an error.
_REMEDIES = {
    "UnrecognizedClientException": f"the service has no such key: {_KEYS}",
    "InvalidAccessKeyId": f"the S3 has no such key: {_KEYS}",
    "InvalidSignatureException": "the secret isn't that of the key, or a proxy changes requests",
    "SignatureDoesNotMatch": "the secret isn't that of the key, or a proxy changes requests",
    "RequestExpired": "set this machine's clock",
    "RequestInTheFuture": "set this machine's clock",
    "RequestTimeTooSkewed": "set this machine's clock",
    "ExpiredTokenException": "temporary credentials have ended: use a key of the service",
    "AccessDeniedException": "the key may not: `keys create --allow ... --project ...` makes one that may",
    "AccessDenied": "the key may not: `keys create --allow ... --bucket ...` makes one that may",
    "AuthorizationHeaderMalformed": "the service doesn't serve this region, or it isn't Lookout for Vision's",
    "NoSuchBucket": "make the bucket, `aws s3 mb s3://NAME`, or name another",
    "404": "make the bucket, `aws s3 mb s3://NAME`, or name another",
    "403": "the key may not use the bucket, or isn't one of this S3: --s3-profile names another",
    "NotImplemented": "this service keeps its buckets elsewhere: --s3-endpoint-url says where",
}


@dataclass(frozen=True)
class Check:
    """What a check found.

    :param what: what was looked at.
    :param found: what is so; of an error, what to do too.
    """

    what: str
    result: Result
    found: str

    def __str__(self) -> str:
        return f"{self.result:8}{self.what}: {self.found}"


def check_versions() -> Iterator[Check]:
    """The packages here, and where boto3 would find the API model."""
    found = {name: _version(name) for name in _DISTRIBUTIONS}
    shown = ", ".join(f"{name} {number}" for name, number in found.items() if number)
    python = ".".join(map(str, sys.version_info[:3]))
    yield Check("versions", "ok", f"airflow-provider-lookoutvision {__version__}, Python {python}, {shown}")
    yield _check_model_folder()


def _check_model_folder() -> Check:
    what = "API model"
    folders = [Path(each) for each in os.environ.get("AWS_DATA_PATH", "").split(os.pathsep) if each]
    if gone := [str(folder) for folder in folders if not folder.is_dir()]:
        return Check(
            what,
            "error",
            f"AWS_DATA_PATH has {', '.join(gone)}, which is no folder: $(lookoutvision model-path) is",
        )
    loader = Session().get_component("data_loader")
    try:
        _, path = loader.load_data_with_path(f"{SERVICE_NAME}/{API_VERSION}/service-2")
    except Exception:  # botocore's own error for data that isn't there differs between versions
        return Check(
            what,
            "warning",
            "botocore has none here: programs need `export AWS_DATA_PATH=$(lookoutvision model-path)`, or "
            "register_service_model(session)",
        )
    if Path(path).is_relative_to(MODEL_PATH):
        return Check(what, "ok", f"this package's, {path}")
    return Check(
        what,
        "warning",
        f"another one, {path}: it has no waiters. $(lookoutvision model-path) first in AWS_DATA_PATH is ours",
    )


def check_endpoint(url: str) -> Iterator[Check]:
    """Whether a service answers at a URL, and whether its clock is this machine's."""
    before = time.time()
    status, headers, body = _health(url)
    middle = (before + time.time()) / 2
    if status is None:
        advice = "is it running there (`lookoutvision serve`), and does the network let requests through?"
        yield Check("endpoint", "error", f"nothing answers at {url} ({body}): {advice}")
        return
    try:
        healthy = json.loads(body).get("status")
    except (ValueError, AttributeError):
        healthy = None
    if healthy is None:
        yield Check(
            "endpoint",
            "error",
            f"{url} answers {status}, and not as a Lookout for Vision service does: is the URL right, or "
            "a proxy in between?",
        )
        return
    good = status == 200
    yield Check(
        "endpoint", "ok" if good else "error", f"{url} answers" + ("" if good else f" {status}: {healthy}")
    )
    if date := headers.get("date"):
        skew = middle - parsedate_to_datetime(date).timestamp()
        text = f"this machine's is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the service's"
        if abs(skew) > _SKEW_ALLOWED:
            yield Check(
                "clock", "error", f"{text}, and signatures last 15 minutes: set it, by NTP for example"
            )
        elif abs(skew) > _SKEW_NOTED:
            yield Check("clock", "warning", f"{text}; from 15 minutes on requests are refused")
        else:
            yield Check("clock", "ok", "that of the service, to the minute")


def check_key(client: Any) -> Check:
    """Whether the service takes the key."""
    region = client.meta.region_name
    try:
        client.list_projects(MaxResults=1)
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code == "AccessDeniedException":
            return Check(
                "key", "warning", f"it is one of the service's, and may not list projects ({region})"
            )
        return Check("key", "error", _explained(error))
    except BotoCoreError as error:
        return Check("key", "error", str(error))
    return Check("key", "ok", f"the service takes it, in {region}")


def check_bucket(s3: Any, bucket: str) -> Iterator[Check]:
    """Whether this program may list, write, read and delete in a bucket."""
    where = f"bucket {bucket}"
    key = f"lookoutvision-doctor-{secrets.token_hex(8)}"
    content = key.encode()

    def delete() -> None:
        s3.delete_object(Bucket=bucket, Key=key)

    def read() -> None:
        if s3.get_object(Bucket=bucket, Key=key)["Body"].read() != content:
            raise MovingError("what was written comes back changed")

    steps: tuple[tuple[str, Callable[[], Any]], ...] = (
        ("list", lambda: s3.list_objects_v2(Bucket=bucket, MaxKeys=1)),
        ("write", lambda: s3.put_object(Bucket=bucket, Key=key, Body=content)),
        ("read", read),
        ("delete", delete),
    )
    for name, step in steps:
        try:
            step()
        except (ClientError, BotoCoreError, MovingError) as error:
            message = _explained(error) if isinstance(error, ClientError) else str(error)
            yield Check(where, "error", f"this program can't {name}: {message}")
            if name in ("list", "write"):
                return
    yield Check(where, "ok", f"this program lists, writes, reads and deletes, at {s3.meta.endpoint_url}")


def check_bucket_of_service(client: Any, s3: Any, bucket: str) -> Check:
    """Whether the service reads in a bucket: by a dataset of a project that is deleted again."""
    where = f"bucket {bucket}"
    name = f"lookoutvision-doctor-{secrets.token_hex(8)}"
    line = json.dumps({"source-ref": f"s3://{bucket}/{name}.png"}).encode()
    members = {"ProjectName": name, "DatasetType": "train"}
    source = {"GroundTruthManifest": {"S3Object": {"Bucket": bucket, "Key": name}}}
    made: list[Callable[[], Any]] = []
    try:
        s3.put_object(Bucket=bucket, Key=name, Body=line)
        made.append(lambda: s3.delete_object(Bucket=bucket, Key=name))
        client.create_project(ProjectName=name)
        made.append(lambda: client.delete_project(ProjectName=name))
        client.create_dataset(**members, DatasetSource=source)
        made.append(lambda: client.delete_dataset(**members))
        client.get_waiter("dataset_created").wait(
            **members, WaiterConfig={"Delay": 0.5, "MaxAttempts": 2 * _SECONDS}
        )
    except ClientError as error:
        return Check(where, "error", f"the service can't be made to read it: {_explained(error)}")
    except WaiterError as error:
        found = error.last_response["DatasetDescription"]
        remedy = "is its setting buckets what you think, and may its own AWS credentials read there?"
        if found["Status"] == "CREATE_IN_PROGRESS":
            remedy = "does it run a worker? `lookoutvision worker`, unless `serve` has one"
        return Check(
            where,
            "error",
            f"the service doesn't read what this program writes: {found['Status']}, "
            f"{found['StatusMessage']} ({remedy})",
        )
    except BotoCoreError as error:
        return Check(where, "error", str(error))
    finally:
        for undo in reversed(made):
            try:
                undo()
            except (ClientError, BotoCoreError) as error:
                sys.stderr.write(f"What was written to see could not be removed: {name}: {error}\n")
    return Check(where, "ok", "the service reads what this program writes")


def check_service(client: Any, s3: Callable[[], Any], buckets: list[str]) -> Iterator[Check]:
    """All checks of a service: endpoint and clock, key, buckets. Without one the next are left out.

    :param s3: makes the client of S3.
    """
    good = True
    for check in check_endpoint(client.meta.endpoint_url):
        good &= check.result != "error"
        yield check
    if not good:
        return
    check = check_key(client)
    yield check
    if check.result == "error":
        return
    for bucket in buckets:
        for check in check_bucket(s3(), bucket):
            yield check
            if check.result == "ok":
                yield check_bucket_of_service(client, s3(), bucket)


def to_json(checks: list[Check]) -> str:
    """The checks, for another process."""
    return json.dumps([asdict(check) for check in checks])


def from_json(text: str) -> list[Check]:
    """The checks of another process."""
    return [Check(**each) for each in json.loads(text)]


def _health(url: str) -> tuple[int | None, Any, str]:
    if not url.startswith(("http://", "https://")):
        return None, {}, "it is no URL of HTTP"
    request = Request(f"{url.rstrip('/')}/healthz")  # noqa: S310 (checked above)
    try:
        with urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310
            return answer.status, answer.headers, answer.read(10_000).decode(errors="replace")
    except HTTPError as error:
        return error.code, error.headers, error.read(10_000).decode(errors="replace")
    except (URLError, OSError, HTTPException) as error:
        return None, {}, str(getattr(error, "reason", error))


def _explained(error: ClientError) -> str:
    remedy = _REMEDIES.get(error.response["Error"]["Code"])
    return f"{error}" + (f": {remedy}" if remedy else "")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
