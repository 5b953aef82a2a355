"""What a model's state allows and forbids, and what happens when two ask at once."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from botocore.exceptions import ClientError
from dataset_fixtures import queued, refusal, until
from drawn_parts import drawn
from manifest_lines import line
from model_fixtures import ModelLab, Studio, at_once
from training_processes import paused

from airflow_provider_lookoutvision.server.jobs import queue
from airflow_provider_lookoutvision.server.models.operations import TRAIN_JOB
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
def test_what_a_state_forbids(operation: str, state: str, lab: ModelLab) -> None:
    call = getattr(lab.client, operation)

    def refused() -> dict[str, Any]:
        # The fleet looks after models that are in service: it may be faster, and then we try again.
        lab.put(status=state)
        try:
            call(**lab.of, ModelVersion="1", **MORE.get(operation, {}))
        except ClientError as error:
            return dict(error.response)
        return {"Error": {"Message": "allowed"}}

    error = until(refused, lambda found: f" is {state}: " in found["Error"]["Message"], seconds=20)
    assert error["Error"]["Code"] == "ConflictException"
    assert (error["ResourceId"], error["ResourceType"]) == ("p/1", "MODEL")
    remedy = REMEDIES.get((operation, state)) or REMEDIES[operation, None]
    assert error["Error"]["Message"] == f"The model 1 of project 'p' is {state}: {remedy}"


@pytest.mark.parametrize("state", ALLOWED["delete_model"])
def test_a_model_that_is_not_in_service_is_deleted(state: str, lab: ModelLab) -> None:
    lab.put(1, state)
    lab.put(2, state)
    answer = lab.client.delete_model(**lab.of, ModelVersion="1")
    assert answer["ModelArn"] == lab.describe("2")["ModelArn"].removesuffix("2") + "1"
    assert lab.versions() == ["2"]
    error = refusal(lab.client.describe_model, **lab.of, ModelVersion="1")
    assert (error["ResourceId"], error["ResourceType"]) == ("p/1", "MODEL")


@pytest.mark.parametrize("operation", ["describe_model", *ALLOWED])
def test_what_is_not_there(operation: str, lab: ModelLab) -> None:
    call, more = getattr(lab.client, operation), MORE.get(operation, {})
    lab.put(1)
    versions = ["2", "4294967297", "9999999999"]
    for version in versions:
        error = refusal(call, **lab.of, ModelVersion=version, **more)
        assert error["Error"]["Code"] == "ResourceNotFoundException"
        assert (error["ResourceId"], error["ResourceType"]) == (f"p/{version}", "MODEL")
    error = refusal(call, ProjectName="nothing", ModelVersion="1", **more)
    assert (error["Error"]["Code"], error["ResourceType"]) == ("ResourceNotFoundException", "PROJECT")
    if operation != "delete_model":
        lab.client.delete_model(**lab.of, ModelVersion="1")
        error = refusal(call, **lab.of, ModelVersion="latest", **more)
        assert (error["ResourceId"], error["ResourceType"]) == ("p/latest", "MODEL")


def test_no_model_is_deleted_as_the_latest(lab: ModelLab) -> None:
    lab.put(1)
    error = refusal(lab.client.delete_model, **lab.of, ModelVersion="latest")
    assert error["Error"]["Code"] == "ValidationException"
    assert lab.versions() == ["1"]


def test_the_units_of_a_model(lab: ModelLab) -> None:
    lab.put(1)
    start = lab.client.start_model
    error = refusal(start, **lab.of, ModelVersion="1", MinInferenceUnits=3, MaxInferenceUnits=2)
    assert error["Error"]["Code"] == "ValidationException"
    for units in ({"MinInferenceUnits": 6}, {"MinInferenceUnits": 1, "MaxInferenceUnits": 6}):
        error = refusal(start, **lab.of, ModelVersion="1", **units)
        assert error["Error"]["Code"] == "ServiceQuotaExceededException"
        assert (error["QuotaCode"], error["ServiceCode"]) == ("max_inference_units", "lookoutvision")
        assert (error["ResourceId"], error["ResourceType"]) == ("p/1", "MODEL")
    assert "MinInferenceUnits" not in lab.describe("1")
    assert lab.describe("1")["Status"] == "TRAINED"


# At once.


def test_of_many_starts_at_one_instant_one_starts(
    classifier: ModelLab, lab: ModelLab, studio: Studio
) -> None:
    lab.put(1, artifact=classifier.artifact())
    clients = [studio.client(lab.account) for _ in range(8)]

    def start(client: Any) -> Any:
        return client.start_model(**lab.of, ModelVersion="1", MinInferenceUnits=1)["Status"]

    outcomes = at_once([lambda client=client: start(client) for client in clients])
    assert Counter(outcomes) == {"STARTING_HOSTING": 1, "ConflictException": 7}
    with studio.storage.database.read() as connection:
        query = sa.select(models.c.hosting).where(models.c.id == lab.model_id())
        assert connection.execute(query).scalar_one() == 1
    lab.stopped()  # while it starts
    assert "MinInferenceUnits" not in lab.describe("1")


def test_deleted_and_started_at_one_instant(classifier: ModelLab, lab: ModelLab, studio: Studio) -> None:
    clients = [studio.client(lab.account) for _ in range(2)]
    for version in range(1, 4):
        lab.put(version, artifact=classifier.artifact())
        of = {**lab.of, "ModelVersion": str(version)}
        deleted, started = at_once(
            [
                lambda of=of: clients[0].delete_model(**of)["ModelArn"],
                lambda of=of: clients[1].start_model(**of, MinInferenceUnits=1)["Status"],
            ]
        )
        if started == "STARTING_HOSTING":
            assert deleted == "ConflictException"
            lab.stopped(str(version))
        else:
            assert (deleted[-1], started) == (str(version), "ResourceNotFoundException")


def test_of_many_trainings_at_one_instant_two_begin(lab: ModelLab, studio: Studio) -> None:
    labs = [
        lab,
        *(ModelLab(studio, lab.account, studio.client(lab.account), lab.folder, f"p{n}") for n in (2, 3, 4)),
    ]
    for number, each in enumerate(labs):
        if number:
            each.client.create_project(ProjectName=each.project)
        each.dataset([line("nothing.jpg", bucket=lab.bucket)])
    with paused(studio):
        outcomes = at_once([lambda each=each: each.create()["Status"] for each in labs])
        assert Counter(outcomes) == {"TRAINING": 2, "ServiceQuotaExceededException": 2}
        refused = labs[outcomes.index("ServiceQuotaExceededException")]
        error = refusal(refused.client.create_model, **refused.of, OutputConfig=lab.output)
        assert (error["QuotaCode"], error["ServiceCode"]) == ("max_trainings", "lookoutvision")
        assert (error["ResourceId"], error["ResourceType"]) == (refused.project, "PROJECT")
        # Neither the project nor its next version has suffered; and one that is deleted makes room.
        begun = labs[outcomes.index("TRAINING")]
        begun.client.delete_model(**begun.of, ModelVersion="1")
        assert refused.create()["ModelVersion"] == "1"
        assert len(queued(studio.storage, lab.account)) == 2
    for each in labs:
        for version in each.versions():
            assert each.ended(version)["Status"] == "TRAINING_FAILED"


def test_a_model_is_deleted_while_its_training_tells_how_far_it_is(lab: ModelLab, studio: Studio) -> None:
    lab.dataset([line("nothing.jpg", bucket=lab.bucket)])
    with paused(studio), ThreadPoolExecutor(1) as thread:
        model = lab.create()
        job = queue.claim(studio.storage.database, "somebody", [TRAIN_JOB])
        assert job
        with queue.Lease(studio.storage.database, job).hold() as connection:
            deleted = thread.submit(lab.client.delete_model, **lab.of, ModelVersion="1")
            # It waits for this transaction, and this one must not wait for it.
            assert not deleted.done()
            until(lambda: _waiting(studio), bool)
            this = models.c.id == lab.model_id()
            connection.execute(models.update().where(this).values(status_message="half of it"))
        assert deleted.result(60)["ModelArn"] == model["ModelArn"]
        with pytest.raises(queue.LeaseLost), queue.Lease(studio.storage.database, job).hold():
            pass
    assert lab.versions() == []


def _waiting(studio: Studio) -> bool:
    """Whether somebody waits for a lock; SQLite doesn't tell."""
    with studio.storage.database.read() as connection:
        if connection.dialect.name == "sqlite":
            return True
        waiting = (
            "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        return bool(connection.exec_driver_sql(waiting).all())
