"""The images of a batch, the result of each, and the digest of all of them.

Images are listed in the order of their keys, and so are saved results: pairing them takes one pass, and
memory doesn't grow with their number.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_lookoutvision.manifests import is_image


@dataclass(frozen=True)
class Image:
    """An object in S3."""

    key: str
    etag: str


@dataclass(frozen=True)
class Result:
    """The result of an image: the ETag of the object that was read, and the line to write."""

    key: str
    etag: str
    line: dict[str, Any]

    @property
    def failed(self) -> bool:
        """Whether the image can't be used."""
        return "error" in self.line


def list_images(client: Any, bucket: str, prefix: str) -> Iterator[Image]:
    """List the images below a prefix in S3's order, which is that of the keys' UTF-8 bytes."""
    for listed in objects(client, bucket, prefix):
        if is_image(listed["Key"]):
            yield Image(listed["Key"], listed["ETag"])


class ListingDigest:
    """A digest of the images that a batch lists, in their order, and of what it does with them.

    :param options: what the results depend on besides the images.
    """

    def __init__(self, options: Sequence[str]) -> None:
        self._hash = hashlib.sha256(json.dumps(options).encode())

    def track(self, images: Iterable[Image]) -> Iterator[Image]:
        """Yield the images, and add each to the digest."""
        for image in images:
            self._hash.update(json.dumps([image.key, image.etag]).encode() + b"\n")
            yield image

    def hexdigest(self) -> str:
        """The digest so far: 64 characters."""
        return self._hash.hexdigest()


def join(images: Iterable[Image], saved: Iterator[Result]) -> Iterator[tuple[Image, Result | None]]:
    """Pair each image with its saved result. Both are sorted by key, so one pass is enough."""
    result = next(saved, None)
    for image in images:
        found = None
        while result and result.key <= image.key:
            if (result.key, result.etag) == (image.key, image.etag):
                found = result
            result = next(saved, None)
        yield image, found


def objects(client: Any, bucket: str, prefix: str) -> Iterator[dict[str, Any]]:
    """Yield the objects below a prefix, as S3 lists them."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    for page in pages:
        yield from page.get("Contents", ())
