"""What ``lookoutvision doctor`` finds wrong, against a real service."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from lookout import Lookout
from services import Storage

from airflow_provider_lookoutvision.model import MODEL_PATH
from airflow_provider_lookoutvision.testing.service import running_service


def found(lookout: Lookout, *flags: str) -> tuple[int, dict[str, list[dict[str, Any]]]]:
    """The exit status, and the checks by what they are about."""
    done = lookout("doctor", "--json", *flags)
    checks: dict[str, list[dict[str, Any]]] = {}
    for each in json.loads(done.out):
        checks.setdefault(each["what"], []).append(each)
    return done.status, checks


@contextmanager
def answering(body: bytes, date: str) -> Iterator[str]:
    """Something that answers every request so: a stand-in for a wrong clock, and for another server."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response_only(200)
            self.send_header("Date", date)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_all_is_well_and_as_it_was(lookout: Lookout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DATA_PATH", MODEL_PATH)
    lookout.s3.create_bucket(Bucket=lookout.bucket)
    status, checks = found(lookout, "--bucket", lookout.bucket)
    assert status == 0
    assert {each["result"] for group in checks.values() for each in group} == {"ok"}
    assert list(checks) == ["versions", "API model", "endpoint", "clock", "key", f"bucket {lookout.bucket}"]
    assert [each["found"].partition(" ")[0] for each in checks[f"bucket {lookout.bucket}"]] == ["this", "the"]
    assert lookout.s3.list_objects_v2(Bucket=lookout.bucket)["KeyCount"] == 0
    assert lookout.client.list_projects()["Projects"] == []
    text = lookout("doctor").out
    assert f"ok      endpoint: {lookout.service.endpoint_url} answers" in text


def test_the_model_folder(lookout: Lookout, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("AWS_DATA_PATH", raising=False)
    status, checks = found(lookout)
    assert status == 0
    assert "export AWS_DATA_PATH" in checks["API model"][0]["found"]
    monkeypatch.setenv("AWS_DATA_PATH", str(tmp_path / "gone"))
    status, checks = found(lookout)
    assert status == 1
    assert f"AWS_DATA_PATH has {tmp_path}/gone, which is no folder" in checks["API model"][0]["found"]
    other = tmp_path / "lookoutvision" / "2020-11-20"
    other.mkdir(parents=True)
    (other / "service-2.json").write_text("{}")
    monkeypatch.setenv("AWS_DATA_PATH", str(tmp_path))
    assert "it has no waiters" in found(lookout)[1]["API model"][0]["found"]


def test_a_wrong_endpoint(lookout: Lookout) -> None:
    lookout.service = type("Nobody", (), {"endpoint_url": "http://127.0.0.1:9"})()
    status, checks = found(lookout)
    assert status == 1
    assert "nothing answers at http://127.0.0.1:9 " in checks["endpoint"][0]["found"]
    assert "key" not in checks
    with answering(b"<html>", formatdate()) as url:
        lookout.service = type("Other", (), {"endpoint_url": url})()
        assert "not as a Lookout for Vision service" in found(lookout)[1]["endpoint"][0]["found"]


@pytest.mark.parametrize(("behind", "result"), [(0, "ok"), (300, "warning"), (2000, "error")])
def test_the_clock(lookout: Lookout, behind: int, result: str) -> None:
    from time import time

    with answering(b'{"status": "ok"}', formatdate(time() - behind)) as url:
        lookout.service = type("Slow", (), {"endpoint_url": url})()
        clock = found(lookout)[1]["clock"][0]
    assert clock["result"] == result
    if behind:
        assert f"this machine's is {behind // 10}" in clock["found"].replace(str(behind + 1), str(behind))
        assert "ahead of the service's" in clock["found"]


def test_a_wrong_key(lookout: Lookout, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    status, checks = found(lookout)
    assert status == 1
    assert "the secret isn't that of the key" in checks["key"][0]["found"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    assert "the service has no such key" in found(lookout)[1]["key"][0]["found"]
    few = storage.new_key(lookout.key.account, allow=["lookoutvision:Detect*"])
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", few.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", few.secret_access_key)
    status, checks = found(lookout)
    assert (status, checks["key"][0]["result"]) == (0, "warning")


def test_buckets_both_ways(lookout: Lookout) -> None:
    status, checks = found(lookout, "--bucket", "there-is-none")
    assert status == 1
    assert "make the bucket, `aws s3 mb s3://NAME`" in checks["bucket there-is-none"][0]["found"]
    # The program's S3 is another than the service's: each works, and they don't meet.
    with running_service(flags=["--no-worker"]) as other:
        lookout.s3.create_bucket(Bucket=lookout.bucket)
        found_there = found(lookout, "--bucket", lookout.bucket, "--s3-endpoint-url", other.endpoint_url)[1]
    (seen,) = found_there[f"bucket {lookout.bucket}"]
    assert "this program can't list" in seen["found"]
    assert "the S3 has no such key" in seen["found"]


def test_the_service_reads_elsewhere(lookout: Lookout, monkeypatch: pytest.MonkeyPatch) -> None:
    # Two services of one account: the program writes into the folders of one, and asks the other.
    key = {
        "aws_access_key_id": lookout.key.access_key_id,
        "aws_secret_access_key": lookout.key.secret_access_key,
    }
    with running_service() as other:
        profile = {"aws_access_key_id": other.access_key_id, "aws_secret_access_key": other.secret_access_key}
        lines = ["[default]", *(f"{k} = {v}" for k, v in key.items()), "[other]"]
        lines += [f"{k} = {v}" for k, v in profile.items()]
        file = other.data_dir / "profiles"
        file.write_text("\n".join(lines))
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
        (other.data_dir / "buckets" / lookout.bucket).mkdir(parents=True)
        flags = ("--s3-endpoint-url", other.endpoint_url, "--s3-profile", "other")
        status, checks = found(lookout, "--bucket", lookout.bucket, *flags)
        left = list((other.data_dir / "buckets" / lookout.bucket).iterdir())
    assert status == 1
    seen = [each["found"] for each in checks[f"bucket {lookout.bucket}"]]
    assert seen[0].startswith("this program lists, writes, reads and deletes")
    assert seen[1].startswith("the service doesn't read what this program writes: CREATE_FAILED")
    assert left == []
    assert lookout.client.list_projects()["Projects"] == []


def test_an_airflow_connection(lookout: Lookout, monkeypatch: pytest.MonkeyPatch) -> None:
    lookout.s3.create_bucket(Bucket=lookout.bucket)
    connection = {
        "conn_type": "aws",
        "login": lookout.key.access_key_id,
        "password": lookout.key.secret_access_key,
        "extra": {"region_name": "eu-central-1", "endpoint_url": lookout.service.endpoint_url},
    }
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AIRFLOW_CONN_PLANT", json.dumps(connection))
    status, checks = found(lookout, "--conn-id", "plant", "--bucket", lookout.bucket)
    assert status == 0, checks
    assert checks["connection plant"][0]["found"] == f"leads to {lookout.service.endpoint_url}, eu-central-1"
    assert [each["result"] for each in checks[f"connection plant, bucket {lookout.bucket}"]] == ["ok", "ok"]
    connection["extra"] = {"region_name": "eu-central-1"}
    monkeypatch.setenv("AIRFLOW_CONN_PLANT", json.dumps(connection))
    status, checks = found(lookout, "--conn-id", "plant")
    assert status == 1
    assert "No endpoint is configured" in checks["connection plant"][0]["found"]
