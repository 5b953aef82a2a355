"""The images of a batch, a few at a time in threads: a retry goes on where an earlier try ended."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait

from airflow_provider_lookoutvision.batches.images import Image, Result, join
from airflow_provider_lookoutvision.batches.results import PART_RESULTS, PART_SECONDS, Checkpoint
from airflow_provider_lookoutvision.operators.adaptive_concurrency import AdaptiveConcurrency, TaskStopped

_STOP_CHECK_SECONDS = 0.5  # between two checks whether the task was asked to stop

log = logging.getLogger(__name__)


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
        for image, saved in join(images, checkpoint.load()):
            window.append(saved or pool.submit(process, image))
            if len(window) >= 2 * workers:
                settle()
        while window:
            settle()
    except BaseException:
        concurrency.stopped = True
        pool.shutdown(wait=False, cancel_futures=True)
        checkpoint.save(unsaved)
        log.info("The task ends early: the results so far are saved; %d images are processed", count)
        pool.shutdown()
        # A result that was being counted when a signal came is saved twice, which does no harm.
        ended = (each for each in window if isinstance(each, Future) and not each.cancelled())
        checkpoint.save([each.result() for each in ended if each.exception() is None])
        raise
    pool.shutdown()
    checkpoint.save(unsaved)
