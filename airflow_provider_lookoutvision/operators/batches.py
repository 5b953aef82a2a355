"""Working through the images of an S3 prefix, so that a retry goes on where an earlier try ended.

The results are written to S3 in parts as they come, and read back by the next try: what is listed with the
same ETag is not done again, whatever else has been added, replaced or deleted meanwhile. Each try writes
parts of its own, so that two at once do each other no harm. Images are listed, worked on and written in the
order of their keys, a few at a time: memory doesn't grow with their number.
"""

from __future__ import annotations

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
from typing import Any

from airflow_provider_lookoutvision.manifests import IMAGE_NAMES
from airflow_provider_lookoutvision.operators.pacing import Pace, Stopped

PART_RESULTS = 500
PART_SECONDS = 10.0
_GLANCE_SECONDS = 0.5  # between two looks at whether the task is told to end
_MOST_DELETED = 1000  # in one request, says S3

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Image:
    """An object in S3."""

    key: str
    etag: str


@dataclass(frozen=True)
class Result:
    """What came of an image: the ETag of what was looked at, and the line that is written of it."""

    key: str
    etag: str
    line: dict[str, Any]

    @property
    def failed(self) -> bool:
        """Whether the image could not be used."""
        return "error" in self.line


def images(client: Any, bucket: str, prefix: str) -> Iterator[Image]:
    """List the images below a prefix in S3's order, which is that of the keys' UTF-8 bytes."""
    for listed in _objects(client, bucket, prefix):
        if listed["Key"].lower().endswith(IMAGE_NAMES):
            yield Image(listed["Key"], listed["ETag"])


class Checkpoint:
    """The parts of one batch: what this try and the earlier ones have done.

    :param client: of S3.
    :param folder: the keys of all parts begin with this.
    :param tokens: of this try, and of the others whose parts count too; the first is this try's.
    """

    def __init__(self, client: Any, bucket: str, folder: str, tokens: Sequence[str]) -> None:
        self._client, self._bucket, self._folder, self._tokens = client, bucket, folder, tokens
        self._own = f"{folder}{tokens[0]}/{secrets.token_hex(8)}/"
        self._count = 0

    def done(self) -> Iterator[Result]:
        """Yield what earlier tries have done, in the order of the keys, reading a part of each at a time."""
        parts = sorted(self._parts())
        tries = [list(keys) for _, keys in groupby(parts, key=lambda key: key.rpartition("/")[0])]
        return heapq.merge(*map(self._read, tries), key=lambda result: result.key)

    def keep(self, results: Collection[Result]) -> None:
        """Write the next part. Failures have no part in it: they cost nothing, and may have been mended."""
        lines = [
            json.dumps([result.key, result.etag, result.line]) for result in results if not result.failed
        ]
        if lines:
            key = f"{self._own}{self._count:06}.jsonl"
            self._client.put_object(Bucket=self._bucket, Key=key, Body="\n".join(lines).encode())
            self._count += 1

    def remove(self) -> None:
        """Delete the parts. It is only tidying up: a failure is logged."""
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
                continue  # another try has come to its end, and removed it
            for line in content.splitlines():
                yield Result(*json.loads(line))


def work_through(
    images: Iterable[Image],
    checkpoint: Checkpoint,
    work: Callable[[Image], Result],
    workers: int,
    take: Callable[[Result], None],
    pace: Pace,
) -> None:
    """Do what isn't done yet, ``workers`` at a time, and take all results in the images' order.

    :param pace: of the work; stopped when something has failed.
    :raises Exception: what ``work`` raises. What has been done by then is kept.
    :raises Stopped: when the pace is. What has been done by then is kept, and then what was under way: a
        task that is told to end may have five seconds, and a slow service takes longer to answer.
    """
    window: deque[Result | Future[Result]] = deque()
    fresh: list[Result] = []
    count, kept_at = 0, time.monotonic()

    def settle() -> None:
        nonlocal count, kept_at
        first = window[0]  # and there it stays until it is counted, since a signal may come at any moment
        while isinstance(first, Future) and not wait([first], _GLANCE_SECONDS).done:
            if pace.stopped:
                raise Stopped("The task was told to end")
        result = first if isinstance(first, Result) else first.result()
        if result is not first:
            fresh.append(result)
        window.popleft()
        take(result)
        count += 1
        if len(fresh) >= PART_RESULTS or (fresh and time.monotonic() - kept_at >= PART_SECONDS):
            checkpoint.keep(fresh)
            fresh.clear()
            kept_at = time.monotonic()
            log.info("%d images are done", count)

    pool = ThreadPoolExecutor(workers, thread_name_prefix="detect")
    try:
        for image, known in _join(images, checkpoint.done()):
            window.append(known or pool.submit(work, image))
            if len(window) >= 2 * workers:
                settle()
        while window:
            settle()
    except BaseException:
        pace.stopped = True
        pool.shutdown(wait=False, cancel_futures=True)
        checkpoint.keep(fresh)
        pool.shutdown()
        # What a signal came upon while it was counted is kept twice, which does no harm.
        ended = (each for each in window if isinstance(each, Future) and not each.cancelled())
        checkpoint.keep([each.result() for each in ended if each.exception() is None])
        raise
    pool.shutdown()
    checkpoint.keep(fresh)


def _join(images: Iterable[Image], done: Iterator[Result]) -> Iterator[tuple[Image, Result | None]]:
    """Both are sorted by key, so one pass finds what belongs together."""
    result = next(done, None)
    for image in images:
        known = None
        while result and result.key <= image.key:
            if (result.key, result.etag) == (image.key, image.etag):
                known = result
            result = next(done, None)
        yield image, known


def _objects(client: Any, bucket: str, prefix: str) -> Iterator[dict[str, Any]]:
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    for page in pages:
        yield from page.get("Contents", ())
