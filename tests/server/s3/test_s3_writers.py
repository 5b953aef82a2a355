"""Writers of one folder at once: folders come and go with the objects in them."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest

from airflow_provider_lookoutvision.server.s3.errors import S3Error
from airflow_provider_lookoutvision.server.s3.objects import Objects
from airflow_provider_lookoutvision.server.s3.records import Record

ROUNDS = 100
Result = TypeVar("Result")


@pytest.fixture
def objects(tmp_path: Path) -> Iterator[Objects]:
    """Objects in this process, whose threads take turns as often as they can."""
    objects = Objects(tmp_path)
    objects.create_bucket("bucket")
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield objects
    sys.setswitchinterval(interval)


class Refused(Exception):
    """InvalidRequest, for what another writer has made."""


def put(objects: Objects, key: str) -> None:
    file = objects.begin("bucket")
    try:
        file.write(b"x")
        if key.endswith("/"):
            objects.put_marker("bucket", key, Record("etag", 0, 0))
        else:
            objects.put("bucket", key, file, Record("etag", 1, 0))
    except S3Error as error:
        raise Refused if error.code == "InvalidRequest" else error from None
    finally:
        file.close()


def at_once(work: Callable[[str], Result], items: list[str]) -> list[Result]:
    """Call it with each item in a thread of its own; the first error is raised."""
    with ThreadPoolExecutor(len(items)) as threads:
        return list(threads.map(work, items))


def test_objects_come_and_go_beside_each_other(s3: Any, bucket: str, folder: Path) -> None:
    def work(key: str) -> None:
        for _ in range(30):
            s3.put_object(Bucket=bucket, Key=key, Body=b"x" if not key.endswith("/") else b"")
            s3.head_object(Bucket=bucket, Key=key)
            s3.delete_object(Bucket=bucket, Key=key)

    at_once(work, ["a/b/1", "a/b/2/", "a/b/2/3", "a/4"])
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "keys",
    [
        ["a/b/1", "a/b/2", "a/b/3", "a/b/4"],
        ["a/1/", "a/1/x", "a/2/", "a/2/y"],
        ["a/", "a/b/", "a/b/c/", "a/b/c/d"],
    ],
)
def test_what_was_written_is_there(objects: Objects, keys: list[str]) -> None:
    def work(key: str) -> None:
        for _ in range(ROUNDS):
            put(objects, key)
            assert objects.find("bucket", key), f"{key} was written, and is gone"
            objects.delete("bucket", key)

    at_once(work, keys)
    assert list(objects.bucket("bucket").iterdir()) == []


def test_a_name_is_an_object_or_a_folder(objects: Objects) -> None:
    def work(seed: str) -> None:
        chosen = random.Random(seed)
        for _ in range(ROUNDS):
            key = chosen.choice(["a", "a/", "a/b", "a/b/", "a/b/c"])
            with suppress(Refused):
                put(objects, key)
            objects.delete("bucket", key)

    at_once(work, ["1", "2", "3", "4"])
    assert list(objects.listed("bucket", by_folder=False)) == []
    put(objects, "a")  # whatever empty folders are left
    assert list(objects.bucket("bucket").iterdir()) == [objects.bucket("bucket") / "a"]


def test_an_object_and_a_marker_of_one_name_exclude_each_other(objects: Objects) -> None:
    def work(key: str) -> str | None:
        with suppress(Refused):
            put(objects, key)
            return key
        return None

    for number in range(ROUNDS):
        written = {key for key in at_once(work, [f"{number}", f"{number}/"]) if key}
        assert set(objects.listed("bucket", f"{number}", by_folder=False)) == written


def test_an_object_takes_the_place_of_empty_folders(s3: Any, bucket: str, folder: Path) -> None:
    (folder / "a" / "left" / "behind").mkdir(parents=True)
    s3.put_object(Bucket=bucket, Key="a", Body=b"x")
    assert (folder / "a").read_bytes() == b"x"


def test_nothing_is_removed_outside_the_bucket(objects: Objects, tmp_path: Path) -> None:
    outside = tmp_path / "outside" / "empty"
    outside.mkdir(parents=True)
    (objects.bucket("bucket") / "link").symlink_to(tmp_path / "outside")
    for key in ("../../outside", "../../outside/empty/", "link/empty", "link/empty/", "link/empty/none/"):
        with pytest.raises((Refused, S3Error)):
            put(objects, key)
        objects.delete("bucket", key)
    put(objects, "link")  # takes the place of the link, not of what it leads to
    assert outside.is_dir()
    assert (objects.bucket("bucket") / "link").read_bytes() == b"x"


@pytest.mark.parametrize("name", [b"\xff", b".s3-" + b"0" * 32])
def test_a_folder_with_what_no_key_names_is_not_replaced(objects: Objects, name: bytes) -> None:
    Path(objects.bucket("bucket"), "a", os.fsdecode(name)).mkdir(parents=True)
    with pytest.raises(Refused):
        put(objects, "a")
    put(objects, "a/b")
    assert list(objects.listed("bucket", by_folder=False)) == ["a/b"]


def test_a_bucket_whose_first_object_comes_while_it_is_deleted_stays(
    objects: Objects, tmp_path: Path
) -> None:
    class Interrupted(Objects):
        def _has_objects(self, bucket: str, prefix: str) -> bool:
            found = super()._has_objects(bucket, prefix)
            if key:
                put(objects, key)
            return found

    for key in ("m/", "m/n/", "o", "p/q"):
        with pytest.raises(S3Error, match="BucketNotEmpty"):
            Interrupted(tmp_path).delete_bucket("bucket")
        assert list(objects.listed("bucket", by_folder=False)) == [key]
        objects.delete("bucket", key)
    key = ""
    Interrupted(tmp_path).delete_bucket("bucket")
    with pytest.raises(S3Error, match="NoSuchBucket"):
        put(objects, "m/")


def test_buckets_come_and_go_under_writers(objects: Objects) -> None:
    allowed = {"NoSuchBucket", "BucketNotEmpty"}

    def work(key: str) -> None:
        for _ in range(ROUNDS):
            try:
                if key:
                    put(objects, key)
                    objects.delete("bucket", key)
                else:
                    objects.delete_bucket("bucket")
                    objects.create_bucket("bucket")
            except S3Error as error:
                if error.code not in allowed:
                    raise

    at_once(work, ["", "a/b", "a/f/", "a/c/d", "e"])
    objects.create_bucket("bucket")
    assert list(objects.listed("bucket", by_folder=False)) == []
