"""Where the references of a source lead: S3, a file of the source, or what ``--map`` says instead."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from airflow_provider_lookoutvision.moving.errors import MovingError
from airflow_provider_lookoutvision.moving.sources import FolderSource, Source, inside, parse_s3_uri


@dataclass(frozen=True)
class S3Object:
    """An object, which stays where it is."""

    bucket: str
    key: str

    @property
    def uri(self) -> str:
        """``s3://bucket/key``."""
        return f"s3://{self.bucket}/{self.key}"


@dataclass(frozen=True)
class File:
    """A file, which has to be uploaded."""

    source: Source
    name: str

    @property
    def uri(self) -> str:
        """For messages."""
        return f"{self.source.uri}{self.name}"


def parse_maps(given: Sequence[str]) -> Mapping[str, str]:
    """What ``--map OLD=NEW`` says. OLD is the beginning of references, NEW a place in S3 or a folder.

    :raises MovingError: when one isn't of this form.
    """
    maps = {}
    for each in given:
        found = re.fullmatch(r"(.+?)=(s3://.+|[/.~].*)", each) or re.fullmatch(r"([^=]+)=(.+)", each)
        if not found:
            raise MovingError(f"--map {each} is not OLD=NEW, as s3://old/=s3://new/ or s3://old/=./images/")
        maps[found[1]] = found[2]
    return check_maps(maps)


def check_maps(maps: Mapping[str, str]) -> Mapping[str, str]:
    """The maps, if each leads to S3 or to a folder.

    :raises MovingError: when one doesn't.
    """
    for old, new in maps.items():
        if not old or not (new.startswith("s3://") or Path(new).expanduser().is_dir()):
            raise MovingError(
                f"References to {old} can't be mapped to {new}, which is neither S3 nor a folder"
            )
    return maps


def locate(reference: str, source: Source, base: str, maps: Mapping[str, str]) -> S3Object | File:
    """Where a reference of a source leads.

    :param base: the folder of the source where names begin.
    :raises MovingError: when it leads nowhere, such as to another machine or out of the source.
    """
    for old in sorted(maps, key=len, reverse=True):
        if reference.startswith(old):
            new, rest = maps[old], reference.removeprefix(old)
            if new.startswith("s3://"):
                return S3Object(*parse_s3_uri(new + rest))
            rest = rest.lstrip("/")
            return File(_folder(new), inside(rest, new))
    if reference.startswith("s3://"):
        return S3Object(*parse_s3_uri(reference))
    if ":" in reference.partition("/")[0]:
        raise MovingError(f"{reference} is neither in S3 nor a file: --map says where it is instead")
    name = inside(base + reference if not reference.startswith("/") else reference, source.uri)
    if in_s3 := source.reference(name):
        return S3Object(*parse_s3_uri(in_s3))
    return File(source, name)


@cache
def _folder(path: str) -> FolderSource:
    return FolderSource(Path(path).expanduser())
