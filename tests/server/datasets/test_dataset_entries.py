"""ListDatasetEntries and UpdateDatasetEntries: what comes out, page by page, and how it is changed."""

from __future__ import annotations

import base64
import json
import re
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest
import sqlalchemy as sa
from dataset_projects import DatasetProject, statistics
from manifest_lines import compact, line, manifest, masked
from sdk_errors import error_response
from services import Storage
from signed_http import SignedHttpClient

from airflow_provider_lookoutvision.server.storage.schema import dataset_entries

OF = {"ProjectName": "p", "DatasetType": "train"}


def keys(entries: list[str]) -> list[str]:
    return [json.loads(entry)["source-ref"].removeprefix("s3://images/") for entry in entries]


def test_entries_come_back_normalised_in_the_order_of_their_lines(project: DatasetProject) -> None:
    odd = line("c.png", "normal") | {"anomaly-label": "1", "größe": "µm", "n": 1.50}
    project.created(
        manifest(
            line("z.png"),
            json.dumps(odd, indent=None, separators=(" , ", " : ")),
            masked("a.png"),
            line("b", None),
        )
    )
    assert project.entries() == [
        compact(document)
        for document in (line("z.png"), odd | {"anomaly-label": 0}, masked("a.png"), line("b", None))
    ]
    for entry in project.entries():
        assert re.fullmatch(r"\{.*\}", entry)


def test_every_combination_of_filters(project: DatasetProject) -> None:
    labels = {"n1": "normal", "n2": "normal", "a1": "anomaly", "a2": "anomaly", "u1": None, "u2": "dented"}
    project.created(manifest(*(line(f"{name}.png", label) for name, label in labels.items())))
    label_of = {name: label if label in {"normal", "anomaly"} else None for name, label in labels.items()}
    now = datetime.now(UTC)
    past, future = now - timedelta(hours=1), now + timedelta(hours=1)
    dates = [(None, None), (past, None), (future, None), (None, past), (None, future), (future, past)]
    for labeled, anomaly_class, (before, after), contains in product(
        (None, True, False), (None, "normal", "anomaly"), dates, (None, "1.p")
    ):
        filters = {
            "Labeled": labeled,
            "AnomalyClass": anomaly_class,
            "BeforeCreationDate": before,
            "AfterCreationDate": after,
            "SourceRefContains": contains,
        }
        given = {name: value for name, value in filters.items() if value is not None}
        answer = project.client.list_dataset_entries(**OF, **given)
        expected = [
            f"{name}.png"
            for name, label in label_of.items()
            if (labeled is None or labeled == (label is not None))
            and (anomaly_class is None or label == anomaly_class)
            and before is not past
            and after is not future
            and (contains is None or contains in f"s3://images/{name}.png")
        ]
        assert keys(answer["DatasetEntries"]) == expected, given
        assert "NextToken" not in answer


def test_dates_part_what_came_when(project: DatasetProject) -> None:
    project.created(manifest(line("1.png"), line("2.png")))
    between = project.describe()["LastUpdatedTimestamp"] + timedelta(milliseconds=1)
    project.update(manifest(line("3.png"), line("1.png", "anomaly")))
    assert keys(project.entries(BeforeCreationDate=between)) == ["2.png"]
    assert keys(project.entries(AfterCreationDate=between)) == ["1.png", "3.png"]
    assert keys(project.entries(AfterCreationDate=between, BeforeCreationDate=between)) == []


def test_dates_are_exact_to_the_millisecond(project: DatasetProject, storage: Storage) -> None:
    project.created(manifest(line(key := f"{project.bucket}.png")))
    for step in range(4):
        milliseconds = 1_606_579_439_278 + 86_399_977 * step
        with storage.database.write() as connection:
            entry = dataset_entries.c.source_ref == f"s3://images/{key}"
            connection.execute(dataset_entries.update().where(entry).values(created_at=milliseconds))
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)
        assert project.entries(BeforeCreationDate=moment) == project.entries(AfterCreationDate=moment) == []
        next_to_it = timedelta(milliseconds=1)
        assert len(project.entries(BeforeCreationDate=moment + next_to_it)) == 1
        assert len(project.entries(AfterCreationDate=moment - next_to_it)) == 1


def test_a_text_within_the_reference(project: DatasetProject) -> None:
    names = ["50%.png", "a_b.png", "A_b.png", "Ü 图.png", "back\\slash", "q'uote"]
    project.created(manifest(*(line(name) for name in names)))
    for text, found in {
        "s3://images/": names,
        "%": ["50%.png"],
        "_": ["a_b.png", "A_b.png"],
        "a_b": ["a_b.png"],
        "A_B": [],
        "\\": ["back\\slash"],
        "'": ["q'uote"],
        "图": ["Ü 图.png"],
        "ü": [],
        "/": names,
        ".p": names[:4],
        "*": [],
        "anomaly-label": [],  # elsewhere in the line
    }.items():
        assert keys(project.entries(SourceRefContains=text)) == found, text


def test_pages(project: DatasetProject) -> None:
    expected = [f"{number}.png" for number in range(250)]
    project.created(manifest(*(line(name) for name in expected)))
    pages = list(project.client.get_paginator("list_dataset_entries").paginate(**OF))
    assert [len(page["DatasetEntries"]) for page in pages] == [100, 100, 50]
    assert ["NextToken" in page for page in pages] == [True, True, False]
    assert [key for page in pages for key in keys(page["DatasetEntries"])] == expected
    sizes = [
        len(page["DatasetEntries"])
        for page in project.client.get_paginator("list_dataset_entries").paginate(
            **OF, PaginationConfig={"PageSize": 83}
        )
    ]
    assert sizes == [83, 83, 83, 1]
    assert re.fullmatch(r"[A-Za-z0-9/+=]{1,2048}", pages[0]["NextToken"])


def test_what_is_added_between_pages_comes_last_and_nothing_comes_twice(project: DatasetProject) -> None:
    project.created(manifest(*(line(f"{n}.png", "normal" if n % 2 else "anomaly") for n in range(10))))
    first = project.client.list_dataset_entries(**OF, MaxResults=4, AnomalyClass="normal")
    project.update(manifest(line("new.png"), line("3.png"), line("9.png", "anomaly"), line("0.png")))
    rest = project.client.list_dataset_entries(**OF, AnomalyClass="normal", NextToken=first["NextToken"])
    assert keys(first["DatasetEntries"]) == ["1.png", "3.png", "5.png", "7.png"]
    assert keys(rest["DatasetEntries"]) == ["new.png"]
    assert "NextToken" not in rest


def test_a_token_holds_for_its_query_only(project: DatasetProject) -> None:
    moment = datetime(2020, 6, 23, tzinfo=UTC)
    project.created(manifest(*(line(f"{n}.png") for n in range(4))))
    project.created(manifest(*(line(f"{n}.png") for n in range(4))), "test")
    filters: dict[str, Any] = {
        "Labeled": True,
        "AnomalyClass": "normal",
        "AfterCreationDate": moment,
        "BeforeCreationDate": moment + timedelta(days=20_000),
        "SourceRefContains": "png",
    }
    token = project.client.list_dataset_entries(**OF, **filters, MaxResults=1)["NextToken"]
    others: list[dict[str, Any]] = [
        {name: value for name, value in filters.items() if name != left_out} for left_out in filters
    ]
    others += [
        filters | other
        for other in (
            {"Labeled": False},
            {"AnomalyClass": "anomaly"},
            {"AfterCreationDate": moment - timedelta(seconds=1)},
            {"BeforeCreationDate": moment + timedelta(days=20_001)},
            {"SourceRefContains": "pn"},
            {"DatasetType": "test"},
        )
    ]
    for other in others:
        error = error_response(project.client.list_dataset_entries, **(OF | other), NextToken=token)
        assert error["Error"]["Code"] == "ValidationException"
        assert error["Error"]["Message"].startswith("NextToken is not one that this query returned")
    answer = project.client.list_dataset_entries(**OF, **filters, NextToken=token)
    assert keys(answer["DatasetEntries"]) == ["1.png", "2.png", "3.png"]
    project.delete()
    project.created(manifest(*(line(f"{n}.png") for n in range(4))))
    error = error_response(project.client.list_dataset_entries, **OF, **filters, NextToken=token)
    assert error["Error"]["Code"] == "ValidationException"


def test_an_update_adds_and_replaces_whole(project: DatasetProject) -> None:
    made = project.created(manifest(line("1.png"), masked("2.png"), line("3.png", None) | {"lot": 7}))
    described = project.update(manifest(line("4.png", "anomaly"), line("3.png", "Normal"), line("2.png")))
    assert (described["Status"], described["StatusMessage"]) == (
        "UPDATE_COMPLETE",
        "The dataset was updated successfully.",
    )
    assert statistics(described) == (4, 4, 3, 1)
    assert described["CreationTimestamp"] == made["CreationTimestamp"]
    assert described["LastUpdatedTimestamp"] > made["LastUpdatedTimestamp"]
    # What the new line doesn't have is gone: the mask of 2, the lot of 3.
    assert project.entries() == [
        compact(document)
        for document in (line("1.png"), line("2.png"), line("3.png"), line("4.png", "anomaly"))
    ]


def test_an_update_answers_at_once(project: DatasetProject) -> None:
    project.create()
    answer = project.client.update_dataset_entries(**OF, Changes=manifest(line()))
    assert answer["Status"] == "UPDATE_IN_PROGRESS"
    assert project.settled()["Status"] == "UPDATE_COMPLETE"


@pytest.mark.one_database
def test_text_may_be_given_for_bytes(project: DatasetProject) -> None:
    project.create()
    described = project.update(manifest(line("ü.png")).decode())  # type: ignore[arg-type]
    assert statistics(described) == (1, 1, 1, 0)


def test_the_same_image_twice_in_an_update(project: DatasetProject) -> None:
    project.create()
    described = project.update(manifest(line("1.png"), line("2.png"), line("1.png", "anomaly")))
    assert statistics(described) == (2, 2, 1, 1)
    assert keys(project.entries()) == ["1.png", "2.png"]


BEFORE = [line("1.png"), masked("2.png"), line("3.png", None)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (manifest(line("4.png"), line("1.png", "anomaly"), "{}"), "the update has 1 invalid line: line 3: "),
        (manifest(line("4.png", bucket="other")), "line 1: its image is in the bucket other, others"),
        (manifest({"source-ref": "4.png"}), "line 1: its source-ref is '4.png', not s3://bucket/key"),
        (b"\n \n", "the update is empty"),
        (manifest(line("4.png"), b"\xff"), "line 2: it is not UTF-8"),
        (manifest(*(line(f"n{n}.png") for n in range(3000)), "x"), "line 3001: it is not JSON"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("state", ["CREATE_COMPLETE", "UPDATE_COMPLETE"])
def test_an_update_that_can_not_be_done_changes_nothing(
    state: str, changes: bytes, message: str, project: DatasetProject
) -> None:
    project.created(manifest(*BEFORE[:2], line("3.png", "normal")))
    project.update(manifest(BEFORE[2]))
    entries = project.entries()
    described = project.update(changes)
    assert described["Status"] == "UPDATE_FAILED_ROLLBACK_COMPLETE"
    assert described["StatusMessage"].startswith("Invalid input: ")
    assert message in described["StatusMessage"]
    assert statistics(described) == (3, 2, 1, 1)
    assert project.entries() == entries == [compact(document) for document in BEFORE]
    # From there it goes on as from any settled state.
    assert project.update(manifest(line("4.png")))["Status"] == "UPDATE_COMPLETE"
    assert keys(project.entries()) == ["1.png", "2.png", "3.png", "4.png"]


def test_an_update_may_not_exceed_the_most_images(project: DatasetProject, storage: Storage) -> None:
    project.created(manifest(*(line(f"{n}.png", "anomaly") for n in range(3999))), "test")
    described = project.update(manifest(line("new.png"), line("0.png"), line("1.png", None)), "test")
    assert (described["Status"], statistics(described)) == ("UPDATE_COMPLETE", (4000, 3999, 2, 3997))
    moments = _moments(storage, project)
    described = project.update(manifest(line("7.png"), line("newer.png")), "test")
    assert described["Status"] == "UPDATE_FAILED_ROLLBACK_COMPLETE"
    assert described["StatusMessage"] == (
        "Invalid input: the dataset would have 4001 images; a test dataset has at most 4000"
    )
    assert statistics(described) == (4000, 3999, 2, 3997)
    assert project.entries("test", SourceRefContains="newer") == []
    assert '"anomaly"' in project.entries("test", SourceRefContains="/7.png")[0]
    assert _moments(storage, project) == moments
    project.delete("test")


def _moments(storage: Storage, project: DatasetProject) -> list[Any]:
    columns = dataset_entries.c
    with storage.database.read() as connection:
        return list(
            connection.execute(
                sa.select(columns.id, columns.created_at)
                .where(columns.source_ref.in_([f"s3://images/{n}.png" for n in range(3999)]))
                .order_by(columns.id)
            )
        )


@pytest.mark.one_database
def test_10_mebibytes_and_one_byte_more(project: DatasetProject, signed_http: SignedHttpClient) -> None:
    # 1,280 lines of 8,192 bytes each.
    project.create()
    documents = [line(f"{number:04}.png") | {"comment": ""} for number in range(1280)]
    padding = "c" * (8191 - len(compact(documents[0])))
    changes = manifest(*(compact(document | {"comment": padding}) for document in documents))
    assert len(changes) == 10 * 1024 * 1024
    error = error_response(project.client.update_dataset_entries, **OF, Changes=changes + b"\n")
    assert error["Error"]["Code"] == "ValidationException"
    assert "at 'Changes' failed to satisfy constraint" in error["Error"]["Message"]
    assert project.describe()["Status"] == "CREATE_COMPLETE"
    assert statistics(project.update(changes)) == (1280, 1280, 1280, 0)
    assert project.delete() is None


@pytest.mark.one_database
def test_changes_travel_as_base64(signed_http: SignedHttpClient) -> None:
    path = "/2020-11-20/projects/w/datasets/train/entries"
    signed_http.send("POST", "/2020-11-20/projects", body=b'{"ProjectName":"w"}')
    signed_http.send("POST", "/2020-11-20/projects/w/datasets", body=b'{"DatasetType":"train"}')
    for body, code in (
        ({"Changes": manifest(line()).decode()}, "SerializationException"),
        ({"Changes": "e30"}, "SerializationException"),
        ({"Changes": ["e30="]}, "SerializationException"),
        ({"Changes": ""}, "ValidationException"),
        ({}, "ValidationException"),
    ):
        assert signed_http.send("PATCH", path, body=json.dumps(body).encode()).code == code
    right = {"Changes": base64.b64encode(manifest(line())).decode()}
    answer = signed_http.send("PATCH", path, body=json.dumps(right).encode())
    assert (answer.status, answer.json) == (202, {"Status": "UPDATE_IN_PROGRESS"})


def test_the_first_entries_of_an_empty_dataset_name_its_bucket(project: DatasetProject) -> None:
    project.create()
    described = project.update(manifest(line("1.png", bucket="one"), line("2.png", bucket="two")))
    assert "line 2: its image is in the bucket two, others are in one" in described["StatusMessage"]
    assert project.update(manifest(line("1.png", bucket="two")))["Status"] == "UPDATE_COMPLETE"
    described = project.update(manifest(line("1.png", bucket="one")))
    assert described["Status"] == "UPDATE_FAILED_ROLLBACK_COMPLETE"
