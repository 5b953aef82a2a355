"""A batch of images below an S3 prefix, whose retry goes on where an earlier try ended.

Results are written to S3 in parts while they come in, and the next try reads them back: an image with the
same key and ETag isn't processed again, whatever was added, replaced or deleted meanwhile. Each try writes
its own parts, so two tries at once don't disturb each other. Images are listed, processed and written in the
order of their keys, a few at a time, so memory doesn't grow with their number.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import groupby
from typing import IO, Any

from airflow_provider_lookoutvision.manifests import is_image
from airflow_provider_lookoutvision.operators.adaptive_concurrency import AdaptiveConcurrency, TaskStopped

PART_RESULTS = 500
PART_SECONDS = 10.0
_STOP_CHECK_SECONDS = 0.5  # between two checks whether the task was asked to stop
_MOST_DELETED = 1000  # in one request to S3

# The names of an object's metadata.
_TOKEN = "client-token"  # noqa: S105
_DIGEST = "listing-digest"

log = logging.getLogger(__name__)


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
    for listed in _objects(client, bucket, prefix):
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
    :param folder: the keys of all parts begin with this.
    :param tokens: those of the tries whose parts count; the first is this try's.
    """

    def __init__(self, client: Any, bucket: str, folder: str, tokens: Sequence[str]) -> None:
        self._client, self._bucket, self._folder, self._tokens = client, bucket, folder, tokens
        self._own = f"{folder}{tokens[0]}/{secrets.token_hex(8)}/"
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
        for listed in _objects(self._client, self._bucket, self._folder):
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


def process_images(
    images: Iterable[Image],
    checkpoint: Checkpoint,
    process: Callable[[Image], Result],
    workers: int,
    handle: Callable[[Result], None],
    concurrency: AdaptiveConcurrency,
) -> None:
    """Process the images without a saved result, and handle all results in the images' order.

    :param process: processes one image, in one of the threads.
    :param workers: how many threads there are.
    :param handle: called with each result, saved or new.
    :param concurrency: of the requests that ``process`` sends; it is stopped when something fails.
    :raises Exception: what ``process`` raises. The results until then are saved.
    :raises TaskStopped: when ``concurrency`` is stopped. The results until then are saved first, and then
        those of the images in process: a task that is asked to stop may have five seconds, and a slow service
        takes longer to respond.
    """
    window: deque[Result | Future[Result]] = deque()
    unsaved: list[Result] = []
    count, saved_at = 0, time.monotonic()

    def settle() -> None:
        nonlocal count, saved_at
        first = window[0]  # it stays there until it is counted, since a signal may come at any moment
        while isinstance(first, Future) and not wait([first], _STOP_CHECK_SECONDS).done:
            if concurrency.stopped:
                raise TaskStopped("The task was asked to stop")
        result = first if isinstance(first, Result) else first.result()
        if result is not first:
            unsaved.append(result)
        window.popleft()
        handle(result)
        count += 1
        if len(unsaved) >= PART_RESULTS or (unsaved and time.monotonic() - saved_at >= PART_SECONDS):
            checkpoint.save(unsaved)
            unsaved.clear()
            saved_at = time.monotonic()
            log.info("%d images are processed", count)

    pool = ThreadPoolExecutor(workers, thread_name_prefix="detect")
    try:
        for image, saved in _join(images, checkpoint.load()):
            window.append(saved or pool.submit(process, image))
            if len(window) >= 2 * workers:
                settle()
        while window:
            settle()
    except BaseException:
        concurrency.stopped = True
        pool.shutdown(wait=False, cancel_futures=True)
        checkpoint.save(unsaved)
        pool.shutdown()
        # A result that was being counted when a signal came is saved twice, which does no harm.
        ended = (each for each in window if isinstance(each, Future) and not each.cancelled())
        checkpoint.save([each.result() for each in ended if each.exception() is None])
        raise
    pool.shutdown()
    checkpoint.save(unsaved)


def _join(images: Iterable[Image], saved: Iterator[Result]) -> Iterator[tuple[Image, Result | None]]:
    """Pair each image with its saved result. Both are sorted by key, so one pass is enough."""
    result = next(saved, None)
    for image in images:
        found = None
        while result and result.key <= image.key:
            if (result.key, result.etag) == (image.key, image.etag):
                found = result
            result = next(saved, None)
        yield image, found


def _objects(client: Any, bucket: str, prefix: str) -> Iterator[dict[str, Any]]:
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    for page in pages:
        yield from page.get("Contents", ())
