"""The quota of projects and the rate of requests: off by default, settings both."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from project_calls import names
from sdk_errors import error_response
from services import NewDatabase, NewService, client_of, first_key_of, storage_of

from airflow_provider_lookoutvision.server.calls import throttling
from airflow_provider_lookoutvision.server.calls.access import AccessKey, Caller
from airflow_provider_lookoutvision.server.calls.call import Call
from airflow_provider_lookoutvision.server.hosting.operations import start_model
from airflow_provider_lookoutvision.server.protocol.errors import (
    ServiceQuotaExceededException,
    ThrottlingException,
)
from airflow_provider_lookoutvision.server.settings import Settings
from airflow_provider_lookoutvision.server.storage.opening import opened
from airflow_provider_lookoutvision.server.storage.schema import models, projects
from airflow_provider_lookoutvision.testing.service import Key, Service, running_service


def test_the_quota_of_projects(new_service: NewService) -> None:
    service = new_service("--max-projects", "3", "--no-worker")
    client = client_of(service.endpoint_url, first_key_of(service))

    def create(number: int) -> str:
        try:
            client.create_project(ProjectName=f"p{number}", ClientToken=f"t{number}")
        except client.exceptions.ClientError as error:
            return str(error.response["Error"]["Code"])
        return "made"

    with ThreadPoolExecutor(10) as pool:
        outcomes = list(pool.map(create, range(10)))
    assert Counter(outcomes) == {"made": 3, "ServiceQuotaExceededException": 7}
    made = names(client)
    assert made == [f"p{number}" for number, outcome in enumerate(outcomes) if outcome == "made"]

    error = error_response(client.create_project, ProjectName="more", ClientToken="more")
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 402
    assert error["QuotaCode"] == "max_projects"
    assert error["ServiceCode"] == "lookoutvision"
    assert (error["ResourceId"], error["ResourceType"]) == ("more", "PROJECT")
    assert "has 3 projects, as many as" in error["Error"]["Message"]
    assert names(client) == made
    # A name that exists has its own error, and a repeated request is no new project.
    assert error_response(client.create_project, ProjectName=made[0])["Error"]["Code"] == "ConflictException"
    assert client.create_project(ProjectName=made[0], ClientToken=f"t{made[0][1:]}")

    elsewhere = client_of(service.endpoint_url, first_key_of(service), region="us-east-1")
    there = error_response(elsewhere.create_project, ProjectName="more")
    assert there["QuotaCode"] == "max_projects"
    client.delete_project(ProjectName=made[0])
    assert client.create_project(ProjectName="more", ClientToken="more")


@pytest.fixture(scope="module")
def slow_service() -> Iterator[Service]:
    """Takes one request in 50 seconds of each operation, whatever its database."""
    with running_service(flags=["--requests-per-second", "0.02", "--no-worker"]) as service:
        yield service


def test_the_rate_of_requests(slow_service: Service) -> None:
    client = client_of(slow_service.endpoint_url, first_key_of(slow_service))
    assert names(client) == []
    error = error_response(client.list_projects)
    assert error["Error"] == {
        "Code": "ThrottlingException",
        "Message": "More than 0.02 ListProjects requests a second",
    }
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 429
    assert error["QuotaCode"] == "requests_per_second"
    assert error["ServiceCode"] == "lookoutvision"
    # The model has it in the Retry-After header, and the SDK reads it from there.
    assert 1 <= error["RetryAfterSeconds"] <= 50
    assert error["ResponseMetadata"]["HTTPHeaders"]["retry-after"] == str(error["RetryAfterSeconds"])
    assert (
        error_response(client.describe_project, ProjectName="p")["Error"]["Code"]
        == "ResourceNotFoundException"
    )
    assert error_response(client.describe_project, ProjectName="p")["Error"]["Code"] == "ThrottlingException"


def test_each_account_has_its_own_rate_whatever_regions_it_names(slow_service: Service) -> None:
    with storage_of(slow_service) as storage:
        key, another = storage.new_key("000000000001"), storage.new_key("000000000001")
        other_account = storage.new_key("000000000002")
    assert names(client_of(slow_service.endpoint_url, key)) == []
    same_account = client_of(slow_service.endpoint_url, another)
    assert error_response(same_account.list_projects)["Error"]["Code"] == "ThrottlingException"
    elsewhere = client_of(slow_service.endpoint_url, key, region="xx-anywhere-1")
    assert error_response(elsewhere.list_projects)["Error"]["Code"] == "ThrottlingException"
    assert names(client_of(slow_service.endpoint_url, other_account)) == []


def test_trainings_are_counted_over_all_regions_and_accounts(new_service: NewService) -> None:
    service = new_service("--max-trainings", "2", "--max-total-trainings", "3", "--no-worker")
    with storage_of(service) as storage:
        keys = [storage.new_key(f"00000000000{number}") for number in (1, 2, 3)]

    def train(key: Key, region: str) -> str:
        client = client_of(service.endpoint_url, key, region=region)
        with contextlib.suppress(client.exceptions.ConflictException):
            client.create_project(ProjectName="p")
            client.create_dataset(ProjectName="p", DatasetType="train")
        output = {"S3Location": {"Bucket": "results", "Prefix": ""}}
        try:
            client.create_model(ProjectName="p", OutputConfig=output)
        except client.exceptions.ServiceQuotaExceededException as error:
            return str(error.response["QuotaCode"])
        return "made"

    regions = ("eu-central-1", "us-east-1", "xx-anywhere-1")
    assert [train(keys[0], region) for region in regions] == ["made", "made", "max_trainings"]
    assert train(keys[1], "eu-central-1") == "made"
    assert train(keys[2], "eu-central-1") == "max_total_trainings"


def test_models_and_units_in_service_are_counted_over_all_accounts(
    new_database: NewDatabase, tmp_path: Path
) -> None:
    flags = new_database()
    limits = {"max_hosted_models": 3, "max_total_inference_units": 7}
    settings = Settings(data_dir=tmp_path, database_url=flags[1] if flags else "", **limits)

    def start(account: str, version: int, least: int, most: int | None = None) -> str:
        caller = Caller(AccessKey("K", account, ("*",), ("*",), ("*",), 0), "eu-central-1")
        with contextlib.suppress(ServiceQuotaExceededException), opened(settings) as (database, cipher):
            with database.write() as connection:
                call = Call("StartModel", None, caller, connection, settings, cipher, 0)
                start_model(
                    call,
                    project_name="p",
                    model_version=str(version),
                    min_inference_units=least,
                    max_inference_units=most,
                )
            return "started"
        return "refused"

    with opened(settings) as (database, _), database.write() as connection:
        for number, account in enumerate(("000000000001", "000000000002"), 1):
            project = {"id": number, "account_id": account, "region": "eu-central-1", "name": "p"}
            connection.execute(projects.insert().values(**project, created_at=0, last_model_version=3))
            for version in (1, 2, 3):
                state = {"status": "TRAINED", "status_message": "", "created_at": 0, "hosting": 0}
                place = {"output_bucket": "results", "output_prefix": ""}
                connection.execute(
                    models.insert().values(project_id=number, version=version, **state, **place)
                )
    assert start("000000000001", 1, 1, 5) == "started"
    assert start("000000000002", 1, 3) == "refused"  # five units and three are more than seven
    assert start("000000000002", 1, 1) == "started"
    assert start("000000000001", 2, 1) == "started"
    assert start("000000000002", 2, 1) == "refused"  # seven units are in service, and three models
    with opened(settings) as (database, _), database.write() as connection:
        connection.execute(models.update().where(models.c.max_units == 5).values(status="TRAINED"))
    assert start("000000000002", 2, 1) == "started"
    assert start("000000000002", 3, 1) == "refused"  # three models, of few units


def test_a_bucket_refills(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(throttling.time, "monotonic", lambda: now)
    limit = throttling.Throttle(4)
    caller = Caller(AccessKey("K", "000000000001", ("*",), ("*",), ("*",), 0), "eu-central-1")

    def admitted(attempts: int) -> int:
        count = 0
        for _ in range(attempts):
            with contextlib.suppress(ThrottlingException):
                limit.admit(caller, "ListProjects")
                count += 1
        return count

    assert admitted(10) == 4
    now += 0.25
    assert admitted(10) == 1
    now += 0.2
    assert admitted(10) == 0
    now += 0.3
    assert admitted(10) == 2
    now += 1000
    assert admitted(10) == 4


def test_without_the_setting_there_is_no_limit() -> None:
    limit = throttling.Throttle(None)
    caller = Caller(AccessKey("K", "000000000001", ("*",), ("*",), ("*",), 0), "eu-central-1")
    for _ in range(10_000):
        limit.admit(caller, "ListProjects")
