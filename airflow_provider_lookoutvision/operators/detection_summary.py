"""What a batch of verdicts comes to: counts, rates, uncertain images; its gates, and its metrics in Airflow.

The metrics are counters and gauges of Airflow's own metrics system, wherever that sends them: as
``lookoutvision.<metric>`` with tags, and as ``lookoutvision.<project>.<metric>`` for a StatsD without tags.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

_MAX_FAILURES_SHOWN = 10


@dataclass
class Summary:
    """The counts over the lines of the results, in their order.

    :param max_anomalous_s3_uris: how many anomalous images are named: the first.
    :param max_uncertain: how many uncertain images are named: those with the lowest confidences.
    """

    results_s3_uri: str
    max_anomalous_s3_uris: int
    max_uncertain: int
    total: int = 0
    anomalous: int = 0
    failed: int = 0
    anomalous_s3_uris: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _confidence: float = 0.0
    # A heap, whose first has the highest confidence, and of these the last line.
    _uncertain: list[tuple[float, int, str]] = field(default_factory=list)

    def add(self, line: Mapping[str, Any]) -> None:
        """Count a line."""
        self.total += 1
        if error := line.get("error"):
            self.failed += 1
            if len(self.failures) < _MAX_FAILURES_SHOWN:
                self.failures.append(f"{line['source-ref']}: {error['Message']}")
            return
        self._confidence += line["Confidence"]
        heapq.heappush(self._uncertain, (-line["Confidence"], -self.total, line["source-ref"]))
        if len(self._uncertain) > self.max_uncertain:
            heapq.heappop(self._uncertain)
        if line["IsAnomalous"]:
            self.anomalous += 1
            if len(self.anomalous_s3_uris) < self.max_anomalous_s3_uris:
                self.anomalous_s3_uris.append(line["source-ref"])

    @property
    def judged(self) -> int:
        """How many images have a verdict."""
        return self.total - self.failed

    @property
    def normal(self) -> int:
        """How many are neither anomalous nor failed."""
        return self.judged - self.anomalous

    @property
    def anomaly_rate(self) -> float | None:
        """The fraction of the images with a verdict that are anomalous, 0 to 1; None without any."""
        return self.anomalous / self.judged if self.judged else None

    @property
    def mean_confidence(self) -> float | None:
        """The mean confidence of the verdicts, 0 to 1; None without any."""
        return self._confidence / self.judged if self.judged else None

    @property
    def uncertain_refs(self) -> list[str]:
        """The images with the lowest confidences, the lowest first."""
        return [uri for *_, uri in sorted(self._uncertain, reverse=True)]

    @property
    def text(self) -> str:
        """The counts as a sentence."""
        return (
            f"{self.total} images, {self.anomalous} anomalous, {self.normal} normal, "
            f"{self.failed} that can't be used"
        )

    @property
    def result(self) -> dict[str, Any]:
        """The counts, for an XCom."""
        names = (
            *("total", "anomalous", "normal", "failed", "anomaly_rate", "mean_confidence"),
            *("results_s3_uri", "anomalous_s3_uris", "uncertain_refs"),
        )
        return {name: getattr(self, name) for name in names}

    def send_metrics(self, tags: Mapping[str, str]) -> None:
        """Send the counts and rates as metrics of Airflow.

        :param tags: ``project_name`` and others.
        """
        from airflow.providers.common.compat.sdk import Stats

        counts = {
            "images": self.total,
            "anomalous_images": self.anomalous,
            "unusable_images": self.failed,
        }
        rates = {"anomaly_rate": self.anomaly_rate, "mean_confidence": self.mean_confidence}
        for scope, tagged in (("lookoutvision", dict(tags)), (f"lookoutvision.{tags['project_name']}", {})):
            for name, count in counts.items():
                Stats.incr(f"{scope}.{name}", count, tags=tagged)
            for name, rate in rates.items():
                if rate is not None:
                    Stats.gauge(f"{scope}.{name}", rate, tags=tagged)


@dataclass(frozen=True)
class Gates:
    """What a batch must keep to.

    :param max_anomaly_rate: the highest fraction of the images with a verdict that may be anomalous, 0 to 1.
    :param min_images: how many images must have a verdict at least.
    :param on_failure: ``fail`` or ``warn``.
    """

    max_anomaly_rate: Any
    min_images: Any
    on_failure: str

    def failures(self, summary: Summary) -> Iterator[str]:
        """Yield a sentence for each gate that the batch fails."""
        rate = summary.anomaly_rate
        if self.max_anomaly_rate is not None and rate is not None and rate > self.max_anomaly_rate:
            yield (
                f"The anomaly rate is {rate:.4g}, {summary.anomalous} of {summary.judged} images; "
                f"max_anomaly_rate is {self.max_anomaly_rate:g}"
            )
        if self.min_images is not None and summary.judged < self.min_images:
            yield f"{summary.judged} images have a verdict; min_images is {self.min_images}"
