"""Buckets in a directory: what can be read and written, and that no key leads out of its bucket."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

import pytest
from bucket_contents import CONTENT, MOST, content_of, error_of

from airflow_provider_lookoutvision.server.settings import Settings
from airflow_provider_lookoutvision.server.storage.buckets import BucketError, Buckets, Location
from airflow_provider_lookoutvision.server.storage.directory_store import DirectoryStore
from airflow_provider_lookoutvision.server.storage.s3_store import S3Store
from airflow_provider_lookoutvision.server.storage.stores import store


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where buckets are; beside it lies what no key may reach."""
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "buckets" / "parts").mkdir(parents=True)
    (tmp_path / "buckets" / "other").mkdir()
    (tmp_path / "buckets" / "other" / "secret").write_bytes(b"secret")
    return tmp_path / "buckets"


@pytest.fixture
def buckets(root: Path) -> Buckets:
    return Buckets(DirectoryStore(root), ["*"])


def test_an_object_is_a_file(root: Path, buckets: Buckets) -> None:
    (root / "parts" / "a" / "b").mkdir(parents=True)
    (root / "parts" / "a" / "b" / "c 1.png").write_bytes(CONTENT)
    (root / "parts" / "..d").write_bytes(CONTENT)
    assert content_of(buckets, "a/b/c 1.png") == CONTENT
    assert content_of(buckets, "..d") == CONTENT


def test_the_settings_name_the_store(tmp_path: Path) -> None:
    (tmp_path / "buckets" / "parts").mkdir(parents=True)
    (tmp_path / "buckets" / "parts" / "k").write_bytes(CONTENT)
    assert content_of(Buckets(store(Settings(data_dir=tmp_path)), ["*"]), "k") == CONTENT
    assert isinstance(store(Settings(data_dir=tmp_path, buckets="s3")), S3Store)


@pytest.mark.parametrize(
    "key",
    [
        "../other/secret",
        "../../secret",
        "a/../../other/secret",
        "..",
        ".",
        "a/./b",
        "a/..",
        "/../other/secret",
        "//../other/secret",
    ],
)
def test_a_key_with_parts_that_are_no_names(key: str, root: Path, buckets: Buckets) -> None:
    (root / "parts" / "a").mkdir()
    error = error_of(buckets, key)
    assert error.input
    assert str(error) == f"s3://parts/{key} names no object"
    with pytest.raises(BucketError):
        buckets.write(Location("parts", key), b"x")


@pytest.mark.parametrize(
    "bucket", ["..", ".", "a/b", "", "x", "../buckets/other", "other/", "/etc", "öther", "other\0"]
)
def test_a_bucket_that_is_none(bucket: str, buckets: Buckets) -> None:
    assert error_of(buckets, "secret", bucket).input
    with pytest.raises(BucketError):
        buckets.write(Location(bucket, "secret"), b"x")


@pytest.mark.parametrize(
    "absolute", ["/etc/passwd", "//etc/passwd", "{root}/other/secret", "///{root}/../secret"]
)
def test_an_absolute_key_stays_in_its_bucket(absolute: str, root: Path, buckets: Buckets) -> None:
    error = error_of(buckets, absolute.format(root=root))
    assert error.input


def test_links_inside_a_bucket_are_not_followed(root: Path, buckets: Buckets) -> None:
    parts = root / "parts"
    (parts / "real").mkdir()
    (parts / "real" / "k").write_bytes(CONTENT)
    (parts / "out").symlink_to(root / "other" / "secret")
    (parts / "etc").symlink_to("/etc")
    (parts / "up").symlink_to("..")
    (parts / "within").symlink_to("real/k")
    (parts / "folder").symlink_to("real")
    (parts / "dangling").symlink_to("nothing")
    (parts / "round").symlink_to("round")
    for key in ("out", "within", "dangling", "round"):
        error = error_of(buckets, key)
        assert error.input
        assert str(error) == f"s3://parts/{key} leads through a symbolic link, which buckets don't follow"
    for key in ("etc/passwd", "up/other/secret", "folder/k", "round/k"):
        assert error_of(buckets, key).input
    assert content_of(buckets, "real/k") == CONTENT


def test_writing_through_a_link_changes_the_link_only(root: Path, buckets: Buckets) -> None:
    (root / "parts" / "out").symlink_to(root / "other" / "secret")
    (root / "parts" / "up").symlink_to("..")
    buckets.write(Location("parts", "out"), CONTENT)
    assert (root / "other" / "secret").read_bytes() == b"secret"
    assert content_of(buckets, "out") == CONTENT
    with pytest.raises(BucketError):
        buckets.write(Location("parts", "up/other/secret"), CONTENT)
    with pytest.raises(BucketError):
        buckets.write(Location("parts", "up/new/secret"), CONTENT)
    assert (root / "other" / "secret").read_bytes() == b"secret"
    assert not (root / "new").exists()


def test_a_bucket_may_be_a_link(root: Path, buckets: Buckets, tmp_path: Path) -> None:
    # The operator of the service may link a bucket; its users may not.
    (tmp_path / "share").mkdir()
    (tmp_path / "share" / "k").write_bytes(CONTENT)
    (root / "shared").symlink_to(tmp_path / "share")
    assert content_of(buckets, "k", "shared") == CONTENT


def test_what_is_no_file(root: Path, buckets: Buckets) -> None:
    parts = root / "parts"
    (parts / "folder").mkdir()
    os.mkfifo(parts / "pipe")
    with closing(socket.socket(socket.AF_UNIX)) as unix, closing(socket.socket(socket.AF_UNIX)):
        directory = os.open(parts, os.O_RDONLY)
        unix.bind(f"/proc/self/fd/{directory}/socket")
        os.close(directory)
        for key in ("folder", "pipe", "socket"):
            error = error_of(buckets, key)  # a pipe that nobody writes to would block an ordinary open
            assert (error.input, str(error)) == (True, f"s3://parts/{key} is not a file")
    error = error_of(buckets, "folder/")
    assert (error.input, str(error)) == (True, "s3://parts/folder/ is a folder, not an object")
    (parts / "file").write_bytes(CONTENT)
    assert (error_of(buckets, "file/k").input, str(error_of(buckets, "file/k"))) == (
        True,
        "s3://parts/file/k is not a file",
    )
    assert error_of(buckets, "n" * 300).input


def test_a_device(root: Path, buckets: Buckets) -> None:
    (root / "devices").symlink_to("/dev")
    error = error_of(buckets, "zero", "devices")
    assert (error.input, str(error)) == (True, "s3://devices/zero is not a file")


def test_what_is_not_there(root: Path, buckets: Buckets) -> None:
    error = error_of(buckets, "a/k")
    assert error.input
    assert str(error) == f"s3://parts/a/k does not exist (looked in the data directory's {root.name}/parts)"
    error = error_of(buckets, "k", "nobucket")
    assert error.input
    assert str(error).endswith(f"does not exist (looked in the data directory's {root.name}/nobucket)")
    assert not (root / "nobucket").exists()


def test_a_file_that_may_not_be_read() -> None:
    # Root may read everything, so the question is asked by another user.
    script = """
import os, sys, tempfile
from pathlib import Path
from airflow_provider_lookoutvision.server.storage.buckets import BucketError, Buckets, Location
from airflow_provider_lookoutvision.server.storage.directory_store import DirectoryStore
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
with tempfile.TemporaryDirectory(dir="/tmp") as folder:
    bucket = Path(folder, "parts")
    bucket.mkdir()
    Path(bucket, "k").write_bytes(b"secret")
    Path(bucket, "k").chmod(0)
    try:
        with Buckets(DirectoryStore(Path(folder)), ["*"]).open(Location("parts", "k"), 100):
            pass
    except BucketError as error:
        print(error.input, error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout == "True s3://parts/k can't be used: Permission denied\n", done.stderr


def test_directories_keep_no_versions(root: Path, buckets: Buckets) -> None:
    (root / "parts" / "k").write_bytes(CONTENT)
    error = error_of(buckets, "k", version="v1")
    assert error.input
    assert "leave VersionId out" in str(error)


def test_an_object_that_is_too_large(root: Path, buckets: Buckets) -> None:
    (root / "parts" / "k").write_bytes(b"x" * MOST)
    assert len(content_of(buckets, "k")) == MOST
    (root / "parts" / "k").write_bytes(b"x" * (MOST + 1))
    error = error_of(buckets, "k")
    assert (error.input, str(error)) == (True, "s3://parts/k has 1001 bytes; the most is 1000")


def test_write_makes_folders_and_replaces_whole(root: Path, buckets: Buckets) -> None:
    for content in (b"first and longer", b"second"):
        buckets.write(Location("parts", "a/b/k"), content)
        assert content_of(buckets, "a/b/k") == content
    assert [path.name for path in (root / "parts" / "a" / "b").iterdir()] == ["k"]
    buckets.write(Location("parts", "n" * 255), b"x")
    assert content_of(buckets, "n" * 255) == b"x"


@pytest.mark.parametrize("key", ["folder", "file/k", "n" * 256, "folder/"])
def test_a_write_that_fails_leaves_nothing(key: str, root: Path, buckets: Buckets) -> None:
    (root / "parts" / "folder").mkdir()
    (root / "parts" / "file").write_bytes(CONTENT)
    with pytest.raises(BucketError) as caught:
        buckets.write(Location("parts", key), b"x")
    assert caught.value.input
    assert sorted(path.name for path in (root / "parts").rglob("*")) == ["file", "folder"]


@pytest.mark.parametrize(
    ("patterns", "allowed"),
    [
        (["*"], {"images-1", "images-", "my.images", "parts"}),
        (["images-*"], {"images-1", "images-"}),
        (["images-?"], {"images-1"}),
        (["my.images", "parts"], {"my.images", "parts"}),
        (["*images*"], {"images-1", "images-", "my.images"}),
        (["IMAGES-*"], set()),
        ([], set()),
    ],
)
def test_patterns_of_buckets(patterns: list[str], allowed: set[str], root: Path) -> None:
    buckets = Buckets(DirectoryStore(root), patterns)
    for bucket in ("images-1", "images-", "my.images", "parts"):
        (root / bucket).mkdir(exist_ok=True)
        (root / bucket / "k").write_bytes(CONTENT)
        assert buckets.allows(bucket) == (bucket in allowed)
        if bucket in allowed:
            assert content_of(buckets, "k", bucket) == CONTENT
            buckets.write(Location(bucket, "k"), CONTENT)
        else:
            error = error_of(buckets, "k", bucket)
            assert error.input
            assert str(error) == f"the access key may not use the bucket of s3://{bucket}/k"
            with pytest.raises(BucketError):
                buckets.write(Location(bucket, "new"), CONTENT)
            assert not (root / bucket / "new").exists()


def test_a_disk_that_fails_is_a_fault_of_the_machine(root: Path) -> None:
    class Failing:
        """A store whose files break off, as those of a network share do."""

        def open(self, location: Location, most: int) -> BinaryIO:
            class Stream:
                def read(self) -> bytes:
                    raise OSError(errno.EIO, os.strerror(errno.EIO))

                def close(self) -> None:
                    pass

            return Stream()  # type: ignore[return-value]

        def write(self, location: Location, content: bytes) -> None:
            raise NotImplementedError

    error = error_of(Buckets(Failing(), ["*"]), "k")
    assert (error.input, str(error)) == (False, "s3://parts/k can't be read: Input/output error")
