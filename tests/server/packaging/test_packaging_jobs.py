"""The three operations of packaging jobs: their rules, answers, tokens and rights."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

import pytest
import sqlalchemy as sa
from model_fixtures import ModelProject, TrainingService
from packaging_requests import component, configuration, job, packaged, start
from sdk_errors import error_response
from services import REGION
from simultaneous import outcomes_at_once

from airflow_provider_lookoutvision.server.storage.schema import model_artifacts, packaging_jobs

pytest_plugins = ["model_fixtures", "packaging_requests"]

NVIDIA = {"Os": "LINUX", "Arch": "ARM64", "Accelerator": "NVIDIA"}
CPU = {"Os": "LINUX", "Arch": "X86_64"}
GPU_OPTIONS = '{"gpu-code": "sm_72", "trt-ver": "7.1.3", "cuda-ver": "10.2"}'


def conflict(project: ModelProject, **members: Any) -> dict[str, Any]:
    error = error_response(
        project.client.start_model_packaging_job, **{**project.of, "ModelVersion": "1", **members}
    )
    assert error["Error"]["Code"] == "ConflictException", error
    return error


def test_what_is_told_of_a_job_that_waits(project: ModelProject, training_service: TrainingService) -> None:
    project.put(1)
    given = configuration(
        project, Tags=[{"Key": "line", "Value": "7"}], CompilerOptions='{"mcpu": "core-avx2"}'
    )
    with training_service.paused_worker():
        name = start(project, Configuration=given, Description="for line 7")
        described = job(project, name)
        [listed] = project.client.list_model_packaging_jobs(**project.of)["ModelPackagingJobs"]
    assert uuid.UUID(name)
    assert all(isinstance(described[f"{which}Timestamp"], datetime) for which in ("Creation", "LastUpdated"))
    assert listed == {
        "JobName": name,
        "ProjectName": "p",
        "ModelVersion": "1",
        "ModelPackagingJobDescription": "for line 7",
        "ModelPackagingMethod": "Greengrass",
        "Status": "CREATED",
        "StatusMessage": "The model packaging job was created, and waits to be run.",
        "CreationTimestamp": described["CreationTimestamp"],
        "LastUpdatedTimestamp": described["LastUpdatedTimestamp"],
    }
    given["Greengrass"]["ComponentVersion"] = "1.0.0"
    assert described == {**listed, "ModelPackagingConfiguration": given}


def test_a_job_of_the_newest_model_and_a_name_of_its_own(
    project: ModelProject, training_service: TrainingService
) -> None:
    project.put(1)
    project.put(12, "HOSTED")
    with training_service.paused_worker():
        assert start(project, "latest", JobName="my-job") == "my-job"
        described = job(project, "my-job")
    assert described["ModelVersion"] == "12"
    assert described["ModelPackagingConfiguration"]["Greengrass"]["ComponentVersion"] == "12.0.0"


@pytest.mark.parametrize(
    "more",
    [
        {"TargetDevice": "jetson_xavier"},
        {"TargetPlatform": CPU},
        {"TargetPlatform": CPU, "CompilerOptions": '{"mcpu": "skylake-avx512", "mattr": ["+avx512f"]}'},
        {"TargetPlatform": CPU, "CompilerOptions": "{'mcpu': 'skylake-avx512'}"},
        {"TargetPlatform": {**CPU, "Arch": "ARM64"}, "CompilerOptions": "{'mattr': ['+neon'], 'x': 1}"},
        {"TargetPlatform": NVIDIA, "CompilerOptions": GPU_OPTIONS},
        {"TargetPlatform": NVIDIA, "CompilerOptions": GPU_OPTIONS.replace('"', "'")},
        {"CompilerOptions": '{"mcpu": "core-avx2"}'},
    ],
)
def test_targets_that_are_taken_and_shown(
    project: ModelProject, training_service: TrainingService, more: dict[str, Any]
) -> None:
    project.put(1)
    with training_service.paused_worker():
        name = start(project, Configuration=configuration(project, **more))
        shown = job(project, name)["ModelPackagingConfiguration"]["Greengrass"]
    assert {member: shown[member] for member in more} == more


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"TargetDevice": "jetson_xavier", "TargetPlatform": CPU}, "both TargetDevice and TargetPlatform"),
        (
            {"TargetDevice": "jetson_xavier", "CompilerOptions": "{ }"},
            "both TargetDevice and CompilerOptions",
        ),
        ({"TargetPlatform": NVIDIA}, "has no gpu-code"),
        ({"TargetPlatform": NVIDIA, "CompilerOptions": GPU_OPTIONS.replace("7.1.3", "7.1")}, "trt-ver '7.1'"),
        ({"TargetPlatform": NVIDIA, "CompilerOptions": GPU_OPTIONS.replace("10.2", "10")}, "cuda-ver '10'"),
        ({"TargetPlatform": CPU, "CompilerOptions": "mcpu=x"}, "is no JSON object"),
        ({"TargetPlatform": CPU, "CompilerOptions": "[1]"}, "is no JSON object"),
        ({"TargetPlatform": CPU, "CompilerOptions": "[" * 1000}, "is no JSON object"),
        ({"TargetPlatform": CPU, "CompilerOptions": '{"mcpu": 1}'}, "mcpu 1"),
        ({"TargetPlatform": CPU, "CompilerOptions": '{"mattr": [1]}'}, "mattr [1]"),
        ({"Tags": [{"Key": "a", "Value": "1"}, {"Key": "a", "Value": "2"}]}, "names the key 'a' twice"),
        ({"S3OutputLocation": {"Bucket": "out", "Prefix": "a/../"}}, "a part that is no name"),
        ({"S3OutputLocation": {"Bucket": "out", "Prefix": "a" * 1020}}, "choose a shorter Prefix"),
    ],
)
def test_what_contradicts_itself_is_refused(
    sqlite_project: ModelProject, more: dict[str, Any], told: str
) -> None:
    sqlite_project.put(1)
    members = {"ModelVersion": "1", "Configuration": configuration(sqlite_project, **more)}
    error = error_response(sqlite_project.client.start_model_packaging_job, **sqlite_project.of, **members)
    assert error["Error"]["Code"] == "ValidationException"
    assert told in error["Error"]["Message"]
    assert sqlite_project.client.list_model_packaging_jobs(**sqlite_project.of)["ModelPackagingJobs"] == []


@pytest.mark.parametrize("status", ["TRAINING", "TRAINING_FAILED"])
def test_only_a_trained_model_is_packaged(sqlite_project: ModelProject, status: str) -> None:
    sqlite_project.put(1, status)
    error = conflict(sqlite_project, Configuration=configuration(sqlite_project))
    assert (error["ResourceId"], error["ResourceType"]) == ("p/1", "MODEL")
    assert f"is {status}: only a trained model can be packaged" in error["Error"]["Message"]


def test_what_is_not_there(sqlite_project: ModelProject) -> None:
    client, given = sqlite_project.client, configuration(sqlite_project)

    def missing(call: Any, **members: Any) -> tuple[str, str]:
        error = error_response(call, **members)
        assert error["Error"]["Code"] == "ResourceNotFoundException"
        return error["ResourceType"], error["ResourceId"]

    start_job = client.start_model_packaging_job
    none = {"ProjectName": "none"}
    assert missing(start_job, **none, ModelVersion="1", Configuration=given) == ("PROJECT", "none")
    assert missing(start_job, **sqlite_project.of, ModelVersion="1", Configuration=given) == ("MODEL", "p/1")
    assert missing(start_job, **sqlite_project.of, ModelVersion="latest", Configuration=given) == (
        "MODEL",
        "p/latest",
    )
    describe = client.describe_model_packaging_job
    assert missing(describe, **sqlite_project.of, JobName="j") == ("MODEL_PACKAGE_JOB", "p/j")
    assert missing(describe, **none, JobName="j") == ("PROJECT", "none")
    assert missing(client.list_model_packaging_jobs, **none) == ("PROJECT", "none")


def test_a_name_and_a_component_are_taken_once(
    project: ModelProject, training_service: TrainingService
) -> None:
    project.put(1)
    other = training_service.new_project(project.account, name="q")
    other.put(1)
    with training_service.paused_worker():
        start(project, JobName="j")
        error = conflict(project, JobName="j", Configuration=configuration(project, ComponentVersion="2.0.0"))
        assert (error["ResourceType"], error["ResourceId"]) == ("MODEL_PACKAGE_JOB", "p/j")
        assert "already has a model packaging job 'j'" in error["Error"]["Message"]
        # The component is the account's, whichever project it is of.
        assert (
            "already has a version 1.0.0"
            in conflict(project, Configuration=configuration(project))["Error"]["Message"]
        )
        assert (
            "already has a version 1.0.0"
            in conflict(other, Configuration=configuration(other))["Error"]["Message"]
        )
        # Nothing is left of what was refused.
        assert len(project.client.list_model_packaging_jobs(**project.of)["ModelPackagingJobs"]) == 1
        start(project, Configuration=configuration(project, ComponentVersion="1.0.1"))
        start(other, JobName="j", Configuration=configuration(other, ComponentName="other"))
        elsewhere = training_service.new_project(f"{(int(project.account) + 1) % 10**12:012}")
        elsewhere.put(1)
        start(elsewhere, JobName="j")


def test_one_of_many_at_once_gets_the_component(
    project: ModelProject, training_service: TrainingService
) -> None:
    project.put(1)
    with training_service.paused_worker():
        begun = outcomes_at_once([lambda n=n: start(project, JobName=f"j-{n}") for n in range(6)])
        assert begun.count("ConflictException") == 5


def test_pages(project: ModelProject, training_service: TrainingService) -> None:
    project.put(1)
    with training_service.paused_worker():
        for number in range(5):
            start(
                project,
                JobName=f"j-{number}",
                Configuration=configuration(project, ComponentVersion=f"{number}.0.0"),
            )
        pages = project.client.get_paginator("list_model_packaging_jobs").paginate(
            **project.of, PaginationConfig={"PageSize": 2}
        )
        found = [[each["JobName"] for each in page["ModelPackagingJobs"]] for page in pages]
    assert found == [["j-0", "j-1"], ["j-2", "j-3"], ["j-4"]]


def test_a_token_starts_one_job(project: ModelProject, training_service: TrainingService) -> None:
    project.put(1)
    with training_service.paused_worker():
        first = start(project, ClientToken="t")
        assert start(project, ClientToken="t") == first
        error = conflict(
            project, ClientToken="t", Configuration=configuration(project, ComponentVersion="9.0.0")
        )
        assert "with other parameters" in error["Error"]["Message"]
        assert [
            each["JobName"]
            for each in project.client.list_model_packaging_jobs(**project.of)["ModelPackagingJobs"]
        ] == [first]


@pytest.mark.parametrize("name", [{}, {"JobName": "mine"}])
def test_the_token_of_a_failed_job_begins_it_anew(
    project: ModelProject, artifact: bytes, name: dict[str, str]
) -> None:
    model = project.put(1)  # without an artifact: as if it had been deleted
    first = packaged(project, ClientToken="t", **name)
    assert first["Status"] == "FAILED"
    with project.training_service.storage.database.write() as connection:
        row = connection.execute(packaging_jobs.select().where(packaging_jobs.c.model_id == model)).one()
    with project.training_service.storage.database.write() as connection:
        connection.execute(model_artifacts.insert().values(model_id=model, content=artifact))
    again = packaged(project, ClientToken="t", **name)
    assert again["Status"] == "SUCCEEDED", again["StatusMessage"]
    assert (again["JobName"] == first["JobName"]) == bool(name)
    # In its place: what failed is gone, and nothing of it.
    assert [
        each["JobName"]
        for each in project.client.list_model_packaging_jobs(**project.of)["ModelPackagingJobs"]
    ] == [again["JobName"]]
    with project.training_service.storage.database.read() as connection:
        left = connection.execute(sa.select(packaging_jobs.c.id).where(packaging_jobs.c.id == row.id)).all()
    assert left == []
    # And what has succeeded is repeated as it is.
    assert start(project, ClientToken="t", **name) == again["JobName"]


def test_a_project_takes_its_jobs_with_it_and_leaves_the_components(
    project: ModelProject, training_service: TrainingService
) -> None:
    project.put(1)
    with training_service.paused_worker():
        start(project, JobName="j", ClientToken="t")
        with training_service.storage.database.write() as connection:
            connection.execute(
                packaging_jobs.update().where(packaging_jobs.c.name == "j").values(status="SUCCEEDED")
            )
        start(project, JobName="k", Configuration=configuration(project, ComponentVersion="2.0.0"))
        project.client.delete_model(**project.of, ModelVersion="1")
        project.client.delete_project(**project.of)
        project.client.create_project(**project.of)
        assert project.client.list_model_packaging_jobs(**project.of)["ModelPackagingJobs"] == []
        project.put(1)
        # A late duplicate brings nothing back.
        assert (
            "has been deleted since"
            in conflict(project, JobName="j", ClientToken="t", Configuration=configuration(project))["Error"][
                "Message"
            ]
        )
        # What was made stays made, and what was not is free.
        assert (
            "already has a version 1.0.0"
            in conflict(project, Configuration=configuration(project))["Error"]["Message"]
        )
        start(project, Configuration=configuration(project, ComponentVersion="2.0.0"))


def test_rights(sqlite_project: ModelProject, account: str) -> None:
    sqlite_project.put(1)
    given = configuration(sqlite_project)
    reader = sqlite_project.training_service.client(
        account, allow=["lookoutvision:Describe*", "lookoutvision:List*"]
    )
    members = {**sqlite_project.of, "ModelVersion": "1", "Configuration": given}
    error = error_response(reader.start_model_packaging_job, **members)["Error"]
    assert error["Code"] == "AccessDeniedException"
    assert error["Message"].endswith(
        f"lookoutvision:StartModelPackagingJob on resource: arn:aws:lookoutvision:{REGION}:{account}:"
        "model/p/1"
    )
    assert reader.list_model_packaging_jobs(**sqlite_project.of)["ModelPackagingJobs"] == []
    for stranger in (
        sqlite_project.training_service.client(account, project=["other"]),
        sqlite_project.training_service.client(account, allow=["lookoutvision:CreateModel"]),
    ):
        for call, more in (
            (stranger.start_model_packaging_job, {"ModelVersion": "1", "Configuration": given}),
            (stranger.describe_model_packaging_job, {"JobName": "j"}),
            (stranger.list_model_packaging_jobs, {}),
        ):
            assert (
                error_response(call, **sqlite_project.of, **more)["Error"]["Code"] == "AccessDeniedException"
            )
    limited = sqlite_project.training_service.client(account, buckets=["other-*"])
    error = error_response(limited.start_model_packaging_job, **members)["Error"]
    assert error["Code"] == "AccessDeniedException"
    assert error["Message"].endswith(f"arn:aws:s3:::{sqlite_project.bucket}")


def test_the_arn_is_as_the_model_has_it(sqlite_project: ModelProject, artifact: bytes) -> None:
    sqlite_project.put(3, artifact=artifact)
    described = packaged(sqlite_project, version="3")
    assert described["Status"] == "SUCCEEDED", described["StatusMessage"]
    assert described["ModelPackagingOutputDetails"]["Greengrass"] == {
        "ComponentVersionArn": f"arn:aws:greengrass:{REGION}:aws:components:{component(sqlite_project)}:"
        "versions:3.0.0",
        "ComponentName": component(sqlite_project),
        "ComponentVersion": "3.0.0",
    }
