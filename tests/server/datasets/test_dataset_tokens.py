"""Client tokens of work that goes on after its answer: repeated, failed, deleted, and used by two at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from dataset_projects import DatasetProject, statistics
from held_worker import paused_worker, queued_jobs
from manifest_lines import line, manifest
from polling import until
from sdk_errors import error_response
from services import MakeClient, NewKey, Storage
from simultaneous import outcomes_at_once

from airflow_provider_lookoutvision.server.storage.schema import client_tokens
from airflow_provider_lookoutvision.testing.service import Service

OF = {"ProjectName": "p", "DatasetType": "train"}


def body(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name != "ResponseMetadata"}


def test_a_repetition_in_progress_and_after(
    project: DatasetProject, service: Service, storage: Storage, account: str
) -> None:
    request = {**OF, "DatasetSource": project.source(manifest(line())), "ClientToken": "t"}
    with paused_worker(service, storage):
        first = project.client.create_dataset(**request)
        assert body(project.client.create_dataset(**request)) == body(first)
        assert len(queued_jobs(storage, account)) == 1
        error = error_response(
            project.client.create_dataset, **{**request, "DatasetSource": project.source(key="other")}
        )
        assert error["Error"]["Code"] == "ConflictException"
        assert "with other parameters" in error["Error"]["Message"]
    described = project.settled()
    assert body(project.client.create_dataset(**request)) == body(first)
    assert queued_jobs(storage, account) == []
    assert project.describe() == described

    changes = {**OF, "Changes": manifest(line("2.png")), "ClientToken": "t"}
    with paused_worker(service, storage):
        for _ in range(2):
            assert project.client.update_dataset_entries(**changes)["Status"] == "UPDATE_IN_PROGRESS"
        assert len(queued_jobs(storage, account)) == 1
        error = error_response(
            project.client.update_dataset_entries, **{**changes, "Changes": manifest(line("3.png"))}
        )
        assert "with other parameters" in error["Error"]["Message"]
    described = project.settled()
    assert project.client.update_dataset_entries(**changes)["Status"] == "UPDATE_IN_PROGRESS"
    assert (project.describe(), described["Status"], statistics(described)[0]) == (
        described,
        "UPDATE_COMPLETE",
        2,
    )


def test_a_token_whose_dataset_failed_starts_again(project: DatasetProject) -> None:
    request = {**OF, "DatasetSource": project.source(b"no JSON"), "ClientToken": "t"}
    first = project.client.create_dataset(**request)["DatasetMetadata"]
    assert project.settled()["Status"] == "CREATE_FAILED"
    again = project.client.create_dataset(**request)["DatasetMetadata"]  # nothing has been mended
    assert again["Status"] == "CREATE_IN_PROGRESS"
    assert again["CreationTimestamp"] > first["CreationTimestamp"]
    assert project.settled()["Status"] == "CREATE_FAILED"
    project.source(manifest(line()))
    project.client.create_dataset(**request)
    described = project.settled()
    assert (described["Status"], statistics(described)) == ("CREATE_COMPLETE", (1, 1, 1, 0))
    project.client.create_dataset(**request)  # from now on it is that dataset's
    assert project.describe() == described
    assert len(project.client.describe_project(ProjectName="p")["ProjectDescription"]["Datasets"]) == 1


def test_a_token_that_failed_may_have_other_parameters(project: DatasetProject) -> None:
    project.created(b"no JSON", ClientToken="t")
    project.client.create_dataset(
        **OF, DatasetSource=project.source(manifest(line()), "mended"), ClientToken="t"
    )
    assert project.settled()["Status"] == "CREATE_COMPLETE"
    error = error_response(
        project.client.create_dataset, **OF, DatasetSource=project.source(), ClientToken="t"
    )
    assert "with other parameters" in error["Error"]["Message"]


def test_a_token_that_failed_may_make_an_empty_dataset(project: DatasetProject) -> None:
    project.created(b"no JSON", ClientToken="t")
    assert project.create(ClientToken="t")["Status"] == "CREATE_COMPLETE"
    assert project.describe()["Status"] == "CREATE_COMPLETE"


def test_a_token_replaces_no_dataset_but_its_own(project: DatasetProject) -> None:
    project.created(b"no JSON", "train", ClientToken="t")
    project.created(b"no JSON", "test", ClientToken="other")
    error = error_response(
        project.client.create_dataset, ProjectName="p", DatasetType="test", ClientToken="t"
    )
    assert "already has a test dataset (CREATE_FAILED)" in error["Error"]["Message"]
    # Deleted and made by somebody else, its own is its own no more.
    project.delete()
    project.created(b"no JSON", ClientToken="other-2")
    error = error_response(project.client.create_dataset, **OF, ClientToken="t")
    assert "already has a train dataset (CREATE_FAILED)" in error["Error"]["Message"]
    project.delete()
    described = project.created(manifest(line()))
    assert (
        "already has a train"
        in error_response(project.client.create_dataset, **OF, ClientToken="t")["Error"]["Message"]
    )
    assert project.describe() == described


def test_a_token_whose_failed_dataset_was_deleted_starts_again(project: DatasetProject) -> None:
    project.created(b"no JSON", ClientToken="t")
    project.delete()
    assert project.created(manifest(line()), ClientToken="t")["Status"] == "CREATE_COMPLETE"


def test_a_token_whose_update_failed_starts_again(project: DatasetProject) -> None:
    project.created(manifest(line("1.png")))
    for changes, status in (
        (b"no JSON", "UPDATE_FAILED_ROLLBACK_COMPLETE"),
        (b"no JSON", "UPDATE_FAILED_ROLLBACK_COMPLETE"),
        (manifest(line("2.png")), "UPDATE_COMPLETE"),
    ):
        answer = project.client.update_dataset_entries(**OF, Changes=changes, ClientToken="t")
        assert answer["Status"] == "UPDATE_IN_PROGRESS"
        assert project.settled()["Status"] == status
    error = error_response(project.client.update_dataset_entries, **OF, Changes=b"no JSON", ClientToken="t")
    assert "with other parameters" in error["Error"]["Message"]
    assert project.describe()["Status"] == "UPDATE_COMPLETE"


def test_a_repetition_brings_no_deleted_dataset_back(
    project: DatasetProject, storage: Storage, account: str
) -> None:
    content = manifest(line())
    project.created(content, ClientToken="t")
    project.update(content, ClientToken="u")
    project.delete()
    for call, members in (
        (project.client.create_dataset, {"DatasetSource": project.source(content), "ClientToken": "t"}),
        (project.client.update_dataset_entries, {"Changes": content, "ClientToken": "u"}),
    ):
        error = error_response(call, **OF, **members)
        assert error["Error"]["Code"] == "ConflictException"
        assert "has been deleted since" in error["Error"]["Message"]
        assert (error["ResourceId"], error["ResourceType"]) == ("p/train", "DATASET")
    assert project.client.describe_project(ProjectName="p")["ProjectDescription"]["Datasets"] == []
    project.created(content, ClientToken="t2")
    assert error_response(
        project.client.create_dataset, **OF, DatasetSource=project.source(), ClientToken="t"
    )["ResourceId"]
    project.delete()
    with storage.database.write() as connection:  # eight hours later
        connection.execute(
            client_tokens.update().where(client_tokens.c.account_id == account).values(expires_at=1)
        )
    assert project.created(content, ClientToken="t")["Status"] == "CREATE_COMPLETE"


def test_a_repeated_deletion_deletes_once(project: DatasetProject) -> None:
    project.create()
    project.delete(ClientToken="d")
    project.delete(ClientToken="d")
    described = project.created(manifest(line()))
    error = error_response(project.client.delete_dataset, **OF, ClientToken="d")
    assert error["Error"]["Code"] == "ConflictException"
    assert "created again since" in error["Error"]["Message"]
    assert project.describe() == described
    project.delete(ClientToken="d2")


def test_one_token_may_be_of_many_operations(project: DatasetProject) -> None:
    project.create(ClientToken="t")
    project.update(manifest(line()), ClientToken="t")
    project.delete(ClientToken="t")
    assert project.client.describe_project(ProjectName="p")["ProjectDescription"]["Datasets"] == []


def test_a_deletion_that_was_refused_spends_no_token(
    project: DatasetProject, service: Service, storage: Storage
) -> None:
    with paused_worker(service, storage):
        project.create(manifest(line()))
        error_response(project.client.delete_dataset, **OF, ClientToken="d")
    project.settled()
    project.delete(ClientToken="d")
    assert project.client.describe_project(ProjectName="p")["ProjectDescription"]["Datasets"] == []


def bodies_at_once(calls: list[Callable[[], Any]]) -> list[Any]:
    """Make all calls at one instant; the bodies of their answers, or the codes of their errors."""
    return outcomes_at_once([lambda call=call: body(call()) for call in calls])


@pytest.fixture
def clients(make_client: MakeClient, new_key: NewKey) -> list[Any]:
    key = new_key()
    return [make_client(key=key) for _ in range(4)]


def test_clients_with_one_token_at_one_instant(
    project: DatasetProject, clients: list[Any], service: Service, storage: Storage, account: str
) -> None:
    source = project.source(manifest(line()))
    for number in range(4):
        with paused_worker(service, storage):
            answers = bodies_at_once(
                [
                    lambda client=client: client.create_dataset(
                        **OF,
                        DatasetSource=source,
                        ClientToken=f"t{number}",  # noqa: B023 (called within)
                    )
                    for client in clients
                ]
            )
            assert answers == [answers[0]] * 4
            assert answers[0]["DatasetMetadata"]["Status"] == "CREATE_IN_PROGRESS"
            assert len(queued_jobs(storage, account)) == 1
        assert project.settled()["Status"] == "CREATE_COMPLETE"
        with paused_worker(service, storage):
            answers = bodies_at_once(
                [
                    lambda client=client: client.update_dataset_entries(
                        **OF,
                        Changes=manifest(line("2.png")),
                        ClientToken=f"u{number}",  # noqa: B023
                    )
                    for client in clients
                ]
            )
            assert answers == [{"Status": "UPDATE_IN_PROGRESS"}] * 4
            assert len(queued_jobs(storage, account)) == 1
        assert statistics(project.settled()) == (2, 2, 2, 0)
        answers = bodies_at_once(
            [
                lambda client=client: client.delete_dataset(**OF, ClientToken=f"d{number}")  # noqa: B023
                for client in clients
            ]
        )
        assert answers == [{}] * 4


def test_clients_with_a_token_each_at_one_instant(project: DatasetProject, clients: list[Any]) -> None:
    source = project.source(manifest(line()))
    for _ in range(4):
        answers = bodies_at_once(
            [lambda client=client: client.create_dataset(**OF, DatasetSource=source) for client in clients]
        )
        assert answers.count("ConflictException") == 3
        assert project.settled()["Status"] == "CREATE_COMPLETE"
        answers = bodies_at_once([lambda client=client: client.delete_dataset(**OF) for client in clients])
        assert sorted(map(str, answers)) == ["ResourceNotFoundException"] * 3 + ["{}"]


def test_a_failed_token_used_by_many_at_one_instant(project: DatasetProject, clients: list[Any]) -> None:
    project.created(b"no JSON", ClientToken="t")
    source = project.source(manifest(line()), "mended")
    answers = bodies_at_once(
        [
            lambda client=client: client.create_dataset(**OF, DatasetSource=source, ClientToken="t")
            for client in clients
        ]
    )
    assert answers == [answers[0]] * 4
    described = project.settled()
    assert (described["Status"], statistics(described)) == ("CREATE_COMPLETE", (1, 1, 1, 0))


def test_a_deletion_and_a_new_attempt_at_one_instant(project: DatasetProject, clients: list[Any]) -> None:
    # Each wants what the other holds: the token of the dataset, the dataset of the token.
    source = project.source(b"no JSON")
    for _ in range(6):
        project.created(b"no JSON", ClientToken="t")
        answers = bodies_at_once(
            [
                lambda: clients[0].delete_dataset(**OF),
                lambda: clients[1].create_dataset(**OF, DatasetSource=source, ClientToken="t"),
                lambda: clients[2].delete_dataset(**OF),
                lambda: clients[3].create_dataset(**OF, DatasetSource=source, ClientToken="t"),
            ]
        )
        assert "InternalServerException" not in answers
        assert answers[1]["DatasetMetadata"]["Status"] == "CREATE_IN_PROGRESS"
        # Whether the last word was a deletion is chance; the next round begins without a dataset.
        described = until(
            lambda: project.client.describe_project(ProjectName="p")["ProjectDescription"],
            lambda found: "IN_PROGRESS" not in str(found["Datasets"]),
        )
        if described["Datasets"]:
            project.delete()
