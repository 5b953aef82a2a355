"""A project with its bucket, for tests of datasets."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polling import until

from airflow_provider_lookoutvision.testing.service import Service


@dataclass(frozen=True)
class DatasetProject:
    """A project named ``p`` and an empty bucket, both of one test only."""

    client: Any
    folder: Path

    @classmethod
    def make(cls, service: Service, client: Any) -> DatasetProject:
        client.create_project(ProjectName="p")
        folder = service.data_dir / "buckets" / f"images-{secrets.token_hex(6)}"
        folder.mkdir(parents=True)
        return cls(client, folder)

    @property
    def bucket(self) -> str:
        return self.folder.name

    def source(self, content: bytes | None = None, key: str = "x.manifest", **more: str) -> dict[str, Any]:
        """``DatasetSource`` of an object, written first if there is content."""
        if content is not None:
            path = self.folder / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return {"GroundTruthManifest": {"S3Object": {"Bucket": self.bucket, "Key": key, **more}}}

    def create(self, content: bytes | None = None, dataset: str = "train", **more: Any) -> dict[str, Any]:
        """CreateDataset, from a manifest if there is content; what it answered."""
        if content is not None:
            more["DatasetSource"] = self.source(content)
        answer = self.client.create_dataset(ProjectName="p", DatasetType=dataset, **more)
        return dict(answer["DatasetMetadata"])

    def created(self, content: bytes | None = None, dataset: str = "train", **more: Any) -> dict[str, Any]:
        """The same, and its description once that has come to its end."""
        self.create(content, dataset, **more)
        return self.settled(dataset)

    def describe(self, dataset: str = "train") -> dict[str, Any]:
        answer = self.client.describe_dataset(ProjectName="p", DatasetType=dataset)
        return dict(answer["DatasetDescription"])

    def settled(self, dataset: str = "train") -> dict[str, Any]:
        """The dataset's description, once nothing is in progress."""
        return until(lambda: self.describe(dataset), lambda found: "IN_PROGRESS" not in found["Status"])

    def update(self, changes: bytes, dataset: str = "train", **more: Any) -> dict[str, Any]:
        """UpdateDatasetEntries, and the dataset's description once that has come to its end."""
        self.client.update_dataset_entries(ProjectName="p", DatasetType=dataset, Changes=changes, **more)
        return self.settled(dataset)

    def delete(self, dataset: str = "train", **more: Any) -> None:
        self.client.delete_dataset(ProjectName="p", DatasetType=dataset, **more)

    def entries(self, dataset: str = "train", **filters: Any) -> list[str]:
        """The entries of all pages."""
        pages = self.client.get_paginator("list_dataset_entries").paginate(
            ProjectName="p", DatasetType=dataset, **filters
        )
        return [entry for page in pages for entry in page["DatasetEntries"]]


def statistics(described: dict[str, Any]) -> tuple[int, int, int, int]:
    """Total, Labeled, Normal, Anomaly."""
    found = described["ImageStats"]
    return found["Total"], found["Labeled"], found["Normal"], found["Anomaly"]
