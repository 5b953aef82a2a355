"""Clients as users have them: s3fs, Airflow's hook and object storage, and the AWS CLI."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
import venv
from collections.abc import Callable
from pathlib import Path

import pytest
from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from airflow.sdk import ObjectStoragePath
from services import first_key_of

from airflow_provider_lookoutvision.testing.service import Service

s3fs = pytest.importorskip("s3fs")

AWSCLI = "awscli==1.46.2"
Aws = Callable[..., str]


def test_s3fs(s3_service: Service, bucket: str, tmp_path: Path) -> None:
    owner = first_key_of(s3_service)
    files = s3fs.S3FileSystem(
        key=owner.access_key_id,
        secret=owner.secret_access_key,
        endpoint_url=s3_service.endpoint_url,
        skip_instance_cache=True,
    )
    content = secrets.token_bytes(13 << 20)
    files.pipe_file(f"{bucket}/a/small", b"small")
    with files.open(f"{bucket}/a/b/large", "wb", block_size=5 << 20) as file:
        file.write(content)
    assert files.cat_file(f"{bucket}/a/b/large", start=5 << 20, end=(5 << 20) + 9) == content[5 << 20 :][:9]
    with files.open(f"{bucket}/a/b/large", "rb") as file:
        file.seek(12 << 20)
        assert file.read() == content[12 << 20 :]
    assert files.ls(f"{bucket}/a", detail=False) == [f"{bucket}/a/b", f"{bucket}/a/small"]
    assert files.find(bucket) == [f"{bucket}/a/b/large", f"{bucket}/a/small"]
    assert files.glob(f"{bucket}/**/l*") == [f"{bucket}/a/b/large"]
    assert files.info(f"{bucket}/a/small")["size"] == 5
    assert (files.isdir(f"{bucket}/a"), files.exists(f"{bucket}/none")) == (True, False)
    files.copy(f"{bucket}/a/small", f"{bucket}/copy")
    files.mv(f"{bucket}/copy", f"{bucket}/moved")
    files.get(f"{bucket}/a", str(tmp_path / "got"), recursive=True)
    assert (tmp_path / "got" / "b" / "large").read_bytes() == content
    files.put(str(tmp_path / "got"), f"{bucket}/put", recursive=True)
    assert files.du(f"{bucket}/put") == 5 + len(content)
    files.touch(f"{bucket}/empty")
    files.rm(f"{bucket}/put", recursive=True)
    files.invalidate_cache()
    assert sorted(files.find(bucket)) == [
        f"{bucket}/{key}" for key in ("a/b/large", "a/small", "empty", "moved")
    ]
    files.rm(bucket, recursive=True)
    assert not files.exists(bucket)


@pytest.fixture
def connection(s3_service: Service, monkeypatch: pytest.MonkeyPatch) -> str:
    """A connection with one URL."""
    owner = first_key_of(s3_service)
    text = {
        "conn_type": "aws",
        "login": owner.access_key_id,
        "password": owner.secret_access_key,
        "extra": {"endpoint_url": s3_service.endpoint_url, "region_name": "us-east-1"},
    }
    name = f"one_url_{secrets.token_hex(4)}"
    monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps(text))
    return name


def test_the_hook_of_airflow(connection: str, bucket: str, tmp_path: Path) -> None:
    hook = S3Hook(connection)
    assert hook.check_for_bucket(bucket)
    hook.load_string("hello", "a/b.txt", bucket)
    with pytest.raises(ValueError, match="already exists"):
        hook.load_string("again", "a/b.txt", bucket)
    hook.load_string("again", "a/b.txt", bucket, replace=True)
    assert hook.read_key("a/b.txt", bucket) == "again"
    (tmp_path / "file").write_bytes(b"x" * 9_000_000)
    hook.load_file(tmp_path / "file", "large", bucket)
    assert Path(hook.download_file("large", bucket, str(tmp_path))).read_bytes() == b"x" * 9_000_000
    assert sorted(hook.list_keys(bucket)) == ["a/b.txt", "large"]
    assert hook.list_prefixes(bucket, delimiter="/") == ["a/"]
    assert hook.check_for_wildcard_key("a/*.txt", bucket)
    assert not hook.check_for_key("none", bucket)
    hook.copy_object("large", "copy", bucket, bucket)
    assert hook.generate_presigned_url("get_object", {"Bucket": bucket, "Key": "large"}).startswith("http")
    hook.delete_objects(bucket, ["copy", "large", "a/b.txt"])
    assert hook.list_keys(bucket) == []
    hook.create_bucket(f"{bucket}-2")
    hook.delete_bucket(f"{bucket}-2", force_delete=True)
    assert not hook.check_for_bucket(f"{bucket}-2")


def test_object_storage_of_airflow(connection: str, bucket: str) -> None:
    root = ObjectStoragePath(f"s3://{connection}@{bucket}/")
    (root / "a" / "b.txt").write_text("hello")
    assert (root / "a" / "b.txt").read_text() == "hello"
    assert [path.name for path in (root / "a").iterdir()] == ["b.txt"]
    with (root / "large").open("wb") as file:
        file.write(b"x" * 9_000_000)
    assert (root / "large").stat().st_size == 9_000_000
    assert (root / "large").checksum()
    (root / "large").copy(root / "copy")
    assert (root / "copy").exists()
    (root / "copy").unlink()
    assert not (root / "copy").exists()


@pytest.fixture(scope="session")
def awscli(pytestconfig: pytest.Config) -> Path:
    """The Python of an environment with the AWS CLI, which wants a botocore of its own."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    folder = pytestconfig.rootpath / f".venv-awscli-python{version}"
    python, complete = folder / "bin" / "python", folder / "complete"
    if not complete.exists():
        venv.create(folder, clear=True, with_pip=True, symlinks=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", AWSCLI], check=True, timeout=600)
        complete.touch()
    return python


@pytest.fixture
def aws(awscli: Path, s3_service: Service) -> Aws:
    owner = first_key_of(s3_service)

    def aws(*arguments: str) -> str:
        done = subprocess.run(
            [str(awscli), "-m", "awscli", *arguments],
            env={
                **os.environ,
                "AWS_ACCESS_KEY_ID": owner.access_key_id,
                "AWS_SECRET_ACCESS_KEY": owner.secret_access_key,
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_ENDPOINT_URL": s3_service.endpoint_url,
                "AWS_PAGER": "",
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return aws


@pytest.mark.timeout(700)
def test_the_aws_cli(aws: Aws, tmp_path: Path) -> None:
    name = f"s3://cli-{secrets.token_hex(4)}"
    aws("s3", "mb", name)
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "a.txt").write_text("a")
    (source / "sub" / "large").write_bytes(secrets.token_bytes(17 << 20))
    for file in (source / "a.txt", source / "sub" / "large"):
        # S3 tells whole seconds: a file that is made in the second of its upload seems newer than its object.
        os.utime(file, (time.time() - 60, time.time() - 60))
    aws("s3", "sync", str(source), f"{name}/data/")
    assert aws("s3", "sync", str(source), f"{name}/data/") == ""
    listed = aws("s3", "ls", f"{name}/data/")
    assert "PRE sub/" in listed
    assert listed.split()[-1] == "a.txt"
    assert len(aws("s3", "ls", "--recursive", name).splitlines()) == 2
    aws("s3", "cp", f"{name}/data/sub/large", f"{name}/copy")
    aws("s3", "mv", f"{name}/copy", f"{name}/moved")
    aws("s3", "cp", f"{name}/moved", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == (source / "sub" / "large").read_bytes()
    (source / "a.txt").unlink()
    assert "delete" in aws("s3", "sync", "--delete", str(source), f"{name}/data/")
    aws("s3api", "put-object", "--bucket", name.removeprefix("s3://"), "--key", "folder/")
    assert "PRE folder/" in aws("s3", "ls", f"{name}/")
    aws("s3", "rm", "--recursive", name)
    assert aws("s3", "ls", name) == ""
    aws("s3", "rb", name)
