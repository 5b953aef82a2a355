"""Keys: folder markers, what a folder can't hold, any key at random, and their order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from s3_clients import keys_of, refusal_and_message


def test_folder_markers(s3: Any, bucket: str, folder: Path) -> None:
    s3.put_object(Bucket=bucket, Key="a/b/", Body=b"", ContentType="application/x-directory")
    assert (folder / "a" / "b").is_dir()
    assert s3.head_object(Bucket=bucket, Key="a/b/")["ContentType"] == "application/x-directory"
    assert s3.get_object(Bucket=bucket, Key="a/b/")["Body"].read() == b""
    s3.put_object(Bucket=bucket, Key="a/b/c", Body=b"x")
    assert keys_of(s3, bucket) == ["a/b/", "a/b/c"]
    s3.delete_object(Bucket=bucket, Key="a/b/c")
    assert keys_of(s3, bucket) == ["a/b/"]
    assert s3.list_objects_v2(Bucket=bucket, Delimiter="/")["CommonPrefixes"] == [{"Prefix": "a/"}]
    s3.delete_object(Bucket=bucket, Key="a/b/")
    assert list(folder.iterdir()) == []
    s3.put_object(Bucket=bucket, Key="a/", Body=b"")
    s3.put_object(Bucket=bucket, Key="a/k", Body=b"x")
    s3.delete_object(Bucket=bucket, Key="a/")
    assert keys_of(s3, bucket) == ["a/k"]
    code, status, message = refusal_and_message(s3.put_object, Bucket=bucket, Key="b/", Body=b"x")
    assert (code, status) == ("InvalidRequest", 400)
    assert "must be empty" in message


@pytest.mark.parametrize(
    ("key", "code"),
    [
        ("a//b", "InvalidArgument"),
        ("/a", "InvalidArgument"),
        ("a/./b", "InvalidArgument"),
        ("a/../b", "InvalidArgument"),
        ("..", "InvalidArgument"),
        ("a\0b", "InvalidArgument"),
        ("a//", "InvalidArgument"),
        (".s3-0123456789abcdef0123456789abcdef", "InvalidArgument"),
        ("n" * 256, "KeyTooLongError"),
        ("/".join(["n" * 200] * 6), "KeyTooLongError"),
    ],
)
def test_keys_that_no_folder_can_hold(s3: Any, bucket: str, folder: Path, key: str, code: str) -> None:
    assert refusal_and_message(s3.put_object, Bucket=bucket, Key=key, Body=b"x")[:2] == (code, 400)
    assert refusal_and_message(s3.create_multipart_upload, Bucket=bucket, Key=key)[0] == code
    assert refusal_and_message(s3.get_object, Bucket=bucket, Key=key)[:2] == ("NoSuchKey", 404)
    s3.delete_object(Bucket=bucket, Key=key)
    assert list(folder.iterdir()) == []


def test_an_object_is_no_folder_too(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="a", Body=b"x")
    code, _, message = refusal_and_message(s3.put_object, Bucket=bucket, Key="a/b", Body=b"x")
    assert (code, message) == (
        "InvalidRequest",
        "The buckets of this service are folders: 'a' is an object, and can't be a folder too",
    )
    assert refusal_and_message(s3.put_object, Bucket=bucket, Key="a/", Body=b"")[0] == "InvalidRequest"
    s3.delete_object(Bucket=bucket, Key="a")
    s3.put_object(Bucket=bucket, Key="a/b", Body=b"x")
    assert refusal_and_message(s3.put_object, Bucket=bucket, Key="a", Body=b"x")[0] == "InvalidRequest"
    s3.delete_object(Bucket=bucket, Key="a/b")
    s3.put_object(Bucket=bucket, Key="a", Body=b"x")


PARTS = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=40
).filter(lambda part: part not in {".", ".."})


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(PARTS, min_size=1, max_size=4), is_marker=st.booleans())
def test_any_key(s3: Any, bucket: str, parts: list[str], is_marker: bool) -> None:
    key = "/".join(parts) + ("/" if is_marker else "")
    assume(len(key.encode()) <= 1024 and all(len(part.encode()) <= 255 for part in parts))
    content = b"" if is_marker else key.encode()
    s3.put_object(Bucket=bucket, Key=key, Body=content)
    assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == content
    assert keys_of(s3, bucket) == [key]
    assert keys_of(s3, bucket, Prefix=key) == [key]
    s3.copy_object(Bucket=bucket, Key=f"copy/{key}", CopySource={"Bucket": bucket, "Key": key})
    if key.isprintable():
        s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key}, {"Key": f"copy/{key}"}]})
    else:  # XML has no control characters
        s3.delete_object(Bucket=bucket, Key=key)
        s3.delete_object(Bucket=bucket, Key=f"copy/{key}")
    assert keys_of(s3, bucket) == []


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.sets(st.text("ab-./0ä", min_size=1, max_size=6), max_size=12), after=st.text("ab/-", max_size=3)
)
def test_the_order_of_keys(s3: Any, bucket: str, folder: Path, names: set[str], after: str) -> None:
    kept = []
    for name in sorted(names):
        try:
            s3.put_object(Bucket=bucket, Key=name, Body=b"")
            kept.append(name)
        except ClientError as error:
            if error.response["Error"]["Code"] not in {"InvalidArgument", "InvalidRequest"}:
                raise
    kept.sort(key=str.encode)
    assert keys_of(s3, bucket) == kept
    assert keys_of(s3, bucket, PaginationConfig={"PageSize": 2}) == kept
    assert keys_of(s3, bucket, StartAfter=after) == [key for key in kept if key.encode() > after.encode()]
    for prefix in {name[:2] for name in names}:
        assert keys_of(s3, bucket, Prefix=prefix) == [key for key in kept if key.startswith(prefix)]
    for key in kept:
        s3.delete_object(Bucket=bucket, Key=key)
    assert list(folder.iterdir()) == []
