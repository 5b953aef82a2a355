"""Manifests in S3, of one version or the newest."""

from __future__ import annotations

from typing import Any

from dataset_projects import DatasetProject, statistics
from import_jobs import (
    project_of,
)
from manifest_lines import line, manifest
from moto_s3 import running_s3, running_service_on


def test_datasets_from_s3() -> None:
    with running_s3("factory") as s3, running_service_on(s3) as service:
        s3.put_bucket_versioning(Bucket="factory", VersioningConfiguration={"Status": "Enabled"})
        first = s3.put_object(Bucket="factory", Key="a/x.manifest", Body=manifest({"source-ref": "1.png"}))[
            "VersionId"
        ]
        s3.put_object(Bucket="factory", Key="a/x.manifest", Body=manifest(line("1.png"), line("2.png")))
        with project_of(service) as (project, _):
            for version, total in ((None, 2), (first, 1)):
                described = _from_s3(project, "factory", "a/x.manifest", version)
                assert (described["Status"], statistics(described)[0]) == ("CREATE_COMPLETE", total)
            assert '"s3://factory/a/1.png"' in project.entries()[0]
            for bucket, key in (("factory", "nothing"), ("nobucket", "x")):
                described = _from_s3(project, bucket, key, None)
                assert described["StatusMessage"] == f"Invalid input: s3://{bucket}/{key} does not exist"


def _from_s3(project: DatasetProject, bucket: str, key: str, version: str | None) -> dict[str, Any]:
    found = {"Bucket": bucket, "Key": key} | ({"VersionId": version} if version else {})
    if project.client.describe_project(ProjectName="p")["ProjectDescription"]["Datasets"]:
        project.delete()
    return project.created(DatasetSource={"GroundTruthManifest": {"S3Object": found}})
