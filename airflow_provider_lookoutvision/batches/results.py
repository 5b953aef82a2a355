"""Where the results of a batch are in S3: saved in parts while they come in, and then one object of all.

An image with the same key and ETag isn't processed again, whatever was added, replaced or deleted meanwhile.
Each try writes its own parts, so two tries at once don't disturb each other.
"""

from __future__ import annotations

import heapq
import json
import logging
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import IO, Any

from airflow_provider_lookoutvision.batches.images import Image, ListingDigest, Result, objects

# When a part is written: at so many results, or so long after the first.
PART_RESULTS = 500
PART_SECONDS = 10.0
_MOST_DELETED = 1000  # in one request to S3

# The names of an object's metadata.
_TOKEN = "client-token"  # noqa: S105
_DIGEST = "listing-digest"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ResultsObject:
    """The object of a batch's results, which knows who has written it, and of which images.

    :param client: of S3.
    :param token: of the task instance.
    :param options: what the results depend on besides the images.
    """

    client: Any
    bucket: str
    key: str
    token: str
    options: Sequence[str]

    def is_written(self, images: Callable[[], Iterable[Image]]) -> bool:
        """Whether it is there, written by this task instance, and of the images as they are now."""
        from botocore.exceptions import ClientError

        try:
            metadata = self.client.head_object(Bucket=self.bucket, Key=self.key)["Metadata"]
        except ClientError as error:
            if error.response["Error"]["Code"] == "404":
                return False
            raise
        if metadata.get(_TOKEN) != self.token:
            return False
        digest = ListingDigest(self.options)
        for _ in digest.track(images()):
            pass
        if metadata.get(_DIGEST) == digest.hexdigest():
            return True
        log.warning(
            "s3://%s/%s has the results of other images than there are now: an earlier try, or an earlier "
            "run with this run_id, has written it. All images are processed",
            self.bucket,
            self.key,
        )
        return False

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yield its lines."""
        for text in self.client.get_object(Bucket=self.bucket, Key=self.key)["Body"].iter_lines():
            yield json.loads(text)

    def write(self, file: IO[bytes], digest: ListingDigest) -> None:
        """Write it.

        :param digest: of the images, with the same options.
        """
        file.seek(0)
        metadata = {_TOKEN: self.token, _DIGEST: digest.hexdigest()}
        extra = {"ContentType": "application/x-ndjson", "Metadata": metadata}
        self.client.upload_fileobj(file, Bucket=self.bucket, Key=self.key, ExtraArgs=extra)


class Checkpoint:
    """The parts of one batch: the results of this try and of the earlier ones.

    :param client: of S3.
    :param key: of the object that they become; the keys of all parts begin with it and ``.parts/``.
    :param tokens: those of the tries whose parts count; the first is this try's.
    """

    def __init__(self, client: Any, bucket: str, key: str, tokens: Sequence[str]) -> None:
        self._client, self._bucket, self._tokens = client, bucket, tokens
        self._folder = f"{key}.parts/"
        self._own = f"{self._folder}{tokens[0]}/{secrets.token_hex(8)}/"
        self._count = 0

    def load(self) -> Iterator[Result]:
        """Yield earlier tries' results in the order of the keys, reading one part of each try at a time."""
        parts = sorted(self._parts())
        tries = [list(keys) for _, keys in groupby(parts, key=lambda key: key.rpartition("/")[0])]
        return heapq.merge(*map(self._read, tries), key=lambda result: result.key)

    def save(self, results: Collection[Result]) -> None:
        """Write the next part, without failures: they cost nothing, and the image may be repaired by then."""
        lines = [
            json.dumps([result.key, result.etag, result.line]) for result in results if not result.failed
        ]
        if lines:
            key = f"{self._own}{self._count:06}.jsonl"
            self._client.put_object(Bucket=self._bucket, Key=key, Body="\n".join(lines).encode())
            self._count += 1

    def remove(self) -> None:
        """Delete the parts. The batch is complete without it, so an error is only logged."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            keys = [{"Key": key} for key in self._parts()]
            for first in range(0, len(keys), _MOST_DELETED):
                some = keys[first : first + _MOST_DELETED]
                self._client.delete_objects(Bucket=self._bucket, Delete={"Objects": some, "Quiet": True})
        except (BotoCoreError, ClientError) as error:
            log.warning("Parts remain under s3://%s/%s: %s", self._bucket, self._folder, error)

    def _parts(self) -> Iterator[str]:
        for listed in objects(self._client, self._bucket, self._folder):
            token, _, _ = listed["Key"].removeprefix(self._folder).partition("/")
            if token in self._tokens:
                yield listed["Key"]

    def _read(self, parts: Iterable[str]) -> Iterator[Result]:
        for key in parts:
            try:
                content = self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read()
            except self._client.exceptions.NoSuchKey:
                continue  # another try has finished, and removed it
            for line in content.splitlines():
                yield Result(*json.loads(line))
