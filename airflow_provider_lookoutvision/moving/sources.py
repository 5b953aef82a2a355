"""Where an import reads from: a folder, a prefix in S3, or a ZIP archive.

Each has files under names such as ``train/normal/a.png``, whichever kind it is. No name leads out of it: a
reference like ``../a.png`` in a manifest is refused, and an archive is never unpacked.
"""

from __future__ import annotations

import os
import posixpath
import zipfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from botocore.exceptions import ClientError

from airflow_provider_lookoutvision.moving.errors import MovingError

LARGEST_TEXT = 1024 * 1024 * 1024  # of a manifest
_NOT_THERE = ("404", "NoSuchKey", "NoSuchBucket")


class Source(Protocol):
    """Files under names."""

    uri: str
    """Where it is, for messages; a name is put after it."""

    @property
    def sizes(self) -> Mapping[str, int]:
        """The names of all files, sorted, and their sizes in bytes."""

    def size(self, name: str) -> int | None:
        """The size of one file, without a look at the others; None when there is no such file."""

    def read(self, name: str) -> bytes:
        """The content of a file."""

    def reference(self, name: str) -> str | None:
        """The file as ``s3://bucket/key``, if it is in S3 already."""


class FolderSource:
    """A folder. Names that begin with a dot are left out: file systems and file managers put them there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.uri = f"{folder}/"

    @cached_property
    def sizes(self) -> Mapping[str, int]:
        """The names of all files and their sizes."""
        found: dict[str, int] = {}
        for parent, folders, files in os.walk(self.folder):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in files:
                path = Path(parent, name)
                if not name.startswith(".") and path.is_file():
                    found[path.relative_to(self.folder).as_posix()] = path.stat().st_size
        for name in found:
            if not name.isprintable():
                raise MovingError(f"{self.uri}{name!r} has a name that no manifest can have: rename it")
        return dict(sorted(found.items()))

    def size(self, name: str) -> int | None:
        """The size of a file."""
        path = self.folder / inside(name, self.uri)
        return path.stat().st_size if path.is_file() else None

    def read(self, name: str) -> bytes:
        """The content of a file."""
        return (self.folder / inside(name, self.uri)).read_bytes()

    def reference(self, name: str) -> str | None:  # noqa: ARG002
        """None: it is on a disk."""
        return None


class S3Source:
    """The objects below ``s3://bucket/prefix/``. They stay where they are."""

    def __init__(self, client: Any, bucket: str, prefix: str) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = prefix
        self.uri = f"s3://{bucket}/{prefix}"

    @cached_property
    def sizes(self) -> Mapping[str, int]:
        """The names of all objects and their sizes."""
        return {
            name: size
            for name, (size, _) in objects_below(self._client, self._bucket, self._prefix).items()
            if name and not name.endswith("/")
        }

    def size(self, name: str) -> int | None:
        """The size of an object."""
        return object_size(self._client, self._bucket, self._prefix + inside(name, self.uri))

    def read(self, name: str) -> bytes:
        """The content of an object."""
        try:
            answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + inside(name, self.uri))
        except ClientError as error:
            raise refusal(error, f"{self.uri}{name}: ") from error
        content: bytes = answer["Body"].read()
        return content

    def reference(self, name: str) -> str:
        """The object."""
        return f"{self.uri}{inside(name, self.uri)}"


class ArchiveSource:
    """The members of a ZIP archive, read one at a time, each no larger than it says."""

    def __init__(self, file: Path) -> None:
        self.uri = f"{file}/"
        try:
            self._archive = zipfile.ZipFile(file)
        except (OSError, zipfile.BadZipFile) as error:
            raise MovingError(f"{file} can't be read as a ZIP archive: {error}") from error
        members = [member for member in self._archive.infolist() if not member.is_dir()]
        self.sizes: Mapping[str, int] = {member.filename: member.file_size for member in members}
        if len(self.sizes) < len(members):
            raise MovingError(f"{file} has two members of one name: nothing is read from it")
        for name in self.sizes:
            inside(name, self.uri)

    def size(self, name: str) -> int | None:
        """The size of a member."""
        return self.sizes.get(inside(name, self.uri))

    def read(self, name: str) -> bytes:
        """The content of a member, whose checksum is verified."""
        try:
            return self._archive.read(inside(name, self.uri))
        except (KeyError, OSError, EOFError, zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
            raise MovingError(f"{self.uri}{name} can't be read: {error}") from error

    def reference(self, name: str) -> str | None:  # noqa: ARG002
        """None: it is in a file."""
        return None


def inside(name: str, uri: str) -> str:
    """The name without ``.`` and ``..``.

    :raises MovingError: when it leads out of the source, or is no name of a file.
    """
    normal = posixpath.normpath(name)
    if name.startswith("/") or normal in (".", "..") or normal.startswith("../") or "\0" in name:
        raise MovingError(f"{uri}: the reference {name!r} leads out of it. `--map` says where it is instead")
    return normal


def objects_below(client: Any, bucket: str, prefix: str) -> dict[str, tuple[int, str]]:
    """The size and the ETag of each object below a prefix, by its key after that.

    :raises MovingError: when S3 refuses; a bucket that doesn't exist has none.
    """
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    try:
        return {
            each["Key"].removeprefix(prefix): (each["Size"], each["ETag"].strip('"'))
            for page in pages
            for each in page.get("Contents", ())
        }
    except ClientError as error:
        if error.response["Error"]["Code"] in _NOT_THERE:
            return {}
        raise refusal(error, f"s3://{bucket}/{prefix} can't be listed: ") from error


def object_size(client: Any, bucket: str, key: str) -> int | None:
    """The size of an object; None when there is none.

    :raises MovingError: when S3 refuses to say.
    """
    try:
        size: int = client.head_object(Bucket=bucket, Key=key)["ContentLength"]
    except ClientError as error:
        if error.response["Error"]["Code"] in _NOT_THERE:
            return None
        raise refusal(error, f"s3://{bucket}/{key} can't be looked at: ") from error
    return size


def refusal(error: ClientError, before: str) -> Exception:
    """S3's refusal as an error for the user, or itself where the same may succeed later."""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return MovingError(f"{before}{error}") if 400 <= status < 500 and status not in (408, 429) else error


def parse_s3_uri(uri: str) -> tuple[str, str]:
    """The bucket and the key of ``s3://bucket/key``; the key may be empty.

    :raises MovingError: when it is something else.
    """
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not uri.startswith("s3://") or not bucket:
        raise MovingError(f"{uri} is not s3://bucket/key")
    return bucket, key
