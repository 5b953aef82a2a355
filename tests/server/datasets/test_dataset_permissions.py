"""Which buckets a key may use, and that accounts and regions don't see each other's datasets."""

from __future__ import annotations

import re
from typing import Any

import pytest
from dataset_projects import DatasetProject
from manifest_lines import line, manifest
from sdk_errors import error_response
from services import MakeClient, Storage, client_of

from airflow_provider_lookoutvision.server.calls import access
from airflow_provider_lookoutvision.testing.service import Key, Service


@pytest.fixture
def limited_client(service: Service, storage: Storage, account: str, project: DatasetProject) -> Any:
    """A client that may use some buckets only."""
    with storage.database.write() as connection:
        key, secret = access.create_key(
            connection, storage.cipher, account_id=account, allowed_buckets=["images-*", "?ther"]
        )
    return client_of(service.endpoint_url, Key(key.access_key_id, secret, account))


@pytest.mark.parametrize("bucket", ["parts", "Images-1", "my-images-1", "another"])
def test_a_key_may_use_its_buckets_only(bucket: str, limited_client: Any, project: DatasetProject) -> None:
    source = {"GroundTruthManifest": {"S3Object": {"Bucket": bucket, "Key": "x.manifest"}}}
    error = error_response(
        limited_client.create_dataset, ProjectName="p", DatasetType="train", DatasetSource=source
    )
    assert error["Error"]["Code"] == "AccessDeniedException"
    assert re.fullmatch(
        r"User: arn:aws:iam::\d{12}:user/AKIA\w+ is not authorized to perform: lookoutvision:CreateDataset "
        f"on resource: arn:aws:s3:::{bucket}",
        error["Error"]["Message"],
    )
    # Nothing came of it; and what needs no bucket is allowed.
    assert project.client.describe_project(ProjectName="p")["ProjectDescription"]["Datasets"] == []
    limited_client.create_dataset(ProjectName="p", DatasetType="train")


def test_a_key_may_use_the_buckets_that_its_patterns_name(
    limited_client: Any, project: DatasetProject
) -> None:
    limited_client.create_dataset(
        ProjectName="p", DatasetType="train", DatasetSource=project.source(manifest(line()))
    )
    assert project.settled()["Status"] == "CREATE_COMPLETE"


def test_datasets_of_other_accounts_and_regions(
    make_client: MakeClient, project: DatasetProject, new_key: Any
) -> None:
    project.create()
    key = new_key()
    there = make_client(key=key, region="us-west-2")
    there.create_project(ProjectName="p")
    theirs = make_client(account="000000000001")
    try:
        theirs.create_project(ProjectName=f"p-{project.bucket}")
        for client, name in ((there, "p"), (theirs, f"p-{project.bucket}")):
            error = error_response(client.describe_dataset, ProjectName=name, DatasetType="train")
            assert error["ResourceType"] == "DATASET"
            client.create_dataset(ProjectName=name, DatasetType="train")
            client.delete_dataset(ProjectName=name, DatasetType="train")
    finally:
        theirs.delete_project(ProjectName=f"p-{project.bucket}")
    assert project.describe()["Status"] == "CREATE_COMPLETE"
