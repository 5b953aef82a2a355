"""What a model's state allows and forbids, and what happens when two ask at once."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from botocore.exceptions import ClientError
from drawn_parts import drawn
from held_worker import queued_jobs
from manifest_lines import line
from model_fixtures import ModelProject, TrainingService
from polling import until
from sdk_errors import error_response
from simultaneous import outcomes_at_once

from airflow_provider_lookoutvision.server.jobs import queue
from airflow_provider_lookoutvision.server.models.training_entries import TRAIN_JOB
from airflow_provider_lookoutvision.server.storage.schema import models

pytest_plugins = ["model_fixtures"]

STATES = (
    "TRAINING",
    "TRAINED",
    "TRAINING_FAILED",
    "STARTING_HOSTING",
    "HOSTED",
    "HOSTING_FAILED",
    "STOPPING_HOSTING",
)
# In which states each is done; in all others it is refused, saying what is to be done first.
ALLOWED = {
    "delete_model": ("TRAINING", "TRAINED", "TRAINING_FAILED", "HOSTING_FAILED"),
    "start_model": ("TRAINED", "HOSTING_FAILED"),
    "stop_model": ("STARTING_HOSTING", "HOSTED"),
    "detect_anomalies": ("HOSTED",),
}
REMEDIES = {
    ("delete_model", None): "stop it before it is deleted",
    ("start_model", None): "only a trained model can be started",
    ("start_model", "STARTING_HOSTING"): "to change its units, stop it first",
    ("start_model", "HOSTED"): "to change its units, stop it first",
    ("stop_model", None): "only a hosted model can be stopped",
    ("detect_anomalies", None): "start it, and wait until it is HOSTED",
}
MORE: dict[str, dict[str, Any]] = {
    "start_model": {"MinInferenceUnits": 1},
    "detect_anomalies": {"Body": drawn(0)[0], "ContentType": "image/jpeg"},
}


@pytest.mark.parametrize(
    ("operation", "state"),
    [(operation, state) for operation in ALLOWED for state in STATES if state not in ALLOWED[operation]],
)
def test_what_a_state_forbids(operation: str, state: str, project: ModelProject) -> None:
    call = getattr(project.client, operation)

    def refused() -> dict[str, Any]:
        # The fleet looks after models that are in service: it may be faster, and then we try again.
        project.put(status=state)
        try:
            call(**project.of, ModelVersion="1", **MORE.get(operation, {}))
        except ClientError as error:
            return dict(error.response)
        return {"Error": {"Message": "allowed"}}

    error = until(refused, lambda found: f" is {state}: " in found["Error"]["Message"])
    assert error["Error"]["Code"] == "ConflictException"
    assert (error["ResourceId"], error["ResourceType"]) == ("p/1", "MODEL")
    remedy = REMEDIES.get((operation, state)) or REMEDIES[operation, None]
    assert error["Error"]["Message"] == f"The model 1 of project 'p' is {state}: {remedy}"


@pytest.mark.parametrize("state", ALLOWED["delete_model"])
def test_a_model_that_is_not_in_service_is_deleted(state: str, project: ModelProject) -> None:
    project.put(1, state)
    project.put(2, state)
    answer = project.client.delete_model(**project.of, ModelVersion="1")
    assert answer["ModelArn"] == project.describe("2")["ModelArn"].removesuffix("2") + "1"
    assert project.versions() == ["2"]
    error = error_response(project.client.describe_model, **project.of, ModelVersion="1")
    assert (error["ResourceId"], error["ResourceType"]) == ("p/1", "MODEL")


@pytest.mark.one_database
@pytest.mark.parametrize("operation", ["describe_model", *ALLOWED])
def test_what_is_not_there(operation: str, project: ModelProject) -> None:
    call, more = getattr(project.client, operation), MORE.get(operation, {})
    project.put(1)
    versions = ["2", "4294967297", "9999999999"]
    for version in versions:
        error = error_response(call, **project.of, ModelVersion=version, **more)
        assert error["Error"]["Code"] == "ResourceNotFoundException"
        assert (error["ResourceId"], error["ResourceType"]) == (f"p/{version}", "MODEL")
    error = error_response(call, ProjectName="nothing", ModelVersion="1", **more)
    assert (error["Error"]["Code"], error["ResourceType"]) == ("ResourceNotFoundException", "PROJECT")
    if operation != "delete_model":
        project.client.delete_model(**project.of, ModelVersion="1")
        error = error_response(call, **project.of, ModelVersion="latest", **more)
        assert (error["ResourceId"], error["ResourceType"]) == ("p/latest", "MODEL")


def test_no_model_is_deleted_as_the_latest(project: ModelProject) -> None:
    project.put(1)
    error = error_response(project.client.delete_model, **project.of, ModelVersion="latest")
    assert error["Error"]["Code"] == "ValidationException"
    assert project.versions() == ["1"]


def test_the_units_of_a_model(project: ModelProject) -> None:
    project.put(1)
    start = project.client.start_model
    error = error_response(start, **project.of, ModelVersion="1", MinInferenceUnits=3, MaxInferenceUnits=2)
    assert error["Error"]["Code"] == "ValidationException"
    for units in ({"MinInferenceUnits": 6}, {"MinInferenceUnits": 1, "MaxInferenceUnits": 6}):
        error = error_response(start, **project.of, ModelVersion="1", **units)
        assert error["Error"]["Code"] == "ServiceQuotaExceededException"
        assert (error["QuotaCode"], error["ServiceCode"]) == ("max_inference_units", "lookoutvision")
        assert (error["ResourceId"], error["ResourceType"]) == ("p/1", "MODEL")
    assert "MinInferenceUnits" not in project.describe("1")
    assert project.describe("1")["Status"] == "TRAINED"


# At once.


def test_of_many_starts_at_one_instant_one_starts(
    classifier: ModelProject, project: ModelProject, training_service: TrainingService
) -> None:
    project.put(1, artifact=classifier.artifact())
    clients = [training_service.client(project.account) for _ in range(8)]

    def start(client: Any) -> Any:
        return client.start_model(**project.of, ModelVersion="1", MinInferenceUnits=1)["Status"]

    outcomes = outcomes_at_once([lambda client=client: start(client) for client in clients])
    assert Counter(outcomes) == {"STARTING_HOSTING": 1, "ConflictException": 7}
    with training_service.storage.database.read() as connection:
        query = sa.select(models.c.hosting).where(models.c.id == project.model_id())
        assert connection.execute(query).scalar_one() == 1
    project.stopped()  # while it starts
    assert "MinInferenceUnits" not in project.describe("1")


def test_deleted_and_started_at_one_instant(
    classifier: ModelProject, project: ModelProject, training_service: TrainingService
) -> None:
    clients = [training_service.client(project.account) for _ in range(2)]
    for version in range(1, 4):
        project.put(version, artifact=classifier.artifact())
        of = {**project.of, "ModelVersion": str(version)}
        deleted, started = outcomes_at_once(
            [
                lambda of=of: clients[0].delete_model(**of)["ModelArn"],
                lambda of=of: clients[1].start_model(**of, MinInferenceUnits=1)["Status"],
            ]
        )
        if started == "STARTING_HOSTING":
            assert deleted == "ConflictException"
            project.stopped(str(version))
        else:
            assert (deleted[-1], started) == (str(version), "ResourceNotFoundException")


def test_of_many_trainings_at_one_instant_two_start(
    project: ModelProject, training_service: TrainingService
) -> None:
    tried = [
        project,
        *(
            ModelProject(
                training_service,
                project.account,
                training_service.client(project.account),
                project.folder,
                f"p{n}",
            )
            for n in (2, 3, 4)
        ),
    ]
    for number, each in enumerate(tried):
        if number:
            each.client.create_project(ProjectName=each.name)
        each.dataset([line("nothing.jpg", bucket=project.bucket)])
    with training_service.paused_worker():
        outcomes = outcomes_at_once([lambda each=each: each.create()["Status"] for each in tried])
        assert Counter(outcomes) == {"TRAINING": 2, "ServiceQuotaExceededException": 2}
        refused = tried[outcomes.index("ServiceQuotaExceededException")]
        error = error_response(refused.client.create_model, **refused.of, OutputConfig=project.output)
        assert (error["QuotaCode"], error["ServiceCode"]) == ("max_trainings", "lookoutvision")
        assert (error["ResourceId"], error["ResourceType"]) == (refused.name, "PROJECT")
        # Neither the project nor its next version has suffered; and one that is deleted makes room.
        begun = tried[outcomes.index("TRAINING")]
        begun.client.delete_model(**begun.of, ModelVersion="1")
        assert refused.create()["ModelVersion"] == "1"
        assert len(queued_jobs(training_service.storage, project.account)) == 2
    for each in tried:
        for version in each.versions():
            assert each.ended(version)["Status"] == "TRAINING_FAILED"


def test_a_model_is_deleted_while_its_training_writes_progress(
    project: ModelProject, training_service: TrainingService
) -> None:
    project.dataset([line("nothing.jpg", bucket=project.bucket)])
    with training_service.paused_worker(), ThreadPoolExecutor(1) as thread:
        model = project.create()
        job = queue.claim(training_service.storage.database, "somebody", [TRAIN_JOB])
        assert job
        with queue.Lease(training_service.storage.database, job).hold() as connection:
            deleted = thread.submit(project.client.delete_model, **project.of, ModelVersion="1")
            # It waits for this transaction, and this one must not wait for it.
            assert not deleted.done()
            until(lambda: _waiting(training_service), bool)
            this = models.c.id == project.model_id()
            connection.execute(models.update().where(this).values(status_message="half of it"))
        assert deleted.result(60)["ModelArn"] == model["ModelArn"]
        with pytest.raises(queue.LeaseLost), queue.Lease(training_service.storage.database, job).hold():
            pass
    assert project.versions() == []


def _waiting(training_service: TrainingService) -> bool:
    """Whether somebody waits for a lock; SQLite doesn't tell."""
    with training_service.storage.database.read() as connection:
        if connection.dialect.name == "sqlite":
            return True
        waiting = (
            "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        return bool(connection.exec_driver_sql(waiting).all())
