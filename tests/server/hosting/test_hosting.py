"""Hosted models: started, stopped, killed, shared by two processes, overloaded."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from botocore.exceptions import ClientError
from dataset_fixtures import is_alive, refusal, until
from drawn_parts import drawn
from model_fixtures import ModelLab, Studio
from service_processes import replicas
from services import client_of, storage_of
from signed_http import Wire, connected, head_of, read_answer

from airflow_provider_lookoutvision.server.storage.schema import model_artifacts
from airflow_provider_lookoutvision.testing.service import Service, running_service

pytest_plugins = ["model_fixtures"]

GOOD, BAD = drawn(500)[0], drawn(500, scratched=True)[0]
DETECT = "/2020-11-20/projects/p/models/1/detect"


@pytest.fixture
def model(lab: ModelLab, classifier: ModelLab) -> ModelLab:
    """A lab with a trained model."""
    lab.put(1, artifact=classifier.artifact())
    return lab


def kilobytes(pid: int, name: str) -> int:
    with open(f"/proc/{pid}/status") as status:  # noqa: PTH123
        return next(int(line.split()[1]) for line in status if line.startswith(name + ":"))


def test_the_life_of_a_hosted_model(model: ModelLab, studio: Studio) -> None:
    before = set(replicas(studio.service))
    # Stopped before it was hosted; and never hosted after all.
    model.start()
    model.stopped()
    until(lambda: set(replicas(studio.service)) - before, lambda left: not left)
    model.host(MaxInferenceUnits=2)
    described = model.describe("1")
    assert (described["MinInferenceUnits"], described["MaxInferenceUnits"]) == (1, 2)
    expected = model.detect(BAD)
    assert expected["IsAnomalous"] is True
    # Its unit is killed and replaced, and nobody notices.
    [unit] = set(replicas(studio.service)) - before
    with ThreadPoolExecutor(6) as threads:
        answers = [threads.submit(model.detect, BAD) for _ in range(12)]
        os.kill(unit, signal.SIGKILL)
        assert [answer.result() for answer in answers] == [expected] * 12
    assert not is_alive(unit)
    assert model.describe("1")["Status"] == "HOSTED"
    stopped_while_many_ask(model, studio)
    assert model.ended("1", "STOPPING_HOSTING")["Status"] == "TRAINED"
    assert set(replicas(studio.service)) <= before
    described = model.describe("1")
    assert described["StatusMessage"] == "Training completed successfully."
    assert not {"MinInferenceUnits", "MaxInferenceUnits"} & set(described)


def stopped_while_many_ask(model: ModelLab, studio: Studio) -> None:
    """Whoever asks is answered, or told that the model isn't hosted any more."""
    clients = [studio.client(model.account) for _ in range(4)]
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
    simple: ModelLab, classifier: ModelLab, sqlite_studio: Studio
) -> None:
    model, studio = simple, sqlite_studio
    model.put(1)
    whole = classifier.artifact()
    mine = model_artifacts.c.model_id == model.model_id()
    for content, reason in (
        (b"no archive", "Service fault: the model can't be loaded: File is not a zip file"),
        (None, "Service fault: what its training made is gone from the database: train it anew"),
    ):
        with studio.storage.database.write() as connection:
            connection.execute(model_artifacts.delete().where(mine))
            if content is not None:
                row = {"model_id": model.model_id(), "content": content}
                connection.execute(model_artifacts.insert().values(row))
        model.start()
        described = model.ended("1", "STARTING_HOSTING")
        assert described["Status"] == "HOSTING_FAILED"
        assert described["StatusMessage"].startswith(reason)
    assert refusal(model.detect, image=GOOD)["Error"]["Code"] == "ConflictException"
    with studio.storage.database.write() as connection:
        connection.execute(sa.insert(model_artifacts).values(model_id=model.model_id(), content=whole))
    model.host()
    model.stopped()


def test_two_processes_on_one_database(model: ModelLab, studio: Studio) -> None:
    with running_service(studio.service.data_dir, [*studio.service.flags, "--no-worker"]) as twin:
        client = client_of(twin.endpoint_url, studio.new_key(model.account))
        there = ModelLab(studio, model.account, client, model.folder)
        model.host()
        # Hosted by the one, it is hosted by the other too, which may have to make it ready first.
        assert there.detect(BAD) == model.detect(BAD)
        with ThreadPoolExecutor(1) as thread:
            # Stopped by the other, it is stopped by the one too.
            asked = thread.submit(until, lambda: _outcome(model), lambda found: found != "answered")
            there.stopped()
            assert asked.result() == "ConflictException"
        until(lambda: _outcome(there), lambda found: found == "ConflictException")


def _outcome(lab: ModelLab) -> str:
    try:
        lab.detect(BAD)
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return "answered"


def test_hosted_again_after_everything_was_killed(classifier: ModelLab) -> None:
    with running_service(flags=["--queue-per-unit", "1"]) as service, storage_of(service) as storage:
        lab = Studio(service, storage).lab()
        lab.put(1, artifact=classifier.artifact())
        lab.host(MaxInferenceUnits=2)
        expected = lab.detect(BAD)
        units = replicas(service)
        service.kill()
        # Its units have nobody to answer to, and end.
        until(lambda: [pid for pid in units if is_alive(pid)], lambda left: not left)
        service.start()
        assert lab.describe("1")["Status"] == "HOSTED"
        assert lab.detect(BAD) == expected
        overloaded(lab, service)
        service.stop()
        assert replicas(service) == []


def overloaded(lab: ModelLab, service: Service) -> None:
    """Units are added under load; who is too many is told to come back; and others are served meanwhile."""
    done = threading.Event()
    outcomes: Counter[str] = Counter()
    refusals: list[dict[str, Any]] = []

    def ask() -> None:
        client = lab.studio.client()
        while not done.is_set():
            try:
                client.detect_anomalies(**lab.of, ModelVersion="1", Body=BAD, ContentType="image/jpeg")
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
            assert lab.describe("1")["Status"] == "HOSTED"
        finally:
            done.set()
        for each in asking:
            each.result()
    assert set(outcomes) == {"answered", "ThrottlingException"}
    assert {refused["QuotaCode"] for refused in refusals} == {"queue_per_unit"}
    assert min(refused["RetryAfterSeconds"] for refused in refusals) >= 1


# What is hostile.


def test_uploads_that_are_given_up_hold_nothing(hosted: ModelLab, sqlite_studio: Studio) -> None:
    wire = Wire(sqlite_studio.service.endpoint_url, sqlite_studio.new_key(hosted.account))
    body = bytes(8 << 20)
    head = head_of(
        wire, "POST", DETECT, body, **{"Content-Type": "image/png", "Content-Length": str(len(body))}
    )
    for _ in range(200):
        with connected(wire.endpoint_url) as connection:
            connection.sendall(head + body[: 1 << 16])
    # More than were given up would fit at a time: whoever comes now finds room.
    assert hosted.detect(GOOD)["IsAnomalous"] is False
    answer = wire.send("POST", DETECT, body=body, headers={"Content-Type": "image/png"})
    assert "neither a JPEG nor a PNG" in answer.message


def test_large_uploads_have_a_budget(hosted: ModelLab, sqlite_studio: Studio) -> None:
    wire = Wire(sqlite_studio.service.endpoint_url, sqlite_studio.new_key(hosted.account))
    body = bytes(8 << 20)
    head = head_of(
        wire, "POST", DETECT, body, **{"Content-Type": "image/png", "Content-Length": str(len(body))}
    )
    connections = []

    def upload(connection: socket.socket) -> None:
        connection.sendall(body[: 25 << 18])

    try:
        for _ in range(40):
            connection = socket.create_connection(_address(wire), timeout=60)
            connections.append(connection)
            connection.sendall(head)
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(upload, connections))
        # These are 250 of 256 MB, and there is no room for another 8; what is small goes past them.
        answer = until(
            lambda: wire.send("POST", DETECT, body=body, headers={"Content-Type": "image/png"}),
            lambda answer: answer.code == "ThrottlingException",
        )
        assert answer.json["QuotaCode"] == "large_bodies"
        assert answer.headers["retry-after"] == "1"
        assert hosted.detect(GOOD)["IsAnomalous"] is False
        assert hosted.versions() == ["1", "2"]
        assert kilobytes(sqlite_studio.service.process.pid, "VmHWM") < 500_000
    finally:
        for connection in connections:
            connection.close()
    until(
        lambda: wire.send("POST", DETECT, body=body, headers={"Content-Type": "image/png"}).code,
        lambda code: code == "ValidationException",
    )


def _address(wire: Wire) -> tuple[str, int]:
    host, _, port = wire.endpoint_url.removeprefix("http://").partition(":")
    return host, int(port)


def test_a_slow_upload_keeps_nobody_waiting(hosted: ModelLab, sqlite_studio: Studio) -> None:
    wire = Wire(sqlite_studio.service.endpoint_url, sqlite_studio.new_key(hosted.account))
    head = head_of(
        wire, "POST", DETECT, BAD, **{"Content-Type": "image/jpeg", "Content-Length": str(len(BAD))}
    )
    with connected(wire.endpoint_url) as connection:
        connection.sendall(head + BAD[:100])
        assert hosted.detect(BAD)["IsAnomalous"] is True
        for place in range(100, len(BAD), 200):
            connection.sendall(BAD[place : place + 200])
        assert '"IsAnomalous":true' in read_answer(connection)


def test_no_large_body_is_read_for_a_stranger(hosted: ModelLab, sqlite_studio: Studio) -> None:
    wire = Wire(sqlite_studio.service.endpoint_url, sqlite_studio.new_key(hosted.account))
    head = head_of(
        wire, "POST", DETECT, b"x", **{"Content-Type": "image/png", "Content-Length": str(8 << 20)}
    )
    stranger = head.replace(wire.key.access_key_id.encode(), b"AKIA" + b"A" * 16)
    with connected(wire.endpoint_url) as connection:
        connection.sendall(stranger)
        assert "UnrecognizedClientException" in read_answer(connection)
