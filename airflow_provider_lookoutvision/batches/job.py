"""A batch as the job of a cluster that processes it: what it is given, and how that is written."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict, dataclass
from typing import Self

MODULE = "airflow_provider_lookoutvision.server.cluster.batch_job"
# The exit code of a job that would end so again.
UNUSABLE = 2


@dataclass(frozen=True)
class Batch:
    """What a job needs to process a batch. There is no secret in it: access to S3 is the nodes' own.

    :param model_arn: of the model.
    :param model_created: when it was created, as ISO 8601: two services may have models of the same ARN.
    :param bucket: of the images.
    :param prefix: of their keys.
    :param results_bucket: of the results.
    :param results_key: of the object that they become.
    :param tokens: those of the tries whose saved results count; the first is this try's.
    :param options: what the results depend on besides the images.
    :param masks: the bucket and the prefix that masks are stored at, or None.
    :param heatmaps: the bucket and the prefix that anomaly maps are stored at, or None.
    :param detectors: how many detectors the cluster may run at a time.
    :param s3_endpoint_url: of S3.
    :param s3_region: of S3, or None.
    """

    model_arn: str
    model_created: str
    bucket: str
    prefix: str
    results_bucket: str
    results_key: str
    tokens: tuple[str, ...]
    options: tuple[str, ...]
    masks: tuple[str, str] | None
    heatmaps: tuple[str, str] | None
    detectors: int
    s3_endpoint_url: str
    s3_region: str | None

    @property
    def command(self) -> str:
        """The job's command line, for a shell on a node."""
        return f"python -m {MODULE} {shlex.quote(json.dumps(asdict(self)))}"

    @classmethod
    def read(cls, text: str) -> Self:
        """The batch of the argument of ``command``."""
        values = json.loads(text)
        lists = ("tokens", "options", "masks", "heatmaps")
        return cls(**values | {name: values[name] and tuple(values[name]) for name in lists})
