"""The provider's metrics as an Airflow sends them to a StatsD, with tags in InfluxDB's form."""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Self


class Metrics:
    """A socket that StatsD's packets come to, inside a ``with`` block.

    ``environment`` has the variables of an Airflow that sends its metrics there.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._lines: list[str] = []
        self._thread = threading.Thread(target=self._receive, daemon=True)
        host, port = self._socket.getsockname()
        self.environment = {
            "AIRFLOW__METRICS__STATSD_ON": "True",
            "AIRFLOW__METRICS__STATSD_HOST": host,
            "AIRFLOW__METRICS__STATSD_PORT": str(port),
            "AIRFLOW__METRICS__STATSD_INFLUXDB_ENABLED": "True",
            "AIRFLOW__METRICS__METRICS_ALLOW_LIST": "lookoutvision",
        }

    def of(self, tags: Mapping[str, str]) -> dict[str, set[str]]:
        """The values of each metric that has these tags and no others, by its name."""
        found: dict[str, set[str]] = {}
        for line in list(self._lines):
            head, _, value = line.rpartition(":")
            name, *pairs = head.removeprefix("airflow.").split(",")
            if dict(pair.split("=", 1) for pair in pairs) == dict(tags):
                found.setdefault(name, set()).add(value.partition("|")[0])
        return found

    def _receive(self) -> None:
        while packet := self._socket.recv(65536):
            self._lines += packet.decode().splitlines()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # An empty packet ends the thread.
        self._socket.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()
