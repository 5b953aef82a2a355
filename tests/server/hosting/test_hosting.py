"""Hosted models: started, stopped, killed, shared by two processes, overloaded."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from botocore.exceptions import ClientError
from drawn_parts import drawn
from model_fixtures import ModelProject, TrainingService
from polling import until
from sdk_errors import error_response
from service_processes import is_alive, replicas
from services import beside, client_of, storage_of
from signed_http import HttpResponse, SignedHttpClient, connect, read_response, signed_head

from airflow_provider_lookoutvision.server.storage.schema import model_artifacts
from airflow_provider_lookoutvision.testing.service import Service, running_service

pytestmark = pytest.mark.one_database

pytest_plugins = ["model_fixtures"]

GOOD, BAD = drawn(500)[0], drawn(500, scratched=True)[0]
DETECT = "/2020-11-20/projects/p/models/1/detect"


@pytest.fixture
def model(project: ModelProject, classifier: ModelProject) -> ModelProject:
    """A project with a trained model."""
    project.put(1, artifact=classifier.artifact())
    return project


def kilobytes(pid: int, name: str) -> int:
    with open(f"/proc/{pid}/status") as status:  # noqa: PTH123
        return next(int(line.split()[1]) for line in status if line.startswith(name + ":"))


def test_the_life_of_a_hosted_model(model: ModelProject, training_service: TrainingService) -> None:
    before = set(replicas(training_service.service))
    trained = model.describe("1")["StatusMessage"]
    # Stopped before it was hosted; and never hosted after all.
    model.start()
    model.stopped()
    until(lambda: set(replicas(training_service.service)) - before, lambda left: not left)
    model.host(MaxInferenceUnits=2)
    described = model.describe("1")
    assert (described["MinInferenceUnits"], described["MaxInferenceUnits"]) == (1, 2)
    expected = model.detect(BAD)
    assert expected["IsAnomalous"] is True
    # Its unit is killed and replaced, and nobody notices.
    [unit] = set(replicas(training_service.service)) - before
    with ThreadPoolExecutor(6) as threads:
        answers = [threads.submit(model.detect, BAD) for _ in range(12)]
        os.kill(unit, signal.SIGKILL)
        assert [answer.result() for answer in answers] == [expected] * 12
    assert not is_alive(unit)
    assert model.describe("1")["Status"] == "HOSTED"
    stopped_while_many_ask(model, training_service)
    assert model.ended("1", "STOPPING_HOSTING")["Status"] == "TRAINED"
    assert set(replicas(training_service.service)) <= before
    described = model.describe("1")
    # What the training has said of it.
    assert described["StatusMessage"] == trained
    assert not {"MinInferenceUnits", "MaxInferenceUnits"} & set(described)


def stopped_while_many_ask(model: ModelProject, training_service: TrainingService) -> None:
    """Every request is answered, or fails because the model isn't hosted any more."""
    clients = [training_service.client(model.account) for _ in range(4)]
    outcomes: Counter[str] = Counter()

    def ask(client: Any) -> None:
        while outcomes["ConflictException"] < 4:
            try:
                client.detect_anomalies(**model.of, ModelVersion="1", Body=GOOD, ContentType="image/jpeg")
                outcomes["answered"] += 1
            except ClientError as error:
                outcomes[error.response["Error"]["Code"]] += 1

    with ThreadPoolExecutor(4) as threads:
        asking = [threads.submit(ask, client) for client in clients]
        until(lambda: outcomes["answered"], lambda count: count > 10)
        model.stop()
        for each in asking:
            each.result()
    assert set(outcomes) == {"answered", "ConflictException"}


def test_an_artifact_that_is_damaged_or_gone(
    sqlite_project: ModelProject, classifier: ModelProject, sqlite_training_service: TrainingService
) -> None:
    model, training_service = sqlite_project, sqlite_training_service
    model.put(1)
    whole = classifier.artifact()
    mine = model_artifacts.c.model_id == model.model_id()
    for content, reason in (
        (b"no archive", "Service fault: the model can't be loaded: File is not a zip file"),
        (None, "Service fault: the trained model is missing from the database: train it again"),
    ):
        with training_service.storage.database.write() as connection:
            connection.execute(model_artifacts.delete().where(mine))
            if content is not None:
                row = {"model_id": model.model_id(), "content": content}
                connection.execute(model_artifacts.insert().values(row))
        model.start()
        described = model.ended("1", "STARTING_HOSTING")
        assert described["Status"] == "HOSTING_FAILED"
        assert described["StatusMessage"].startswith(reason)
    assert error_response(model.detect, image=GOOD)["Error"]["Code"] == "ConflictException"
    with training_service.storage.database.write() as connection:
        connection.execute(sa.insert(model_artifacts).values(model_id=model.model_id(), content=whole))
    model.host()
    model.stopped()


def test_two_processes_on_one_database(
    model: ModelProject, training_service: TrainingService, tmp_path: Path
) -> None:
    data_dir, flags = beside(training_service.service, tmp_path / "second")
    with running_service(data_dir, [*flags, "--no-worker"]) as second_process:
        client = client_of(second_process.endpoint_url, training_service.new_key(model.account))
        there = ModelProject(training_service, model.account, client, model.folder)
        model.host()
        # Hosted by the one, it is hosted by the other too, which may have to make it ready first.
        assert there.detect(BAD) == model.detect(BAD)
        with ThreadPoolExecutor(1) as thread:
            # Stopped by the other, it is stopped by the one too.
            asked = thread.submit(until, lambda: _outcome(model), lambda found: found != "answered")
            there.stopped()
            assert asked.result() == "ConflictException"
        until(lambda: _outcome(there), lambda found: found == "ConflictException")


def _outcome(project: ModelProject) -> str:
    try:
        project.detect(BAD)
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return "answered"


def test_hosted_again_after_everything_was_killed(classifier: ModelProject) -> None:
    with running_service(flags=["--queue-per-unit", "1"]) as service, storage_of(service) as storage:
        project = TrainingService(service, storage).new_project()
        project.put(1, artifact=classifier.artifact())
        project.host(MaxInferenceUnits=2)
        expected = project.detect(BAD)
        units = replicas(service)
        service.kill()
        # Its units have nobody to answer to, and end.
        until(lambda: [pid for pid in units if is_alive(pid)], lambda left: not left)
        service.start()
        assert project.describe("1")["Status"] == "HOSTED"
        assert project.detect(BAD) == expected
        overloaded(project, service)
        service.stop()
        assert replicas(service) == []


def overloaded(project: ModelProject, service: Service) -> None:
    """Units are added under load; requests beyond the queue are refused; the others are answered."""
    done = threading.Event()
    outcomes: Counter[str] = Counter()
    refusals: list[dict[str, Any]] = []

    def ask() -> None:
        client = project.training_service.client()
        while not done.is_set():
            try:
                client.detect_anomalies(**project.of, ModelVersion="1", Body=BAD, ContentType="image/jpeg")
                outcomes["answered"] += 1
            except ClientError as error:
                outcomes[error.response["Error"]["Code"]] += 1
                refusals.append(error.response)
                done.wait(0.2)

    with ThreadPoolExecutor(9) as threads:
        asking = [threads.submit(ask) for _ in range(9)]
        try:
            until(lambda: len(replicas(service)), lambda count: count == 2)
            until(lambda: dict(outcomes), lambda found: min(found.get("answered", 0), len(found) - 1) >= 1)
            assert project.describe("1")["Status"] == "HOSTED"
        finally:
            done.set()
        for each in asking:
            each.result()
    assert set(outcomes) == {"answered", "ThrottlingException"}
    assert {refused["QuotaCode"] for refused in refusals} == {"queue_per_unit"}
    assert min(refused["RetryAfterSeconds"] for refused in refusals) >= 1


# What is hostile.


def test_uploads_that_are_given_up_hold_nothing(
    hosted: ModelProject, sqlite_training_service: TrainingService
) -> None:
    signed_http = SignedHttpClient(
        sqlite_training_service.service.endpoint_url, sqlite_training_service.new_key(hosted.account)
    )
    body = bytes(8 << 20)
    head = signed_head(
        signed_http, "POST", DETECT, body, **{"Content-Type": "image/png", "Content-Length": str(len(body))}
    )
    for _ in range(200):
        with connect(signed_http.endpoint_url) as connection:
            connection.sendall(head + body[: 1 << 16])
    # More than were given up would fit at a time: there is room for the next request.
    assert hosted.detect(GOOD)["IsAnomalous"] is False
    answer = signed_http.send("POST", DETECT, body=body, headers={"Content-Type": "image/png"})
    assert "neither a JPEG nor a PNG" in answer.message


def test_large_uploads_have_a_budget(hosted: ModelProject, sqlite_training_service: TrainingService) -> None:
    signed_http = SignedHttpClient(
        sqlite_training_service.service.endpoint_url, sqlite_training_service.new_key(hosted.account)
    )
    body = bytes(8 << 20)
    head = signed_head(
        signed_http, "POST", DETECT, body, **{"Content-Type": "image/png", "Content-Length": str(len(body))}
    )
    connections: list[socket.socket] = []

    def begin() -> socket.socket:
        connection = socket.create_connection(_address(signed_http), timeout=60)
        connections.append(connection)
        connection.sendall(head)
        return connection

    def upload(connection: socket.socket) -> None:
        connection.sendall(body[: 25 << 18])

    def one_more() -> HttpResponse:
        answer = signed_http.send("POST", DETECT, body=body, headers={"Content-Type": "image/png"})
        if answer.code != "ThrottlingException":
            # It came before the others had been read, and one of them may have been refused for it.
            with suppress(OSError):  # this one may be refused too
                upload(begin())
        return answer

    try:
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(upload, [begin() for _ in range(40)]))
        # These are 250 of 256 MB, and there is no room for another 8; what is small goes past them.
        answer = until(one_more, lambda answer: answer.code == "ThrottlingException")
        assert answer.json["QuotaCode"] == "large_bodies"
        assert answer.headers["retry-after"] == "1"
        assert hosted.detect(GOOD)["IsAnomalous"] is False
        assert hosted.versions() == ["1", "2"]
        assert kilobytes(sqlite_training_service.service.process.pid, "VmHWM") < 500_000
    finally:
        for connection in connections:
            connection.close()
    until(
        lambda: signed_http.send("POST", DETECT, body=body, headers={"Content-Type": "image/png"}).code,
        lambda code: code == "ValidationException",
    )


def _address(signed_http: SignedHttpClient) -> tuple[str, int]:
    host, _, port = signed_http.endpoint_url.removeprefix("http://").partition(":")
    return host, int(port)


def test_a_slow_upload_keeps_nobody_waiting(
    hosted: ModelProject, sqlite_training_service: TrainingService
) -> None:
    signed_http = SignedHttpClient(
        sqlite_training_service.service.endpoint_url, sqlite_training_service.new_key(hosted.account)
    )
    head = signed_head(
        signed_http, "POST", DETECT, BAD, **{"Content-Type": "image/jpeg", "Content-Length": str(len(BAD))}
    )
    with connect(signed_http.endpoint_url) as connection:
        connection.sendall(head + BAD[:100])
        assert hosted.detect(BAD)["IsAnomalous"] is True
        for place in range(100, len(BAD), 200):
            connection.sendall(BAD[place : place + 200])
        assert '"IsAnomalous":true' in read_response(connection)


def test_no_large_body_is_read_for_a_stranger(
    hosted: ModelProject, sqlite_training_service: TrainingService
) -> None:
    signed_http = SignedHttpClient(
        sqlite_training_service.service.endpoint_url, sqlite_training_service.new_key(hosted.account)
    )
    head = signed_head(
        signed_http, "POST", DETECT, b"x", **{"Content-Type": "image/png", "Content-Length": str(8 << 20)}
    )
    stranger = head.replace(signed_http.key.access_key_id.encode(), b"AKIA" + b"A" * 16)
    with connect(signed_http.endpoint_url) as connection:
        connection.sendall(stranger)
        assert "UnrecognizedClientException" in read_response(connection)
