"""What keeps callers from sending too many requests: one token bucket for each account and operation.

AWS allowed 5 requests a second; here there is no limit unless the setting ``requests_per_second`` sets one. A
bucket holds one second's worth of requests, and at least one. A caller chooses its region freely, so regions
share a bucket: otherwise each name that a client invents would have requests, and memory, of its own.
"""

from __future__ import annotations

import math
import threading
import time

from airflow_provider_lookoutvision.server import metrics
from airflow_provider_lookoutvision.server.calls.access import Caller
from airflow_provider_lookoutvision.server.protocol.errors import ThrottlingException


class Throttle:
    """The buckets of one process.

    :param rate: requests a second; None for no limit.
    """

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._lock = threading.Lock()
        self._buckets: dict[tuple[str, str], tuple[float, float]] = {}

    def admit(self, caller: Caller, operation: str) -> None:
        """Take one request out of the bucket.

        :raises ThrottlingException: when it is empty, saying when to come back.
        """
        if self._rate is None:
            return
        capacity = max(1.0, self._rate)
        bucket = (caller.account_id, operation)
        with self._lock:
            now = time.monotonic()
            level, filled_at = self._buckets.get(bucket, (capacity, now))
            level = min(capacity, level + (now - filled_at) * self._rate)
            if level >= 1:
                self._buckets[bucket] = (level - 1, now)
                return
        metrics.THROTTLES.labels("requests_per_second").inc()
        raise ThrottlingException(
            f"More than {self._rate:g} {operation} requests a second",
            quota_code="requests_per_second",
            retry_after=math.ceil((1 - level) / self._rate),
        )
