"""Client tokens of work that goes on after its answer: repeated, failed, deleted, and used by two at once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from botocore.exceptions import ClientError
from dataset_fixtures import Lab, paused, queued, refusal, statistics, until
from manifest_lines import line, manifest
from services import MakeClient, NewKey, Storage

from airflow_provider_lookoutvision.server.storage.schema import client_tokens
from airflow_provider_lookoutvision.testing.service import Service

OF = {"ProjectName": "p", "DatasetType": "train"}


@pytest.fixture
def lab(service: Service, client: Any) -> Lab:
    return Lab.make(service, client)


def body(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name != "ResponseMetadata"}


def test_a_repetition_in_progress_and_after(
    lab: Lab, service: Service, storage: Storage, account: str
) -> None:
    request = {**OF, "DatasetSource": lab.source(manifest(line())), "ClientToken": "t"}
    with paused(service, storage):
        first = lab.client.create_dataset(**request)
        assert body(lab.client.create_dataset(**request)) == body(first)
        assert len(queued(storage, account)) == 1
        error = refusal(lab.client.create_dataset, **{**request, "DatasetSource": lab.source(key="other")})
        assert error["Error"]["Code"] == "ConflictException"
        assert "with other parameters" in error["Error"]["Message"]
    described = lab.settled()
    assert body(lab.client.create_dataset(**request)) == body(first)
    assert queued(storage, account) == []
    assert lab.describe() == described

    changes = {**OF, "Changes": manifest(line("2.png")), "ClientToken": "t"}
    with paused(service, storage):
        for _ in range(2):
            assert lab.client.update_dataset_entries(**changes)["Status"] == "UPDATE_IN_PROGRESS"
        assert len(queued(storage, account)) == 1
        error = refusal(lab.client.update_dataset_entries, **{**changes, "Changes": manifest(line("3.png"))})
        assert "with other parameters" in error["Error"]["Message"]
    described = lab.settled()
    assert lab.client.update_dataset_entries(**changes)["Status"] == "UPDATE_IN_PROGRESS"
    assert (lab.describe(), described["Status"], statistics(described)[0]) == (
        described,
        "UPDATE_COMPLETE",
        2,
    )


def test_a_token_whose_dataset_failed_begins_anew(lab: Lab) -> None:
    request = {**OF, "DatasetSource": lab.source(b"no JSON"), "ClientToken": "t"}
    first = lab.client.create_dataset(**request)["DatasetMetadata"]
    assert lab.settled()["Status"] == "CREATE_FAILED"
    again = lab.client.create_dataset(**request)["DatasetMetadata"]  # nothing has been mended
    assert again["Status"] == "CREATE_IN_PROGRESS"
    assert again["CreationTimestamp"] > first["CreationTimestamp"]
    assert lab.settled()["Status"] == "CREATE_FAILED"
    lab.source(manifest(line()))
    lab.client.create_dataset(**request)
    described = lab.settled()
    assert (described["Status"], statistics(described)) == ("CREATE_COMPLETE", (1, 1, 1, 0))
    lab.client.create_dataset(**request)  # from now on it is that dataset's
    assert lab.describe() == described
    assert len(lab.client.describe_project(ProjectName="p")["ProjectDescription"]["Datasets"]) == 1


def test_a_token_that_failed_may_have_other_parameters(lab: Lab) -> None:
    lab.created(b"no JSON", ClientToken="t")
    lab.client.create_dataset(**OF, DatasetSource=lab.source(manifest(line()), "mended"), ClientToken="t")
    assert lab.settled()["Status"] == "CREATE_COMPLETE"
    error = refusal(lab.client.create_dataset, **OF, DatasetSource=lab.source(), ClientToken="t")
    assert "with other parameters" in error["Error"]["Message"]


def test_a_token_that_failed_may_make_an_empty_dataset(lab: Lab) -> None:
    lab.created(b"no JSON", ClientToken="t")
    assert lab.create(ClientToken="t")["Status"] == "CREATE_COMPLETE"
    assert lab.describe()["Status"] == "CREATE_COMPLETE"


def test_a_token_replaces_no_dataset_but_its_own(lab: Lab) -> None:
    lab.created(b"no JSON", "train", ClientToken="t")
    lab.created(b"no JSON", "test", ClientToken="other")
    error = refusal(lab.client.create_dataset, ProjectName="p", DatasetType="test", ClientToken="t")
    assert "already has a test dataset (CREATE_FAILED)" in error["Error"]["Message"]
    # Deleted and made by somebody else, its own is its own no more.
    lab.delete()
    lab.created(b"no JSON", ClientToken="other-2")
    error = refusal(lab.client.create_dataset, **OF, ClientToken="t")
    assert "already has a train dataset (CREATE_FAILED)" in error["Error"]["Message"]
    lab.delete()
    described = lab.created(manifest(line()))
    assert (
        "already has a train" in refusal(lab.client.create_dataset, **OF, ClientToken="t")["Error"]["Message"]
    )
    assert lab.describe() == described


def test_a_token_whose_failed_dataset_was_deleted_begins_anew(lab: Lab) -> None:
    lab.created(b"no JSON", ClientToken="t")
    lab.delete()
    assert lab.created(manifest(line()), ClientToken="t")["Status"] == "CREATE_COMPLETE"


def test_a_token_whose_update_failed_begins_anew(lab: Lab) -> None:
    lab.created(manifest(line("1.png")))
    for changes, status in (
        (b"no JSON", "UPDATE_FAILED_ROLLBACK_COMPLETE"),
        (b"no JSON", "UPDATE_FAILED_ROLLBACK_COMPLETE"),
        (manifest(line("2.png")), "UPDATE_COMPLETE"),
    ):
        answer = lab.client.update_dataset_entries(**OF, Changes=changes, ClientToken="t")
        assert answer["Status"] == "UPDATE_IN_PROGRESS"
        assert lab.settled()["Status"] == status
    error = refusal(lab.client.update_dataset_entries, **OF, Changes=b"no JSON", ClientToken="t")
    assert "with other parameters" in error["Error"]["Message"]
    assert lab.describe()["Status"] == "UPDATE_COMPLETE"


def test_a_repetition_brings_no_deleted_dataset_back(lab: Lab, storage: Storage, account: str) -> None:
    content = manifest(line())
    lab.created(content, ClientToken="t")
    lab.update(content, ClientToken="u")
    lab.delete()
    for call, members in (
        (lab.client.create_dataset, {"DatasetSource": lab.source(content), "ClientToken": "t"}),
        (lab.client.update_dataset_entries, {"Changes": content, "ClientToken": "u"}),
    ):
        error = refusal(call, **OF, **members)
        assert error["Error"]["Code"] == "ConflictException"
        assert "has been deleted since" in error["Error"]["Message"]
        assert (error["ResourceId"], error["ResourceType"]) == ("p/train", "DATASET")
    assert lab.client.describe_project(ProjectName="p")["ProjectDescription"]["Datasets"] == []
    lab.created(content, ClientToken="t2")
    assert refusal(lab.client.create_dataset, **OF, DatasetSource=lab.source(), ClientToken="t")["ResourceId"]
    lab.delete()
    with storage.database.write() as connection:  # eight hours later
        connection.execute(
            client_tokens.update().where(client_tokens.c.account_id == account).values(expires_at=1)
        )
    assert lab.created(content, ClientToken="t")["Status"] == "CREATE_COMPLETE"


def test_a_repeated_deletion_deletes_once(lab: Lab) -> None:
    lab.create()
    lab.delete(ClientToken="d")
    lab.delete(ClientToken="d")
    described = lab.created(manifest(line()))
    error = refusal(lab.client.delete_dataset, **OF, ClientToken="d")
    assert error["Error"]["Code"] == "ConflictException"
    assert "created again since" in error["Error"]["Message"]
    assert lab.describe() == described
    lab.delete(ClientToken="d2")


def test_one_token_may_be_of_many_operations(lab: Lab) -> None:
    lab.create(ClientToken="t")
    lab.update(manifest(line()), ClientToken="t")
    lab.delete(ClientToken="t")
    assert lab.client.describe_project(ProjectName="p")["ProjectDescription"]["Datasets"] == []


def test_a_deletion_that_was_refused_spends_no_token(lab: Lab, service: Service, storage: Storage) -> None:
    with paused(service, storage):
        lab.create(manifest(line()))
        refusal(lab.client.delete_dataset, **OF, ClientToken="d")
    lab.settled()
    lab.delete(ClientToken="d")
    assert lab.client.describe_project(ProjectName="p")["ProjectDescription"]["Datasets"] == []


def at_once(calls: list[Callable[[], Any]]) -> list[Any]:
    """Do all calls at one instant; their answers or errors."""
    together = Barrier(len(calls))

    def begin(call: Callable[[], Any]) -> Any:
        together.wait(30)
        try:
            return body(call())
        except ClientError as error:
            return error.response["Error"]["Code"]

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(begin, calls))


@pytest.fixture
def clients(make_client: MakeClient, new_key: NewKey) -> list[Any]:
    key = new_key()
    return [make_client(key=key) for _ in range(4)]


def test_clients_with_one_token_at_one_instant(
    lab: Lab, clients: list[Any], service: Service, storage: Storage, account: str
) -> None:
    source = lab.source(manifest(line()))
    for number in range(4):
        with paused(service, storage):
            answers = at_once(
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
            assert len(queued(storage, account)) == 1
        assert lab.settled()["Status"] == "CREATE_COMPLETE"
        with paused(service, storage):
            answers = at_once(
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
            assert len(queued(storage, account)) == 1
        assert statistics(lab.settled()) == (2, 2, 2, 0)
        answers = at_once(
            [
                lambda client=client: client.delete_dataset(**OF, ClientToken=f"d{number}")  # noqa: B023
                for client in clients
            ]
        )
        assert answers == [{}] * 4


def test_clients_with_a_token_each_at_one_instant(lab: Lab, clients: list[Any]) -> None:
    source = lab.source(manifest(line()))
    for _ in range(4):
        answers = at_once(
            [lambda client=client: client.create_dataset(**OF, DatasetSource=source) for client in clients]
        )
        assert answers.count("ConflictException") == 3
        assert lab.settled()["Status"] == "CREATE_COMPLETE"
        answers = at_once([lambda client=client: client.delete_dataset(**OF) for client in clients])
        assert sorted(map(str, answers)) == ["ResourceNotFoundException"] * 3 + ["{}"]


def test_a_failed_token_used_by_many_at_one_instant(lab: Lab, clients: list[Any]) -> None:
    lab.created(b"no JSON", ClientToken="t")
    source = lab.source(manifest(line()), "mended")
    answers = at_once(
        [
            lambda client=client: client.create_dataset(**OF, DatasetSource=source, ClientToken="t")
            for client in clients
        ]
    )
    assert answers == [answers[0]] * 4
    described = lab.settled()
    assert (described["Status"], statistics(described)) == ("CREATE_COMPLETE", (1, 1, 1, 0))


def test_a_deletion_and_a_new_attempt_at_one_instant(lab: Lab, clients: list[Any]) -> None:
    # Each wants what the other holds: the token of the dataset, the dataset of the token.
    source = lab.source(b"no JSON")
    for _ in range(6):
        lab.created(b"no JSON", ClientToken="t")
        answers = at_once(
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
        project = until(
            lambda: lab.client.describe_project(ProjectName="p")["ProjectDescription"],
            lambda found: "IN_PROGRESS" not in str(found["Datasets"]),
        )
        if project["Datasets"]:
            lab.delete()
