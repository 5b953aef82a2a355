"""The command ``lookoutvision``, and what a test sees of what it did."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from command_line import Outcome, run_command

from airflow_provider_lookoutvision.testing.service import Key, Service


@dataclass
class Lookout:
    """The command, for a key of a service."""

    service: Service
    key: Key
    client: Any
    s3: Any
    bucket: str = field(default_factory=lambda: f"moved-{secrets.token_hex(4)}")

    @property
    def to(self) -> list[str]:
        """Where files go: a bucket that is made."""
        return ["--to", f"s3://{self.bucket}/line-1/", "--create-bucket"]

    def __call__(self, *arguments: str | Path) -> Outcome:
        return run_command(*arguments, "--endpoint-url", self.service.endpoint_url)

    def entries(self, project: str, dataset: str = "train") -> list[dict[str, Any]]:
        """The entries of a dataset."""

        pages = self.client.get_paginator("list_dataset_entries").paginate(
            ProjectName=project, DatasetType=dataset
        )
        return [json.loads(line) for page in pages for line in page["DatasetEntries"]]

    def read(self, uri: str) -> bytes:
        """An object."""
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        content: bytes = self.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        return content
